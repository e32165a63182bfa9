//! Which nodes are connected, and how to call them.
//!
//! A newer session of a node fences the older one: at most one speaks for it.
//! Calls go through tunnels that the node opens when its session asks it to;
//! one HTTP/2 channel per session is kept and remade when it breaks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use roost_proto::id::{NodeId, TunnelId};
use roost_proto::node::node_api_client::NodeApiClient;
use roost_proto::node::node_support_client::NodeSupportClient;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use super::session::VERSION_2;
use super::tunnel::TunnelIo;
use crate::changes::lock;

/// Client of one node's API, through its tunnel.
pub type NodeClient = NodeApiClient<Channel>;
/// Client of what one node answers for reports, through its tunnel.
pub(crate) type SupportClient = NodeSupportClient<Channel>;

/// Time from the wish for a tunnel until the node has opened it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Tunnels that wait for the session to ask for them; each waits 5 s at most.
const TUNNELS_DEPTH: usize = 16;
/// Largest answer of a node: a screenshot of the largest screen that PNG cannot
/// compress (7680x4320, 4 bytes a pixel), rounded up.
const ANSWER_MAX_BYTES: usize = 160 << 20;
/// Windows inside the tunnel, as outside of it.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Why a call to a node fails.
#[derive(Debug, thiserror::Error)]
pub enum NodeCallError {
    /// It has no session.
    #[error("{0} is not connected")]
    Offline(NodeId),
    /// Another replica of central has its session.
    #[error("{node} is connected to the replica {replica}: send the request there")]
    Elsewhere {
        /// Which node.
        node: NodeId,
        /// The name of the replica.
        replica: String,
    },
    /// It opened no tunnel in time.
    #[error("{0} did not open a tunnel within 5 s")]
    NoTunnel(NodeId),
    /// It did not answer in time.
    #[error("{node} did not answer within {after_ms} ms")]
    Timeout {
        /// Which node.
        node: NodeId,
        /// How long the call waited, in milliseconds.
        after_ms: u64,
    },
    /// It answered with an error, or the tunnel broke.
    #[error("{node} refused the call")]
    Status {
        /// Which node.
        node: NodeId,
        /// What it said.
        #[source]
        status: Box<tonic::Status>,
    },
}

/// Why central ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The node has begun a newer one.
    Newer,
    /// The node was removed.
    Removed,
}

/// Tells a session to end.
#[derive(Debug, Clone)]
pub(super) struct EndSignal(watch::Receiver<Option<End>>);

impl EndSignal {
    /// Waits until the session is to end.
    pub(super) async fn ended(mut self) -> End {
        match self.0.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or(End::Newer),
            // The handle is gone: another one has taken its place.
            Err(_) => End::Newer,
        }
    }
}

/// Why a node is not asked to renew its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskRenewalError {
    /// It has no session.
    Offline,
    /// Its session speaks a version that has no such message.
    TooOld(u32),
}

struct Handle {
    epoch: u64,
    version: u32,
    end: watch::Sender<Option<End>>,
    closed: CancellationToken,
    renew: Arc<Notify>,
    client: NodeClient,
    support: SupportClient,
}

struct Pending {
    node: NodeId,
    tunnel_tx: oneshot::Sender<TunnelIo>,
}

impl Handle {
    fn close(&self, why: End) {
        self.end.send_replace(Some(why));
        self.closed.cancel();
    }
}

/// Every open session.
#[derive(Default)]
pub struct Sessions {
    next_epoch: AtomicU64,
    by_node: Mutex<HashMap<NodeId, Handle>>,
    pending: Mutex<HashMap<TunnelId, Pending>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("open", &self.count()).finish_non_exhaustive()
    }
}

