//! The node of a bench, and sandboxes on it.

use futures::{StreamExt, TryStreamExt};
use roost_proto::id::SandboxId;
use roost_proto::model::Phase;
use roost_proto::node::SetLogLevelRequest;
use roost_tests::client::request;
use roost_tests::node::spec;
use roost_tests::{NodeClient, Result, TestNode};

use crate::progress::{Progress, say};

/// Log of a daemon in the field; the harness asks for more.
const LOG_FILTER: &str = "info";
/// Sandboxes that are made or removed at once when their time does not count.
const AT_ONCE: usize = 4;
/// Lines of the daemon's log that a failed bench shows.
const LOG_LINES: usize = 20;

/// Runs a bench on a node of its own and leaves nothing behind.
///
/// # Errors
/// The bench's own, after the end of the daemon's log; or the node's.
pub(crate) async fn with_node(bench: &str, steps: impl AsyncFnOnce(&mut TestNode) -> Result<()>) -> Result<()> {
    say(bench, "starting a node");
    let mut node = TestNode::start().await?;
    set_log_filter(&node.client).await?;
    let result = match steps(&mut node).await {
        Ok(()) => clear(bench, &node).await,
        error => error,
    };
    if result.is_err() {
        show_log(bench, &node);
    }
    result
}

/// Makes a daemon log as it does in the field.
///
/// # Errors
/// Its refusal.
pub(crate) async fn set_log_filter(client: &NodeClient) -> Result<()> {
    let request = SetLogLevelRequest { filter: LOG_FILTER.into() };
    client.debug.clone().set_log_level(request).await?;
    Ok(())
}

fn show_log(bench: &str, node: &TestNode) {
    let log = node.daemon.output();
    let lines: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
    say(bench, "last lines of roostd:");
    lines.iter().rev().for_each(|line| eprintln!("    {line}"));
}

/// Makes `n` sandboxes of the template `fluxbox` and waits until all are
/// Ready.
///
/// # Errors
/// When one of them does not become Ready.
pub(crate) async fn fill(bench: &str, node: &TestNode, n: usize) -> Result<Vec<SandboxId>> {
    let spec = spec("fluxbox")?;
    let progress = Progress::new(bench, "starting sandboxes", n)?;
    let start = async |client: &NodeClient| {
        let id = client.create_ready(&spec).await?;
        progress.step();
        Ok(id)
    };
    futures::stream::iter(0..n).map(|_| start(&node.client)).buffer_unordered(AT_ONCE).try_collect().await
}

/// Deletes every sandbox of a node.
async fn clear(bench: &str, node: &TestNode) -> Result<()> {
    let ids: Vec<SandboxId> =
        node.client.list().await?.keys().map(|id| id.parse()).collect::<std::result::Result<_, _>>()?;
    let progress = Progress::new(bench, "deleting sandboxes", ids.len())?;
    let remove = async |id: SandboxId| {
        delete(&node.client, &id).await?;
        progress.step();
        Ok(())
    };
    futures::stream::iter(ids).map(remove).buffer_unordered(AT_ONCE).try_collect().await
}

/// Deletes a sandbox and waits until nothing of it is left.
///
/// # Errors
/// The node's refusal.
pub(crate) async fn delete(client: &NodeClient, id: &SandboxId) -> Result<()> {
    client.api.clone().delete_sandbox(request(id)).await?;
    match client.reaches(id, Phase::Gone).await {
        // It was gone before the watch began.
        Err(error) if is_not_found(&*error) => Ok(()),
        result => result.map(drop),
    }
}

fn is_not_found(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<tonic::Status>().is_some_and(|status| status.code() == tonic::Code::NotFound)
}
