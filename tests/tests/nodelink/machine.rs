//! A node with the daemon's real link, and sandboxes without containers.

use std::sync::Arc;

use roost_proto::model::NodeStatus;
use roostd::link::{LinkConfig, LinkHandle, LinkParts, LinkState};
use roostd::tasks::Tasks;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fakes::{self, FakeNode};
use crate::soon;

/// A node that holds a connection to central; dropped, it ends.
pub(crate) struct Machine {
    pub(crate) node: FakeNode,
    pub(crate) link: LinkHandle,
    dir: tempfile::TempDir,
    _status: watch::Sender<NodeStatus>,
    _shutdown: DropGuard,
}

impl Machine {
    /// Enrols and connects, for as long as it lives.
    pub(crate) fn join(address: &str, join: &str) -> Self {
        let (dir, node, tasks) = (tempfile::tempdir().unwrap(), FakeNode::new(), Tasks::default());
        let (status, status_rx) = watch::channel(fakes::status());
        let config = LinkConfig {
            address: address.into(),
            abandon_sandboxes: true,
            state_dir: dir.path().join("identity"),
            node_name: "n1".into(),
            join: Some(join.parse().unwrap()),
        };
        let parts = LinkParts {
            sandboxes: Arc::new(node.clone()),
            status: status_rx,
            api: fakes::api(&node, dir.path(), &tasks),
            tasks,
        };
        let shutdown = CancellationToken::new();
        let link = roostd::link::start(config, parts, shutdown.clone()).unwrap();
        Self { node, link, dir, _status: status, _shutdown: shutdown.drop_guard() }
    }

    /// Waits until the link's state is so, and returns it.
    pub(crate) async fn state(&self, what: &str, is_so: impl FnMut(&LinkState) -> bool) -> LinkState {
        soon(what, self.link.state().wait_for(is_so)).await.unwrap().clone()
    }

    /// What the node keeps of its key, its certificate and its trust.
    pub(crate) fn identity(&self) -> serde_json::Value {
        let text = std::fs::read(self.dir.path().join("identity/identity.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Waits until the node trusts so many CAs.
    pub(crate) async fn trusts(&self, count: usize) {
        soon("the trust", async {
            while self.identity()["ca_pem"].as_str().unwrap().matches("BEGIN CERTIFICATE").count() != count {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}
