//! What the node answers itself: `NodeApi`, `NodeVolumes`, `NodeSupport` and
//! `NodeDebug` on a unix socket, all but `NodeDebug` to central through a tunnel.
//!
//! This room owns the socket, the check of who calls, and the translation
//! between messages and the domain. It holds no state of any sandbox: every
//! handler asks one of the traits in [`ApiParts`]. Errors become a
//! `tonic::Status` in [`status`] and nowhere else.

pub mod claim;
mod convert;
pub mod debug;
pub mod exec;
pub mod files;
pub mod image;
mod listen;
pub mod logs;
pub mod peer;
pub mod sandbox;
pub mod screenshot;
mod serve;
mod service;
pub mod status;
pub mod support;
mod volume;
mod watch;

use std::sync::Arc;

use roost_proto::model::NodeStatus;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use listen::{ApiHandle, ListenError, SocketConfig};

use claim::Claims;
use debug::DebugSource;
use exec::ExecRunner;
use files::Files;
use image::ImageStore;
use logs::LogFiles;
use peer::Caller;
use sandbox::Sandboxes;
use screenshot::Screenshots;
use support::SupportSource;

use crate::tasks::Tasks;
use crate::volume::Volumes;

/// What the API asks: one part of the domain each.
pub struct ApiParts {
    /// The life of the sandboxes.
    pub sandboxes: Arc<dyn Sandboxes>,
    /// Claims and pools.
    pub claims: Arc<dyn Claims>,
    /// Volumes; none on a node that only plays its sandboxes.
    pub volumes: Option<Volumes>,
    /// Programs inside a workload.
    pub execs: Arc<dyn ExecRunner>,
    /// Files of a workload.
    pub files: Arc<dyn Files>,
    /// Frames of a display.
    pub screenshots: Arc<dyn Screenshots>,
    /// Images that the node holds.
    pub images: Arc<dyn ImageStore>,
    /// Where the kept output lies.
    pub logs: LogFiles,
    /// What the node is and can hold.
    pub node: tokio::sync::watch::Receiver<NodeStatus>,
    /// The inside of the daemon, for people.
    pub debug: Arc<dyn DebugSource>,
    /// What reports are made of.
    pub support: Arc<dyn SupportSource>,
    /// Where this room's own tasks run, and what the debugging socket lists.
    pub tasks: Tasks,
}

impl std::fmt::Debug for ApiParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiParts").field("logs", &self.logs).finish_non_exhaustive()
    }
}

/// The node's API, ready to answer connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    tasks: Tasks,
    local: serve::Server,
    tunnel: serve::Server,
}

impl Api {
    /// Builds both faces: the socket's with `NodeDebug`, the tunnel's without.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        let tasks = parts.tasks.clone();
        let shared = Arc::new(service::Shared::new(parts));
        Self { tasks, local: serve::Server::local(&shared), tunnel: serve::Server::tunnel(&shared) }
    }

    /// Opens the socket and answers on it until `shutdown`.
    ///
    /// # Errors
    /// When another daemon holds the socket or the path cannot be used.
    pub fn listen(&self, config: SocketConfig, shutdown: CancellationToken) -> Result<ApiHandle, ListenError> {
        listen::start(config, self.local.clone(), &self.tasks, shutdown)
    }

    /// Answers central on one tunnel until it ends or `shutdown`.
    pub async fn serve_tunnel<I>(&self, io: I, shutdown: CancellationToken)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.tunnel.serve_connection(io, Caller::Central, shutdown).await;
    }
}