/// A session's own end; dropping it closes the session.
pub(super) struct Registration {
    sessions: Arc<Sessions>,
    node: NodeId,
    epoch: u64,
    /// When central ends the session, and why.
    pub(super) end: EndSignal,
    /// Ends the tunnels of the session, and its say.
    pub(super) closed: CancellationToken,
    /// Woken when somebody wants the node's certificate renewed.
    pub(super) renew: Arc<Notify>,
    /// Tunnels that the node is to open.
    pub(super) tunnels_rx: mpsc::Receiver<TunnelId>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.closed.cancel();
        let mut by_node = lock(&self.sessions.by_node);
        if by_node.get(&self.node).is_some_and(|handle| handle.epoch == self.epoch) {
            by_node.remove(&self.node);
        }
    }
}

impl Sessions {
    /// How many nodes are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.by_node).len()
    }

    /// The nodes that are connected.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        lock(&self.by_node).keys().cloned().collect()
    }

    /// Whether a node is connected.
    #[must_use]
    pub fn is_open(&self, node: &NodeId) -> bool {
        lock(&self.by_node).contains_key(node)
    }

    /// Version of NodeLink that a node's session speaks; none without one.
    #[must_use]
    pub fn version(&self, node: &NodeId) -> Option<u32> {
        lock(&self.by_node).get(node).map(|handle| handle.version)
    }

    /// The client of a connected node.
    ///
    /// # Errors
    /// [`NodeCallError::Offline`].
    pub fn client(&self, node: &NodeId) -> Result<NodeClient, NodeCallError> {
        let client = lock(&self.by_node).get(node).map(|handle| handle.client.clone());
        client.ok_or_else(|| NodeCallError::Offline(node.clone()))
    }

    /// The client for reports of a connected node.
    ///
    /// # Errors
    /// [`NodeCallError::Offline`].
    pub(crate) fn support(&self, node: &NodeId) -> Result<SupportClient, NodeCallError> {
        let client = lock(&self.by_node).get(node).map(|handle| handle.support.clone());
        client.ok_or_else(|| NodeCallError::Offline(node.clone()))
    }

    /// Makes this the session of the node and fences the one before.
    pub(super) fn open(self: &Arc<Self>, node: &NodeId, version: u32) -> Registration {
        let epoch = self.next_epoch.fetch_add(1, Ordering::Relaxed);
        let (end, end_rx) = watch::channel(None);
        let (closed, renew) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (tunnels_tx, tunnels_rx) = mpsc::channel(TUNNELS_DEPTH);
        let channel = connect_lazy(Arc::downgrade(self), node.clone(), tunnels_tx);
        let client = NodeApiClient::new(channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES);
        let support = NodeSupportClient::new(channel).max_decoding_message_size(ANSWER_MAX_BYTES);
        let (renew_asked, is_closed) = (renew.clone(), closed.clone());
        let handle = Handle { epoch, version, end, closed: is_closed, renew: renew_asked, client, support };
        if let Some(older) = lock(&self.by_node).insert(node.clone(), handle) {
            tracing::info!("newer session of the node: the older one is fenced");
            older.close(End::Newer);
        }
        let end = EndSignal(end_rx);
        Registration { sessions: self.clone(), node: node.clone(), epoch, end, closed, renew, tunnels_rx }
    }

    /// Ends the session of a node that was removed, with its tunnels.
    pub fn revoke(&self, node: &NodeId) {
        let removed = lock(&self.by_node).remove(node);
        if let Some(handle) = removed {
            handle.close(End::Removed);
        }
    }

    /// Asks a node to renew its certificate now.
    ///
    /// # Errors
    /// See [`AskRenewalError`].
    pub fn ask_renewal(&self, node: &NodeId) -> Result<(), AskRenewalError> {
        let by_node = lock(&self.by_node);
        let handle = by_node.get(node).ok_or(AskRenewalError::Offline)?;
        if handle.version < VERSION_2 {
            return Err(AskRenewalError::TooOld(handle.version));
        }
        handle.renew.notify_one();
        Ok(())
    }

    /// Cancelled when the session of a node ends; none without one.
    pub(super) fn closed(&self, node: &NodeId) -> Option<CancellationToken> {
        lock(&self.by_node).get(node).map(|handle| handle.closed.clone())
    }

    /// Hands over a tunnel that a node has opened; false if nobody waits for it.
    pub(super) fn deliver(&self, node: &NodeId, id: &TunnelId, tunnel: TunnelIo) -> bool {
        let mut pending = lock(&self.pending);
        if pending.get(id).is_none_or(|waiting| waiting.node != *node) {
            return false;
        }
        pending.remove(id).is_some_and(|waiting| waiting.tunnel_tx.send(tunnel).is_ok())
    }

    /// Has the node open a tunnel.
    async fn dial(&self, node: NodeId, tunnels_tx: mpsc::Sender<TunnelId>) -> Result<TunnelIo, NodeCallError> {
        let id = TunnelId::random();
        let (tunnel_tx, tunnel_rx) = oneshot::channel();
        lock(&self.pending).insert(id.clone(), Pending { node: node.clone(), tunnel_tx });
        let asked = id.clone();
        let open = async {
            tunnels_tx.send(asked).await.map_err(|_| NodeCallError::Offline(node.clone()))?;
            tunnel_rx.await.map_err(|_| NodeCallError::NoTunnel(node.clone()))
        };
        let opened = tokio::time::timeout(OPEN_TIMEOUT, open).await;
        lock(&self.pending).remove(&id);
        opened.unwrap_or_else(|_| Err(NodeCallError::NoTunnel(node)))
    }
}

