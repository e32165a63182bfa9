//! What containerd holds in the daemon's namespace, for people: without the
//! specs, which carry environments.

use containerd_client::services::v1::ListContainersRequest;
use containerd_client::services::v1::{Container, ListTasksRequest};
use serde_json::{Value, json};

use super::client::Client;
use super::error::Error;

impl Client {
    /// Version, containers and tasks as JSON.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn overview(&self) -> Result<Value, Error> {
        let version = self.version().await?;
        let request = self.request(ListContainersRequest { filters: Vec::new() });
        let answer = self.containers().list(request).await.map_err(Error::of("list", "containers"))?;
        let containers: Vec<Value> = answer.into_inner().containers.into_iter().map(container).collect();
        let request = self.request(ListTasksRequest { filter: String::new() });
        let answer = self.tasks().list(request).await.map_err(Error::of("list", "tasks"))?;
        let task = |task: containerd_client::types::v1::Process| json!({ "id": task.id, "pid": task.pid, "status": task.status, "exit_status": task.exit_status });
        let tasks: Vec<Value> = answer.into_inner().tasks.into_iter().map(task).collect();
        Ok(json!({
            "version": version.version, "revision": version.revision, "namespace": self.namespace(),
            "containers": containers, "tasks": tasks,
        }))
    }
}

/// All but spec and extensions.
fn container(container: Container) -> Value {
    let seconds = |at: Option<prost_types::Timestamp>| at.map(|at| at.seconds);
    json!({
        "id": container.id,
        "image": container.image,
        "labels": container.labels,
        "runtime": container.runtime.map(|runtime| runtime.name),
        "snapshotter": container.snapshotter,
        "snapshot": container.snapshot_key,
        "created_at_unix_s": seconds(container.created_at),
        "updated_at_unix_s": seconds(container.updated_at),
    })
}
