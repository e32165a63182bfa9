//! Further programs in a running container.
//!
//! Their input and output are FIFOs. A FIFO without a reader blocks the
//! runtime for ever, so the caller opens its ends before [`Client::exec`].

use std::path::Path;

use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest, WaitRequest,
};
use prost_types::Any;

use super::client::Client;
use super::container::{ContainerId, PROCESS_TYPE};
use super::error::{Error, Idempotent};
use super::spec::{Program, Role};
use crate::host::limits::raise_oom_score;

/// Names one program in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecId {
    /// In which container.
    pub container: ContainerId,
    /// Its own name, unique in the container.
    pub name: String,
}

impl ExecId {
    fn object(&self) -> String {
        format!("program {} of {}", self.name, self.container)
    }
}

/// FIFOs of a program; empty = none.
#[derive(Debug, Clone, Copy)]
pub struct ExecFifos<'a> {
    /// Read by the program.
    pub stdin: Option<&'a Path>,
    /// Written by the program.
    pub stdout: &'a Path,
    /// Written by the program; none with a terminal.
    pub stderr: Option<&'a Path>,
}

impl Client {
    /// Makes and starts a program in a running container.
    ///
    /// # Errors
    /// containerd's refusal (e.g. no such program), or that it is
    /// unavailable. Nothing of the program is left then.
    pub async fn exec(&self, id: &ExecId, program: &Program, fifos: ExecFifos<'_>) -> Result<(), Error> {
        let text = |path: Option<&Path>| path.map(|p| p.display().to_string()).unwrap_or_default();
        let process = program.to_json(Role::Workload).to_string();
        let message = ExecProcessRequest {
            container_id: id.container.to_string(),
            exec_id: id.name.clone(),
            stdin: text(fifos.stdin),
            stdout: text(Some(fifos.stdout)),
            stderr: text(fifos.stderr),
            terminal: program.terminal,
            spec: Some(Any { type_url: PROCESS_TYPE.into(), value: process.into_bytes() }),
        };
        self.tasks().exec(self.request(message)).await.map_err(Error::of("make", id.object()))?;
        let message = StartRequest { container_id: id.container.to_string(), exec_id: id.name.clone() };
        let started = self.tasks().start(self.request(message)).await.map_err(Error::of("start", id.object()));
        match started {
            Ok(answer) => {
                // crun 1.8 leaves a further program what the shim has.
                let raised = raise_oom_score(answer.into_inner().pid, Role::Workload.oom_score_adj());
                if let Err(error) = raised {
                    tracing::warn!(program = id.object(), %error, "others may be killed before it for want of memory");
                }
                Ok(())
            }
            Err(error) => {
                self.delete_exec(id).await?;
                Err(error)
            }
        }
    }

    /// Waits for a program's end: its exit code, 128 + signal when killed.
    ///
    /// # Errors
    /// That it does not exist, or that the connection broke meanwhile.
    pub async fn wait_exec(&self, id: &ExecId) -> Result<i32, Error> {
        let message = WaitRequest { container_id: id.container.to_string(), exec_id: id.name.clone() };
        let answer = self.tasks().wait(self.request_unbounded(message)).await;
        let status = answer.map_err(Error::of("wait for", id.object()))?.into_inner().exit_status;
        Ok(i32::try_from(status).unwrap_or(i32::MAX))
    }

    /// Sends a signal to a program; one that has ended is success.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn kill_exec(&self, id: &ExecId, signal: u32) -> Result<(), Error> {
        let message =
            KillRequest { container_id: id.container.to_string(), exec_id: id.name.clone(), signal, all: false };
        self.tasks().kill(self.request(message)).await.map_err(Error::of("signal", id.object())).or_gone()
    }

    /// Resizes the terminal of a program.
    ///
    /// # Errors
    /// That it has none or has ended, or that containerd is unavailable.
    pub async fn resize_exec(&self, id: &ExecId, columns: u16, rows: u16) -> Result<(), Error> {
        let message = ResizePtyRequest {
            container_id: id.container.to_string(),
            exec_id: id.name.clone(),
            width: columns.into(),
            height: rows.into(),
        };
        let answer = self.tasks().resize_pty(self.request(message)).await;
        answer.map(drop).map_err(Error::of("resize the terminal of", id.object()))
    }

    /// Removes an ended program; one that is gone is success.
    ///
    /// # Errors
    /// containerd's refusal (it runs), or that it is unavailable.
    pub async fn delete_exec(&self, id: &ExecId) -> Result<(), Error> {
        let message = DeleteProcessRequest { container_id: id.container.to_string(), exec_id: id.name.clone() };
        self.tasks().delete_process(self.request(message)).await.map_err(Error::of("remove", id.object())).or_gone()
    }
}
