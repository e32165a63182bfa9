//! A way to the server that breaks where it is told to.

use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::server::{Server, name_of};
use crate::changes::lock;

/// Where the way breaks; it is whole again afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nowhere.
    Never,
    /// When so many more bytes have gone to the server.
    Up(usize),
    /// When so many more bytes have come from the server.
    Down(usize),
    /// Instead of the next COMMIT.
    BeforeCommit,
    /// Instead of the answer to the next COMMIT.
    AfterCommit,
}

#[derive(Debug)]
struct State {
    cut: Cut,
    /// Bytes that have gone up and come down.
    passed: (usize, usize),
}

pub(super) struct Proxy {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
    _dir: TempDir,
}

impl Proxy {
    /// Between a store and a database of the shared server.
    pub(super) fn new(database: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let state = Arc::new(Mutex::new(State { cut: Cut::Never, passed: (0, 0) }));
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = UnixStream::connect(Server::shared().socket()).await.unwrap();
                connect(client, server, &shared);
            }
        });
        let path = dir.path().display().to_string().replace('/', "%2F");
        Self { url: format!("postgres://roost@{path}/{}", name_of(database)), state, _dir: dir }
    }

    pub(super) fn cut(&self, cut: Cut) {
        lock(&self.state).cut = cut;
    }

    pub(super) fn is_cut(&self) -> bool {
        lock(&self.state).cut == Cut::Never
    }

    pub(super) fn passed(&self) -> (usize, usize) {
        lock(&self.state).passed
    }
}

fn connect(client: UnixStream, server: UnixStream, state: &Arc<Mutex<State>>) {
    let broken = CancellationToken::new();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::spawn(copy(from_client, to_server, state.clone(), broken.clone(), go_up));
    tokio::spawn(copy(from_server, to_client, state.clone(), broken, go_down));
}

/// How many of the bytes may pass, and whether that is the end.
type Rule = fn(&mut State, &[u8]) -> (usize, bool);

async fn copy(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    state: Arc<Mutex<State>>,
    broken: CancellationToken,
    rule: Rule,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            () = broken.cancelled() => 0,
        };
        let (count, is_end) = rule(&mut lock(&state), &buffer[..read]);
        let sent = to.write_all(&buffer[..count]).await;
        if read == 0 || is_end || sent.is_err() {
            return broken.cancel();
        }
    }
}

fn counted(left: usize, read: usize, again: fn(usize) -> Cut) -> (usize, Cut) {
    if read >= left { (left, Cut::Never) } else { (read, again(left - read)) }
}

fn go_up(state: &mut State, bytes: &[u8]) -> (usize, bool) {
    let is_commit = bytes.windows(7).any(|window| window == b"COMMIT\0");
    let count = match state.cut {
        Cut::Up(left) => {
            let (count, next) = counted(left, bytes.len(), Cut::Up);
            state.cut = next;
            count
        }
        Cut::BeforeCommit if is_commit => {
            state.cut = Cut::Never;
            return (0, true);
        }
        Cut::AfterCommit if is_commit => {
            state.cut = Cut::Down(0);
            bytes.len()
        }
        _ => bytes.len(),
    };
    state.passed.0 += count;
    (count, count < bytes.len())
}

fn go_down(state: &mut State, bytes: &[u8]) -> (usize, bool) {
    let mut count = bytes.len();
    let mut is_end = false;
    if let Cut::Down(left) = state.cut {
        let next;
        (count, next) = counted(left, bytes.len(), Cut::Down);
        state.cut = next;
        is_end = next == Cut::Never;
    }
    state.passed.1 += count;
    (count, is_end)
}
