//! Why a registry does not give an image.

use std::error::Error as StdError;
use std::path::PathBuf;

use roost_proto::model::ImageRef;

use super::signature::SignatureError;

/// Why an image cannot be had from its registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Only nodes know such a name.
    #[error(
        "image {reference} names no registry: import it, or name it with its registry, e.g. registry.example/{reference}"
    )]
    NoRegistry {
        /// What was asked for.
        reference: ImageRef,
    },
    /// A file of the configuration cannot be used.
    #[error("{}, which the configuration names, cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The registry wants other credentials, or none of its images are ours.
    #[error("registry {host} does not let this node read {reference}: check its entry in images.credentials_file")]
    Unauthorized {
        /// Which host.
        host: String,
        /// What was asked for.
        reference: ImageRef,
    },
    /// No such image there.
    #[error("registry {host} has no {object} of {reference}: check name and tag, or push it")]
    NotFound {
        /// Which host.
        host: String,
        /// What was asked for.
        reference: ImageRef,
        /// `manifest` or a blob.
        object: String,
    },
    /// No answer, or the connection broke, as often as it was tried.
    #[error("registry {host} cannot be reached for {reference} (tries: {attempts}): {advice}")]
    Unreachable {
        /// Which host.
        host: String,
        /// What was asked for.
        reference: ImageRef,
        /// How often.
        attempts: u32,
        /// What to do; names the proxy, if one is on the way.
        advice: String,
        /// What happened last.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The registry answers with an error.
    #[error("registry {host} answers {status} for {reference}: {problem}; pull again later")]
    Status {
        /// Which host.
        host: String,
        /// What was asked for.
        reference: ImageRef,
        /// The HTTP status.
        status: u16,
        /// Its first words, or how long it wants us to wait.
        problem: String,
    },
    /// The registry breaks the protocol.
    #[error("registry {host} gives a wrong answer for {reference}: {problem}")]
    Answer {
        /// Which host.
        host: String,
        /// What was asked for.
        reference: ImageRef,
        /// What is wrong.
        problem: String,
    },
    /// The image is not signed as a rule wants it.
    #[error("image {reference} is refused: {source}")]
    Signature {
        /// What was asked for.
        reference: ImageRef,
        /// Why; part of the text, as a refusal without its reason is of no use.
        source: Box<SignatureError>,
    },
}

impl RegistryError {
    /// Whether the same pull may succeed later and should go on from there.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !super::advice::is_final(&**source),
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}
