//! Why a request is not done. `api::problem` gives each its code and status.

use roost_proto::model::{FieldError, NodePhase};

use crate::link::NodeCallError;
use crate::place::PlaceError;
use crate::store::{Ending, StoreError};

/// The nouns that can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    /// An image on a node.
    Image,
    /// A join token.
    JoinToken,
    /// A node.
    Node,
    /// A sandbox that the database did not know.
    Orphan,
    /// A pool.
    Pool,
    /// A profile.
    Profile,
    /// A sandbox.
    Sandbox,
    /// A template.
    Template,
}

impl Noun {
    /// The command of `roost` that has the verb `ls` for it.
    fn command(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::JoinToken => "node join-token",
            Self::Node => "node",
            Self::Orphan => "node orphans",
            Self::Pool => "pool",
            Self::Profile => "profile",
            Self::Sandbox => "sandbox",
            Self::Template => "template",
        }
    }
}

impl std::fmt::Display for Noun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::JoinToken => "join token",
            Self::Node => "node",
            Self::Orphan => "orphan",
            Self::Pool => "pool",
            Self::Profile => "profile",
            Self::Sandbox => "sandbox",
            Self::Template => "template",
        })
    }
}

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody is known by this token.
    #[error("the token is missing or not known: send `Authorization: Bearer <token>`")]
    Unauthorized,
    /// There is no such thing.
    #[error("there is no {noun} {name}: see `roost {} ls`", noun.command())]
    NotFound {
        /// What kind of thing.
        noun: Noun,
        /// How it was called.
        name: String,
    },
    /// Its time was over.
    #[error("sandbox {name} is gone ({}): {}", ending.reason, ending.message)]
    Ended {
        /// How it was called.
        name: String,
        /// Why.
        ending: Ending,
    },
    /// Fields break rules.
    #[error("{} of the request must be mended", fields(.0))]
    Invalid(Vec<FieldError>),
    /// The present state forbids it.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// No node takes the sandbox.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A node failed.
    #[error(transparent)]
    Node(#[from] NodeCallError),
    /// The database failed.
    #[error("the database of central failed: try again, then see its log")]
    Store(#[from] StoreError),
}

fn fields(errors: &[FieldError]) -> String {
    if errors.len() == 1 { "one field".into() } else { format!("{} fields", errors.len()) }
}

impl RequestError {
    /// A missing thing.
    pub fn not_found(noun: Noun, name: &(impl ToString + ?Sized)) -> Self {
        Self::NotFound { noun, name: name.to_string() }
    }

    /// One field that breaks a rule.
    pub fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, problem)])
    }
}

/// What the present state forbids.
#[derive(Debug, thiserror::Error)]
pub enum Conflict {
    /// Another sandbox has the name.
    #[error("a sandbox named {0} exists: choose another name, or delete it and wait until it is gone")]
    NameTaken(String),
    /// The idempotency key came with another body before.
    #[error("this Idempotency-Key was used with another body: use a new key for a new request")]
    KeyReused,
    /// The idempotency key made something that is shown once.
    #[error("this Idempotency-Key has made one already, which is shown once: use a new key for another one")]
    KeySpent,
    /// It is being deleted.
    #[error("sandbox {0} is being deleted: make a new one")]
    Deleting(String),
    /// Another request goes on with the same claim.
    #[error("another request goes on with this claim: repeat it with the same Idempotency-Key in a moment")]
    ClaimBusy,
    /// The sandbox of a claim is not Ready yet.
    #[error(
        "no desktop was ready and sandbox {sandbox} is still starting: repeat the claim with the same Idempotency-Key, \
         or it is deleted"
    )]
    ClaimStarting {
        /// The sandbox.
        sandbox: String,
    },
    /// The claim stands, and its hook did not answer as it must.
    #[error("sandbox {sandbox} is claimed and not bound: {message}")]
    NotBound {
        /// The sandbox.
        sandbox: String,
        /// What the node said.
        message: String,
    },
    /// It is not in a phase in which this works.
    #[error("{0}")]
    NotReady(String),
    /// It was changed since the caller looked.
    #[error("sandbox {name} has generation {held}, not {wanted}: look at it again, then repeat the change")]
    Generation {
        /// The sandbox.
        name: String,
        /// What the caller saw.
        wanted: u64,
        /// What it has.
        held: u64,
    },
    /// Templates name the profile.
    #[error("profile {name} is used by the templates {}: change or delete those first", templates.join(", "))]
    ProfileInUse {
        /// The profile.
        name: String,
        /// Its users.
        templates: Vec<String>,
    },
    /// The node holds sandboxes.
    #[error(
        "node {name} holds {sandboxes} sandboxes: delete those first, or give them up with `roost node rm --force` if it \
         is lost for good"
    )]
    NodeNotEmpty {
        /// The node.
        name: String,
        /// How many.
        sandboxes: u64,
    },
    /// The node is known.
    #[error("node {0} is known already: there is nothing to readmit")]
    NodeExists(String),
    /// The node is still heard.
    #[error(
        "node {name} is {phase}: stop its daemon and wait until it is Offline, or cut it off with \
         `roost node rm --force` if it is lost or stolen"
    )]
    NodeNotOffline {
        /// The node.
        name: String,
        /// How well it is heard.
        phase: NodePhase,
    },
    /// The node speaks a protocol that has no such message.
    #[error("node {name} speaks NodeLink version {version}, which cannot do this: upgrade its roostd")]
    NodeTooOld {
        /// The node.
        name: String,
        /// What it speaks.
        version: u32,
    },
}
