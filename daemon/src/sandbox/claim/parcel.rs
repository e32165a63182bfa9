//! What a claim carries and nothing keeps: the content of files and secrets.

use std::collections::BTreeMap;
use std::fmt;

use roost_proto::id::ClaimId;
use tokio::sync::watch;

use super::Bound;
use crate::host::inside::NewFile;

/// What came of a claim: what was bound, or a stable word and a sentence.
pub type Outcome = Result<Bound, (&'static str, String)>;

/// The content that a claim brings, on its way from the caller to the driver.
pub struct Parcel {
    /// The claim.
    pub claim_id: ClaimId,
    /// Content of each secret.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Files for the workload's root.
    pub files: Vec<NewFile>,
    /// Where the driver says what came of it.
    pub outcome: watch::Sender<Option<Outcome>>,
}

impl Parcel {
    /// A parcel of a claim.
    #[must_use]
    pub fn new(claim_id: ClaimId, secrets: BTreeMap<String, Vec<u8>>, files: Vec<NewFile>) -> Self {
        Self { claim_id, secrets, files, outcome: watch::Sender::new(None) }
    }
}

/// Without content: this may stand in a log.
impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claim_id, secrets, files, outcome: _ } = self;
        let counts = (secrets.len(), files.len());
        f.debug_struct("Parcel").field("claim_id", claim_id).field("secrets_and_files", &counts).finish_non_exhaustive()
    }
}
