//! What can go wrong in the store.

use roost_proto::id::{ProfileName, SandboxName};
use roost_proto::model::FieldError;

use crate::place::PlaceError;

/// The database itself failed; the request may be tried again, after
/// [`StoreError::Unknown`] with the same idempotency key.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, or the configuration cannot be used.
    #[error("cannot open the database {path}")]
    Open {
        /// The file, or the URL without a password.
        path: String,
        /// What the engine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A statement failed; the log names the store call.
    #[error("the database refused a statement")]
    Statement(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row holds what no version of central wrote.
    #[error("a row of {table} cannot be read")]
    Corrupt {
        /// Name of the table.
        table: &'static str,
        /// What the parser said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The schema is from a newer central.
    #[error("the database has schema {found}, this central knows up to {known}: run a newer central")]
    Newer {
        /// Version in the file.
        found: i64,
        /// Newest version in this build.
        known: i64,
    },
    /// Its queue stayed full, a statement took too long, or other writers came
    /// first each time. Nothing is changed.
    #[error("the database is busy: try again")]
    Busy,
    /// The server does not answer. Nothing is changed.
    #[error("the database server does not answer: is it running, and may central log in there?")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection was lost while the answer to a commit was awaited.
    #[error("the connection to the database was lost in the middle: the change may have been made or not")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database thread has ended.
    #[error("the database is closed")]
    Closed,
}

/// Why a sandbox is not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateSandboxError {
    /// The name is taken.
    #[error("a sandbox named {0} exists")]
    NameTaken(SandboxName),
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// No node takes it.
    #[error("no node takes the sandbox")]
    Place(#[source] PlaceError),
    /// The database failed.
    #[error("the sandbox cannot be stored")]
    Store(#[from] StoreError),
}

/// Why the wish for a sandbox is not changed.
#[derive(Debug, thiserror::Error)]
pub enum SetRunStateError {
    /// No such sandbox.
    #[error("the sandbox does not exist")]
    NotFound,
    /// It is being deleted.
    #[error("the sandbox is being deleted")]
    Deleting,
    /// It does not run, so that it cannot stand still.
    #[error("the sandbox does not run")]
    NotRunning,
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The database failed.
    #[error("the wish cannot be stored")]
    Store(#[from] StoreError),
}

/// Why requests and limits are not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateSandboxError {
    /// No such sandbox.
    #[error("the sandbox does not exist")]
    NotFound,
    /// It is being deleted.
    #[error("the sandbox is being deleted")]
    Deleting,
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// It is not the generation that the caller saw.
    #[error("the sandbox has generation {held} by now")]
    Generation {
        /// What it has.
        held: u64,
    },
    /// The result breaks rules.
    #[error("the new resources break rules")]
    Invalid(Vec<FieldError>),
    /// Its node has no room for larger requests.
    #[error("the node has no room")]
    Place(#[source] PlaceError),
    /// The database failed.
    #[error("the change cannot be stored")]
    Store(#[from] StoreError),
}

/// Why a node is not taken back.
#[derive(Debug, thiserror::Error)]
pub enum ReadmitError {
    /// It is known.
    #[error("the node is known")]
    Known,
    /// The database failed.
    #[error("the node cannot be stored")]
    Store(#[from] StoreError),
}

/// Why nothing is decided on an orphan.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// No such orphan.
    #[error("the orphan does not exist")]
    NotFound,
    /// Another sandbox has its name.
    #[error("a sandbox named {0} exists")]
    NameTaken(SandboxName),
    /// The database failed.
    #[error("the decision cannot be stored")]
    Store(#[from] StoreError),
}

/// Why a template is not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutTemplateError {
    /// Its profile does not exist.
    #[error("the profile {0} does not exist")]
    NoProfile(ProfileName),
    /// The database failed.
    #[error("the template cannot be stored")]
    Store(#[from] StoreError),
}

/// Why a profile is not removed.
#[derive(Debug, thiserror::Error)]
pub enum DeleteProfileError {
    /// No such profile.
    #[error("the profile does not exist")]
    NotFound,
    /// Templates name it.
    #[error("the profile is used by templates")]
    InUse(Vec<String>),
    /// The database failed.
    #[error("the profile cannot be removed")]
    Store(#[from] StoreError),
}

/// Why a node is not removed.
#[derive(Debug, thiserror::Error)]
pub enum DeleteNodeError {
    /// No such node.
    #[error("the node does not exist")]
    NotFound,
    /// It holds sandboxes.
    #[error("the node holds {0} sandboxes")]
    NotEmpty(u64),
    /// The database failed.
    #[error("the node cannot be removed")]
    Store(#[from] StoreError),
}

/// Why a node is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Nobody issued this token, or it was withdrawn.
    #[error("the join token is not known: make one with `roost node join-token`")]
    UnknownToken,
    /// It was used before.
    #[error("the join token was used already: make a new one with `roost node join-token`")]
    UsedToken,
    /// Its time is over.
    #[error("the join token has expired: make a new one with `roost node join-token`")]
    ExpiredToken,
    /// The database failed.
    #[error("the node cannot be stored")]
    Store(#[from] StoreError),
}
