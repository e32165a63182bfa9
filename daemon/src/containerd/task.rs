//! Tasks: running containers.

use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::{
    CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, ListTasksRequest, StartRequest, WaitRequest,
};
use containerd_client::types::v1::Status as WireStatus;

use super::client::Client;
use super::container::ContainerId;
use super::error::{Error, Idempotent};

/// A start makes a shim, a bundle and several processes; under a storm of
/// starts it takes seconds on a small machine.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);

/// What containerd says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStatus {
    /// Made and not started.
    Created,
    /// Runs (or is paused).
    Running,
    /// Ended; the number is its exit code, 128 + signal when killed.
    Stopped(i32),
    /// The shim does not answer.
    Unknown,
}

/// A task as containerd lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecord {
    /// Whose task.
    pub id: ContainerId,
    /// Its process on the host.
    pub pid: u32,
    /// Where it is in its life.
    pub status: TaskStatus,
}

fn exit_code(status: u32) -> i32 {
    i32::try_from(status).unwrap_or(i32::MAX)
}

fn task_status(status: i32, exit_status: u32) -> TaskStatus {
    match WireStatus::try_from(status) {
        Ok(WireStatus::Created) => TaskStatus::Created,
        Ok(WireStatus::Running | WireStatus::Paused | WireStatus::Pausing) => TaskStatus::Running,
        Ok(WireStatus::Stopped) => TaskStatus::Stopped(exit_code(exit_status)),
        Ok(WireStatus::Unknown) | Err(_) => TaskStatus::Unknown,
    }
}

impl Client {
    /// Makes the task of a container whose root file system is mounted
    /// already; output goes to `log`. Returns its pid.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn create_task(&self, id: &ContainerId, log: &Path) -> Result<u32, Error> {
        let output = format!("file://{}", log.display());
        let message = CreateTaskRequest {
            container_id: id.to_string(),
            stdout: output.clone(),
            stderr: output,
            ..CreateTaskRequest::default()
        };
        let answer = self.tasks().create(self.request_within(message, CREATE_TIMEOUT)).await;
        Ok(answer.map_err(Error::of("create task", id.to_string()))?.into_inner().pid)
    }

    /// Starts a made task.
    ///
    /// # Errors
    /// containerd's refusal (e.g. the program does not exist), or that it is
    /// unavailable.
    pub async fn start_task(&self, id: &ContainerId) -> Result<(), Error> {
        let message = StartRequest { container_id: id.to_string(), exec_id: String::new() };
        let answer = self.tasks().start(self.request_within(message, CREATE_TIMEOUT)).await;
        answer.map(drop).map_err(Error::of("start task", id.to_string()))
    }

    /// Sends a signal to the first process of a task, or to all; a task that
    /// is gone is success.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn kill_task(&self, id: &ContainerId, signal: nix::sys::signal::Signal, all: bool) -> Result<(), Error> {
        let message = KillRequest {
            container_id: id.to_string(),
            exec_id: String::new(),
            signal: (signal as i32).unsigned_abs(),
            all,
        };
        self.tasks().kill(self.request(message)).await.map_err(Error::of("kill task", id.to_string())).or_gone()
    }

    /// Waits until a task ends; its exit code. A task that is gone has ended:
    /// none. Takes as long as the task lives: the caller bounds it.
    ///
    /// # Errors
    /// That the connection broke meanwhile: ask again.
    pub async fn wait_task(&self, id: &ContainerId) -> Result<Option<i32>, Error> {
        let message = WaitRequest { container_id: id.to_string(), exec_id: String::new() };
        let answer = self.tasks().wait(self.request_unbounded(message)).await;
        match answer.map_err(Error::of("wait for task", id.to_string())) {
            Ok(answer) => Ok(Some(exit_code(answer.into_inner().exit_status))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an ended task; one that is gone is success. The shim ends with
    /// its last task.
    ///
    /// # Errors
    /// containerd's refusal (it runs), or that it is unavailable.
    pub async fn delete_task(&self, id: &ContainerId) -> Result<(), Error> {
        let message = DeleteTaskRequest { container_id: id.to_string() };
        let answer = self.tasks().delete(self.request_within(message, CREATE_TIMEOUT)).await;
        answer.map_err(Error::of("delete task", id.to_string())).or_gone()
    }

    /// One task; none if it does not exist.
    ///
    /// # Errors
    /// That containerd is unavailable.
    pub async fn get_task(&self, id: &ContainerId) -> Result<Option<TaskRecord>, Error> {
        let message = GetRequest { container_id: id.to_string(), exec_id: String::new() };
        match self.tasks().get(self.request(message)).await.map_err(Error::of("get task", id.to_string())) {
            Ok(answer) => Ok(answer.into_inner().process.map(|process| TaskRecord {
                id: id.clone(),
                pid: process.pid,
                status: task_status(process.status, process.exit_status),
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every task of this daemon.
    ///
    /// # Errors
    /// That containerd is unavailable.
    pub async fn list_tasks(&self) -> Result<Vec<TaskRecord>, Error> {
        let request = self.request_within(ListTasksRequest::default(), CREATE_TIMEOUT);
        let answer = self.tasks().list(request).await.map_err(Error::of("list", "tasks"))?;
        let records = answer.into_inner().tasks.into_iter().filter_map(|process| {
            let id = ContainerId::parse(&process.id)?;
            Some(TaskRecord { id, pid: process.pid, status: task_status(process.status, process.exit_status) })
        });
        Ok(records.collect())
    }
}