/// A channel that opens a tunnel with its first call, and another one whenever
/// the present one breaks.
fn connect_lazy(sessions: Weak<Sessions>, node: NodeId, tunnels_tx: mpsc::Sender<TunnelId>) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let (sessions, node, tunnels_tx) = (sessions.clone(), node.clone(), tunnels_tx.clone());
        async move {
            let sessions = sessions.upgrade().ok_or_else(|| NodeCallError::Offline(node.clone()))?;
            sessions.dial(node, tunnels_tx).await.map(TokioIo::new)
        }
    });
    // The name is never resolved: the tunnel is the address.
    Endpoint::from_static("http://node.roost.internal")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector_lazy(connector)
}

#[cfg(test)]
mod tests {
    use super::*;

    // A channel needs a runtime to live in.
    #[tokio::test]
    async fn a_newer_session_fences_the_older_and_outlives_its_end() {
        let sessions = Arc::new(Sessions::default());
        let node = NodeId::random();
        let older = sessions.open(&node, 2);
        let newer = sessions.open(&node, 2);
        assert_eq!(older.end.clone().ended().await, End::Newer);
        assert!(older.closed.is_cancelled() && !newer.closed.is_cancelled());
        drop(older);
        assert!(sessions.is_open(&node));
        drop(newer);
        assert!(!sessions.is_open(&node));
    }

    #[tokio::test]
    async fn a_removed_node_loses_its_session_and_its_tunnels() {
        let sessions = Arc::new(Sessions::default());
        let node = NodeId::random();
        let session = sessions.open(&node, 2);
        sessions.revoke(&node);
        assert_eq!(session.end.clone().ended().await, End::Removed);
        assert!(session.closed.is_cancelled() && !sessions.is_open(&node));
    }

    #[tokio::test]
    async fn only_a_connected_node_that_understands_it_is_asked_to_renew() {
        let sessions = Arc::new(Sessions::default());
        let node = NodeId::random();
        assert_eq!(sessions.ask_renewal(&node), Err(AskRenewalError::Offline));
        let _old = sessions.open(&node, 1);
        assert_eq!(sessions.ask_renewal(&node), Err(AskRenewalError::TooOld(1)));
        let new = sessions.open(&node, 2);
        assert_eq!(sessions.ask_renewal(&node), Ok(()));
        new.renew.notified().await;
    }

    #[tokio::test]
    async fn a_call_to_an_absent_node_fails_at_once() {
        let sessions = Sessions::default();
        assert!(matches!(sessions.client(&NodeId::random()), Err(NodeCallError::Offline(_))));
    }
}
