//! Looking into the running daemon; on the unix socket only.

use roost_proto::node as wire;
use tonic::Status;

use super::status::unreadable_state;
use crate::logging::LoggingError;
use crate::tasks::Tasks;

/// The inside of the daemon, for people.
#[tonic::async_trait]
pub trait DebugSource: Send + Sync + 'static {
    /// Everything the daemon holds, without secrets.
    async fn state(&self) -> serde_json::Value;

    /// Puts a tracing filter in force and returns the one before it.
    ///
    /// # Errors
    /// When the text is no filter.
    fn set_log_filter(&self, filter: &str) -> Result<String, LoggingError>;
}

pub(super) async fn state_dump(source: &dyn DebugSource) -> Result<wire::StateDumpResponse, Status> {
    let json = serde_json::to_string_pretty(&source.state().await).map_err(|error| unreadable_state(&error))?;
    Ok(wire::StateDumpResponse { json })
}

pub(super) fn list_tasks(tasks: &Tasks) -> wire::ListTasksResponse {
    let task = |task: crate::tasks::TaskInfo| wire::TaskInfo {
        name: task.name,
        state: task.state,
        age_ms: task.age_ms,
        state_age_ms: task.state_age_ms,
    };
    wire::ListTasksResponse { tasks: tasks.list().into_iter().map(task).collect() }
}

pub(super) fn set_log_filter(
    source: &dyn DebugSource,
    request: &wire::SetLogLevelRequest,
) -> Result<wire::SetLogLevelResponse, Status> {
    let previous = source.set_log_filter(&request.filter)?;
    tracing::info!(filter = request.filter, previous, "log filter changed");
    Ok(wire::SetLogLevelResponse { previous })
}
