//! Programs in a workload: FIFOs on the host, a process in containerd.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::Phase;
use tokio::net::unix::pipe;
use tokio::sync::OnceCell;

use crate::api::exec::{
    ExecControl, ExecError, ExecReader, ExecRunner, ExecSession, ExecSpec, ExecWriter, TerminalSize,
};
use crate::containerd::exec::{ExecFifos, ExecId};
use crate::containerd::spec::{Program, Role};
use crate::containerd::{Client, ContainerId, Error};
use crate::host::files;
use crate::sandbox::activity::InUse;
use crate::sandbox::failure::chain;
use crate::sandbox::{Manager, Node, View};
use crate::tasks::Tasks;

/// What containerd says when the image lacks the program or forbids it, in
/// lower case: crun begins it with a capital.
const NO_PROGRAM: [&str; 3] = ["executable file not found", "no such file or directory", "permission denied"];

/// How long a killed program may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs programs in workloads.
#[derive(Debug, Clone)]
pub struct Execs {
    node: Arc<Node>,
    manager: Manager,
}

impl Execs {
    /// Programs in the manager's sandboxes.
    #[must_use]
    pub fn new(node: Arc<Node>, manager: Manager) -> Self {
        Self { node, manager }
    }

    fn running(&self, id: &SandboxId) -> Result<View, ExecError> {
        let view = self.manager.get(id).ok_or_else(|| ExecError::NotFound(id.clone()))?;
        match view.observed.phase {
            Phase::Ready => Ok(view),
            Phase::Paused => Err(ExecError::Paused(id.clone())),
            _ => Err(ExecError::NotRunning(id.clone())),
        }
    }

    async fn program(&self, view: &View, spec: &ExecSpec) -> Result<Program, ExecError> {
        // As it was started: the image may be another one by now.
        let id = &view.desired.id;
        let base = self.node.client.container_program(&ContainerId::new(id, Role::Workload)).await;
        let base = base.map_err(runtime("look up the workload", id))?;
        let mut env = base.env;
        if spec.terminal.is_some() {
            env.push("TERM=xterm-256color".into());
        }
        // The last of two equal names wins in every C library.
        env.retain(|pair| !spec.env.contains_key(pair.split('=').next().unwrap_or_default()));
        env.extend(spec.env.iter().map(|(name, value)| format!("{name}={value}")));
        Ok(Program {
            args: spec.command.clone(),
            env,
            cwd: spec.working_dir.clone().unwrap_or(base.cwd),
            user: base.user,
            terminal: spec.terminal.is_some(),
        })
    }
}

fn runtime<E: std::error::Error + Send + Sync + 'static>(
    operation: &'static str,
    id: &SandboxId,
) -> impl FnOnce(E) -> ExecError {
    let id = id.clone();
    move |error| ExecError::Runtime { operation, id, source: Box::new(error) }
}

#[tonic::async_trait]
impl ExecRunner for Execs {
    async fn start(&self, id: &SandboxId, spec: ExecSpec) -> Result<ExecSession, ExecError> {
        let view = self.running(id)?;
        let in_use = self.manager.activity(id).map(|activity| activity.begin());
        let program = self.program(&view, &spec).await?;
        let name = format!("exec-{:016x}", rand::random::<u64>());
        let parent = self.node.layout.sandbox(id).dir().join("exec");
        let fifos = Fifos::create(&parent, &name, &spec).map_err(runtime("make the pipes of a program", id))?;
        let exec = ExecId { container: ContainerId::new(id, Role::Workload), name };
        let program_state =
            Arc::new(ExecState { client: self.node.client.clone(), exec, dir: fifos.dir, exit_code: OnceCell::new() });
        let control = Control { state: program_state, tasks: self.node.tasks.clone(), _in_use: in_use };
        // In a task of its own: a caller that goes away must not cut off a
        // call that may take effect in containerd.
        let paths = fifos.paths;
        let session = self.node.tasks.spawn("exec-start", async move {
            let started = control.state.start(&program, &paths).await;
            (control, started)
        });
        let (control, started) = session.await.map_err(runtime("start a program", id))?;
        started.map_err(|error| command_error(id, &spec, error))?;
        if let Some(size) = spec.terminal {
            control.resize(size).await?;
        }
        Ok(ExecSession { stdin: fifos.stdin, stdout: fifos.stdout, stderr: fifos.stderr, control: Arc::new(control) })
    }
}

/// Tells a program that the image lacks from a failure of the runtime.
fn command_error(id: &SandboxId, spec: &ExecSpec, error: Error) -> ExecError {
    if let Error::Rpc { source, .. } = &error
        && NO_PROGRAM.iter().any(|text| source.message().to_lowercase().contains(text))
    {
        return ExecError::Command { id: id.clone(), program: spec.command.first().cloned().unwrap_or_default() };
    }
    runtime("start a program", id)(error)
}

