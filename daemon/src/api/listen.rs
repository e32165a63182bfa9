//! The unix socket: one owner, a fixed mode, known callers.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, chown};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::peer::{Caller, PeerPolicy};
use super::serve::Server;
use crate::tasks::Tasks;

/// Read and write for owner and group: the group's members are trusted as
/// much as root, since they can run programs in any sandbox.
const SOCKET_MODE: u32 = 0o660;
/// Connections at once. A person holds one or two; scripts tens.
const CONNECTIONS_MAX: usize = 256;
/// Pause after a failed accept: it fails for want of file descriptors, which
/// no retry without a pause would free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the socket lies and who may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// Path of the socket; its directory must exist.
    pub path: PathBuf,
    /// Group that owns the socket; absent = the daemon's own.
    pub group_gid: Option<u32>,
    /// Users that may connect, besides root.
    pub allowed_uids: Vec<u32>,
    /// Groups whose members may connect.
    pub allowed_gids: Vec<u32>,
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon answers there.
    #[error("another daemon serves {}: stop it or configure another socket", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket lies at the path.
    #[error("{} exists and is no socket: move it away or configure another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A step on the path failed.
    #[error("cannot {operation} {}", path.display())]
    Path {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl ListenError {
    fn path(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Path { operation, path: path.into(), source: source.into() }
    }
}

/// A socket that is being served.
#[derive(Debug)]
pub struct ApiHandle {
    task: JoinHandle<()>,
    path: PathBuf,
}

impl ApiHandle {
    /// Path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the socket is closed after its shutdown was asked: calls
    /// under way get `grace` to end, then they are cut off.
    pub async fn stopped(mut self, grace: Duration) {
        if tokio::time::timeout(grace, &mut self.task).await.is_err() {
            tracing::warn!(path = %self.path.display(), "API calls cut off at the end of the grace period");
            self.task.abort();
        }
    }
}

/// The bound socket. Its lock is held as long as this lives, so that a second
/// daemon can tell a stale file from a served one without a race.
#[derive(Debug)]
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    _lock: Flock<File>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A successor may have replaced the file already: remove only ours.
        let is_ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket file stays behind");
        }
    }
}

pub(super) fn start(
    config: SocketConfig,
    server: Server,
    tasks: &Tasks,
    shutdown: CancellationToken,
) -> Result<ApiHandle, ListenError> {
    let socket = bind(&config)?;
    let path = config.path.clone();
    tracing::info!(path = %path.display(), "API socket open");
    let policy = PeerPolicy { uids: config.allowed_uids, gids: config.allowed_gids };
    let task = accept_loop(socket, server, Arc::new(policy), shutdown);
    let task = tasks.spawn("api", task.instrument(tracing::info_span!("api")));
    Ok(ApiHandle { task, path })
}

/// Binds under a temporary name and renames: whoever sees the path sees a
/// socket with its final mode and owner.
fn bind(config: &SocketConfig) -> Result<Socket, ListenError> {
    let path = &config.path;
    let lock = lock(path)?;
    refuse_what_is_served(path)?;
    let new = with_suffix(path, ".new");
    remove_if_there(&new)?;
    let listener = UnixListener::bind(&new).map_err(|e| ListenError::path("bind", &new, e))?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(SOCKET_MODE))
        .map_err(|e| ListenError::path("set the mode of", &new, e))?;
    chown(&new, None, config.group_gid.map(Gid::from_raw))
        .map_err(|e| ListenError::path("set the group of", &new, e))?;
    let inode = std::fs::symlink_metadata(&new).map_err(|e| ListenError::path("look at", &new, e))?.ino();
    std::fs::rename(&new, path).map_err(|e| ListenError::path("move the new socket to", path, e))?;
    Ok(Socket { listener, path: path.clone(), inode, _lock: lock })
}

/// Takes the lock beside the socket; the kernel frees it with the process.
fn lock(path: &Path) -> Result<Flock<File>, ListenError> {
    let lock_path = with_suffix(path, ".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(|e| ListenError::path("open", &lock_path, e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => ListenError::InUse { path: path.into() },
        other => ListenError::path("lock", &lock_path, other),
    })
}

/// Lets a stale socket pass, and nothing else that lies at the path.
fn refuse_what_is_served(path: &Path) -> Result<(), ListenError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ListenError::path("look at", path, error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.into() });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(ListenError::path("try", path, error)),
    }
}

fn remove_if_there(path: &Path) -> Result<(), ListenError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ListenError::path("remove", path, error)),
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn accept_loop(socket: Socket, server: Server, policy: Arc<PeerPolicy>, shutdown: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropped with this loop: cutting it off cuts them off.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Cancel-safe: a cancelled wait has taken neither permit nor connection
            // (`accept` hands a connection out only when it completes).
            accepted = accept(&socket.listener, &permits) => match accepted {
                Ok((stream, permit)) => {
                    let call = serve_peer(stream, permit, server.clone(), policy.clone(), shutdown.clone());
                    connections.spawn(call.in_current_span());
                }
                Err(error) => {
                    tracing::warn!(%error, "API connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Cancel-safe: only removes what has ended.
            Some(ended) = connections.join_next() => log_broken(&ended),
            // Cancel-safe: a token only remembers that it was cancelled.
            () = shutdown.cancelled() => break,
        }
    }
    // Closes the socket first, so that nobody connects to a daemon that leaves.
    drop(socket);
    while let Some(ended) = connections.join_next().await {
        log_broken(&ended);
    }
}

fn log_broken(ended: &Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "API connection broke");
    }
}

async fn accept(listener: &UnixListener, permits: &Arc<Semaphore>) -> io::Result<(UnixStream, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn serve_peer(
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
    server: Server,
    policy: Arc<PeerPolicy>,
    shutdown: CancellationToken,
) {
    let peer = match stream.peer_cred() {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%error, "API connection without credentials refused");
            return;
        }
    };
    let (uid, gid, pid) = (peer.uid(), peer.gid(), peer.pid());
    // Reading the user database blocks.
    let is_allowed = tokio::task::spawn_blocking(move || policy.allows(uid, gid)).await.unwrap_or(false);
    if is_allowed {
        server.serve_connection(stream, Caller::Local { uid, gid, pid }, shutdown).await;
    } else {
        tracing::warn!(uid, gid, pid, "API connection refused: user is not allowed");
    }
}
