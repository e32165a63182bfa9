//! What other replicas did to nodes, carried out where the sessions are.

use std::sync::Arc;

use roost_proto::id::NodeId;
use tokio::sync::broadcast::error::RecvError;

use crate::app::Central;
use crate::changes::NodeNews;
use crate::link::AskRenewalError;

/// Runs until central shuts down.
pub async fn run(central: Arc<Central>) {
    let ending = central.tasks.ending().clone();
    let mut news_rx = central.changes.node_news();
    loop {
        // Cancel-safe: a channel keeps what was not taken from it, and what was
        // taken is carried out before the next look.
        let news = tokio::select! {
            news = news_rx.recv() => news,
            () = ending.cancelled() => return,
        };
        match news {
            Ok(NodeNews::Removed(node)) => removed(&central, &node),
            Ok(NodeNews::Renew(node)) => match central.sessions.ask_renewal(&node) {
                Ok(()) | Err(AskRenewalError::Offline) => {}
                Err(AskRenewalError::TooOld(version)) => {
                    tracing::warn!(%node, version, "node is too old to renew at once")
                }
            },
            Ok(NodeNews::Gap) | Err(RecvError::Lagged(_)) => look_anew(&central).await,
            Err(RecvError::Closed) => return,
        }
    }
}

/// Forgets a node and cuts its session, wherever it was removed.
fn removed(central: &Central, node: &NodeId) {
    central.sessions.revoke(node);
    central.live.forget_node(node);
    central.rooms.forget();
}

/// News may have been missed: nodes with a session here may be removed.
async fn look_anew(central: &Central) {
    for node in central.sessions.nodes() {
        match central.store.system().link_node(node.clone()).await {
            Ok(Some(_)) => {}
            Ok(None) => removed(central, &node),
            // The feed is interrupted again, and its return is another gap.
            Err(error) => {
                tracing::warn!(error = crate::log::chain(&error), "sessions could not be compared with the database");
                return;
            }
        }
    }
}