/// Paths of a program's FIFOs.
#[derive(Debug)]
struct FifoPaths {
    stdin: Option<PathBuf>,
    stdout: PathBuf,
    stderr: Option<PathBuf>,
}

/// The daemon's ends of a program's FIFOs.
struct Fifos {
    dir: Dir,
    paths: FifoPaths,
    stdin: Option<ExecWriter>,
    stdout: ExecReader,
    stderr: Option<ExecReader>,
}

/// A directory that is removed with its owner.
#[derive(Debug)]
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        if let Err(error) = files::remove_tree(&self.0) {
            tracing::warn!(%error, "pipes of a program stay until the sandbox goes");
        }
    }
}

impl Fifos {
    fn create(parent: &Path, name: &str, spec: &ExecSpec) -> std::io::Result<Self> {
        let make_dir = |path: &Path| files::create_dir(path, 0o700).map_err(std::io::Error::other);
        make_dir(parent)?;
        let dir = Dir(parent.join(name));
        make_dir(&dir.0)?;
        let make = |name: &str| {
            let path = dir.0.join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)?;
            Ok::<_, std::io::Error>(path)
        };
        let stdin = spec.stdin.then(|| make("stdin")).transpose()?;
        let stdout = make("stdout")?;
        let stderr = spec.terminal.is_none().then(|| make("stderr")).transpose()?;
        let reader = |path: &Path| -> std::io::Result<ExecReader> {
            Ok(Box::new(pipe::OpenOptions::new().open_receiver(path)?))
        };
        Ok(Self {
            stdin: stdin.as_deref().map(open_writer).transpose()?,
            stdout: reader(&stdout)?,
            stderr: stderr.as_deref().map(reader).transpose()?,
            dir,
            paths: FifoPaths { stdin, stdout, stderr },
        })
    }
}

/// Opens the writing end before there is a reader: the short-lived reading
/// end beside it makes that possible, and is closed at once.
fn open_writer(path: &Path) -> std::io::Result<ExecWriter> {
    let _reader = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    Ok(Box::new(pipe::OpenOptions::new().open_sender(path)?))
}

/// Steers one program. Dropped before its end was seen, it kills the program:
/// nobody else knows of it.
#[derive(Debug)]
struct Control {
    state: Arc<ExecState>,
    tasks: Tasks,
    /// The sandbox is used as long as somebody steers the program.
    _in_use: Option<InUse>,
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.state.exit_code.initialized() {
            return;
        }
        let state = self.state.clone();
        self.tasks.spawn("exec-end", async move { state.end().await });
    }
}

/// A program in containerd.
#[derive(Debug)]
struct ExecState {
    client: Client,
    exec: ExecId,
    dir: Dir,
    exit_code: OnceCell<i32>,
}

impl ExecState {
    /// Kills and removes the program, if it is there at all.
    async fn end(&self) {
        let killed = self.client.kill_exec(&self.exec, nix::libc::SIGKILL.unsigned_abs()).await;
        let removed = match killed {
            Ok(()) => tokio::time::timeout(END_TIMEOUT, self.wait_and_remove()).await.map(|r| r.map(drop)),
            Err(error) => Ok(Err(error)),
        };
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.is_not_found() => {}
            Ok(Err(error)) => tracing::warn!(error = %chain(&error), "a program without an owner may go on"),
            Err(_elapsed) => tracing::warn!("a killed program does not end"),
        }
    }

    async fn start(&self, program: &Program, paths: &FifoPaths) -> Result<(), Error> {
        debug_assert!(paths.stdout.starts_with(&self.dir.0));
        let fifos = ExecFifos { stdin: paths.stdin.as_deref(), stdout: &paths.stdout, stderr: paths.stderr.as_deref() };
        self.client.exec(&self.exec, program, fifos).await
    }

    async fn wait_and_remove(&self) -> Result<i32, Error> {
        let exit_code = self.client.wait_exec(&self.exec).await?;
        self.client.delete_exec(&self.exec).await?;
        Ok(exit_code)
    }
}

impl Control {
    fn id(&self) -> &SandboxId {
        &self.state.exec.container.sandbox
    }
}

#[tonic::async_trait]
impl ExecControl for Control {
    async fn resize(&self, size: TerminalSize) -> Result<(), ExecError> {
        match self.state.client.resize_exec(&self.state.exec, size.columns, size.rows).await {
            // It ended meanwhile.
            Err(error) if error.is_not_found() => Ok(()),
            result => result.map_err(runtime("resize a terminal", self.id())),
        }
    }

    async fn signal(&self, signal: i32) -> Result<(), ExecError> {
        let signalled = self.state.client.kill_exec(&self.state.exec, signal.unsigned_abs()).await;
        signalled.map_err(runtime("signal a program", self.id()))
    }

    async fn wait(&self) -> Result<i32, ExecError> {
        let exit_code = self.state.exit_code.get_or_try_init(|| self.state.wait_and_remove()).await;
        exit_code.copied().map_err(runtime("wait for a program", self.id()))
    }
}
