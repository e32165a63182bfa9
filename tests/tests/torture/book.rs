//! What was acknowledged to people, and what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roost_proto::id::{ClaimId, SandboxId};
use roost_tests::NodeClient;
use tokio::sync::watch;

/// A sandbox that somebody was told to have.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// It is to run, or to be stopped.
    pub(crate) runs: bool,
    /// Its disk is limited.
    pub(crate) is_limited: bool,
    /// The claim that it was given to.
    pub(crate) claim: Option<ClaimId>,
    /// A file with its id was written into its home.
    pub(crate) is_marked: bool,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Every sandbox that was acknowledged and not deleted since.
    pub(crate) sandboxes: BTreeMap<SandboxId, Entry>,
    /// What claims were given, also of those deleted since.
    pub(crate) claims: BTreeMap<ClaimId, SandboxId>,
    /// What was acknowledged to be deleted.
    pub(crate) deleted: BTreeSet<SandboxId>,
    pub(crate) created: u32,
    pub(crate) changed: u32,
    /// Claims that found no desktop in time.
    pub(crate) refused: u32,
}

impl Book {
    pub(crate) fn summary(&self) -> String {
        let Self { claims, deleted, created, changed, refused, .. } = self;
        format!(
            "{created} sandboxes made, {} claimed ({refused} claims found none), {changed} stopped or started, {} deleted",
            claims.len(),
            deleted.len()
        )
    }

    /// Takes note of a claim that was answered.
    pub(crate) fn claimed(&mut self, claim: ClaimId, id: SandboxId) {
        let other = self.claims.iter().find(|(other, has)| **has == id && **other != claim);
        assert!(other.is_none(), "{id} was given to {claim} and before to {other:?}");
        let before = self.claims.insert(claim.clone(), id.clone());
        assert!(before.as_ref().is_none_or(|before| *before == id), "{claim} was given {before:?} and then {id}");
        let entry = Entry { runs: true, is_limited: false, claim: Some(claim), is_marked: false };
        self.sandboxes.insert(id, entry);
    }
}

/// Whether people are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hours {
    Open,
    Closed,
    Over,
}

/// What people, killers and checks share.
#[derive(Debug)]
pub(crate) struct World {
    client: watch::Sender<NodeClient>,
    hours: watch::Sender<Hours>,
    /// People who are in the middle of something.
    pub(crate) busy: watch::Sender<u32>,
    book: Mutex<Book>,
}

impl World {
    pub(crate) fn new(client: NodeClient) -> Arc<Self> {
        let (client, hours) = (watch::Sender::new(client), watch::Sender::new(Hours::Closed));
        Arc::new(Self { client, hours, busy: watch::Sender::new(0), book: Mutex::default() })
    }

    /// The client of the present daemon.
    pub(crate) fn client(&self) -> NodeClient {
        self.client.borrow().clone()
    }

    /// Another daemon answers now.
    pub(crate) fn renew(&self, client: NodeClient) {
        self.client.send_replace(client);
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hours(&self) -> watch::Receiver<Hours> {
        self.hours.subscribe()
    }

    pub(crate) fn resume(&self) {
        self.hours.send_replace(Hours::Open);
    }

    pub(crate) fn end(&self) {
        self.hours.send_replace(Hours::Over);
    }

    /// Returns once nobody is in the middle of anything.
    pub(crate) async fn rest(&self) {
        self.hours.send_replace(Hours::Closed);
        let mut busy = self.busy.subscribe();
        // The sender lives in `self`: this cannot fail.
        let _rest = busy.wait_for(|busy| *busy == 0).await;
    }
}
