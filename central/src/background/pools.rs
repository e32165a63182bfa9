//! Brings the pools of every node with a session here to what they are to be.
//!
//! Level-triggered: each look reads what is wanted and what the node keeps, so
//! that whatever was missed is made good by the next one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use roost_proto::convert::InvalidMessage;
use roost_proto::id::NodeId;
use roost_proto::model::Pool;
use roost_proto::node::{ListPoolsRequest, PutPoolRequest, RemovePoolRequest};
use tonic::Status;

use crate::app::Central;
use crate::clock;
use crate::link::{NodeCallError, NodeClient};
use crate::pools::plan::{self, Action};
use crate::store::{NodePool, PoolNode, PoolWish, StoreError};

/// How often, without news: claims try first where the last look saw most.
const PERIOD: Duration = Duration::from_secs(10);
/// Pause after a wake-up: many nodes that come back at once make one look.
const SETTLE: Duration = Duration::from_millis(50);
/// Nodes that are asked at once: far below what the tunnels of central carry.
const AT_ONCE: usize = 16;
/// A pool is a row of a node's ledger.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// All calls to one node: one that hangs must not hold up the others for long.
const NODE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the pools of a node are not as they are to be.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    /// The node cannot be asked, or refuses.
    #[error("the node cannot be told of its pools")]
    Node(#[from] NodeCallError),
    /// What it says cannot be read.
    #[error("the node's list of pools cannot be read")]
    Message(#[from] InvalidMessage),
    /// The database failed.
    #[error("the pools of the node cannot be stored")]
    Store(#[from] StoreError),
}

/// Runs until central shuts down.
pub async fn run(central: Arc<Central>) {
    let ending = central.tasks.ending().clone();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: a tick and a wake-up that are not taken stay; a look
        // itself is cut only by the end of central, and the next one repeats it.
        tokio::select! {
            _ = ticks.tick() => {}
            () = central.pools.woken() => tokio::time::sleep(SETTLE).await,
            () = ending.cancelled() => return,
        }
        tokio::select! {
            () = look(&central) => {}
            () = ending.cancelled() => return,
        }
    }
}

async fn look(central: &Central) {
    let board = match central.store.system().pool_board().await {
        Ok(board) => board,
        Err(error) => {
            tracing::warn!(error = crate::log::chain(&error), "pools could not be read");
            return;
        }
    };
    let here: HashSet<NodeId> = central.sessions.nodes().into_iter().collect();
    central.pools.keep_only(|node| here.contains(node));
    let (nodes, wishes) = (board.nodes, &board.wishes);
    let concerned = nodes.into_iter().filter(|node| here.contains(&node.id) && plan::concerns(node, wishes));
    futures::stream::iter(concerned)
        .for_each_concurrent(AT_ONCE, |node| async move {
            // What was done stays; the next look does the rest.
            match tokio::time::timeout(NODE_TIMEOUT, reconcile(central, &node, wishes)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error = crate::log::chain(&error);
                    tracing::warn!(node = %node.id, error, "pools of the node are not in step");
                }
                Err(_) => tracing::warn!(node = %node.id, "node is slow to answer about its pools"),
            }
        })
        .await;
}

async fn reconcile(central: &Central, node: &PoolNode, wishes: &[PoolWish]) -> Result<(), ReconcileError> {
    let mut client = central.sessions.client(&node.id)?;
    let before = plan::before(node, wishes);
    if before != node.held {
        // Known before the node is, so that nothing is left there unknown.
        keep(central, &node.id, before).await?;
    }
    let mut problem = None;
    let mut listed = match list(&mut client, &node.id).await {
        Ok(listed) => listed,
        Err(ReconcileError::Node(NodeCallError::Status { status, .. }))
            if status.code() == tonic::Code::Unimplemented =>
        {
            problem = Some("its roostd is too old for pools: upgrade it".to_owned());
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    if problem.is_none() {
        let actions = plan::actions(node, wishes, &listed);
        let is_news = !actions.is_empty();
        for action in actions {
            if let Err(error) = act(&mut client, &node.id, action).await {
                tracing::warn!(node = %node.id, error = crate::log::chain(&error), "node refuses a pool");
                problem = Some(refusal(&error));
            }
        }
        if is_news {
            listed = list(&mut client, &node.id).await?;
        }
    }
    let after = plan::after(node, wishes, &listed, problem.as_deref());
    if central.pools.seen(&node.id, &after) {
        keep(central, &node.id, after).await?;
    }
    Ok(())
}

async fn keep(central: &Central, node: &NodeId, pools: Vec<NodePool>) -> Result<(), StoreError> {
    central.store.system().keep_node_pools(node.clone(), pools.clone(), clock::now_unix_ms()).await?;
    central.pools.stored(node, pools);
    Ok(())
}

fn refusal(error: &NodeCallError) -> String {
    match error {
        NodeCallError::Status { status, .. } => status.message().to_owned(),
        other => other.to_string(),
    }
}

async fn list(client: &mut NodeClient, node: &NodeId) -> Result<Vec<Pool>, ReconcileError> {
    let answer = in_time(node, client.list_pools(ListPoolsRequest {})).await?;
    Ok(answer.pools.into_iter().map(Pool::try_from).collect::<Result<_, _>>()?)
}

async fn act(client: &mut NodeClient, node: &NodeId, action: Action) -> Result<(), NodeCallError> {
    match action {
        Action::Put(spec) => {
            tracing::info!(%node, pool = %spec.name, "pool put on a node");
            in_time(node, client.put_pool(PutPoolRequest { spec: Some((*spec).into()) })).await.map(drop)
        }
        Action::Remove(name) => {
            tracing::info!(%node, pool = %name, "pool removed from a node");
            in_time(node, client.remove_pool(RemovePoolRequest { name: name.into() })).await.map(drop)
        }
    }
}

async fn in_time<T>(
    node: &NodeId,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, NodeCallError> {
    let after_ms = u64::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(NodeCallError::Status { node: node.clone(), status: Box::new(status) }),
        Err(_) => Err(NodeCallError::Timeout { node: node.clone(), after_ms }),
    }
}
