//! A client of a node's unix socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use roost_proto::convert::WireEnum;
use roost_proto::id::SandboxId;
use roost_proto::model::{self, Observed, Phase, SandboxSpec};
use roost_proto::node::node_api_client::NodeApiClient;
use roost_proto::node::node_debug_client::NodeDebugClient;
use roost_proto::node::node_volumes_client::NodeVolumesClient;
use roost_proto::node::{self as wire, ImportImageInput, ImportImageStart, import_image_input};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{Result, within};

/// Size of one piece of an uploaded archive, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Lines of output that explain a failure.
const FAILURE_LINES: u32 = 20;
/// How long a sandbox may take to reach a phase on a loaded machine.
pub const PHASE_LIMIT: Duration = Duration::from_secs(60);

/// Any error of a test.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Output and end of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub exit_code: i32,
}

/// A connection to a node's unix socket; cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeClient {
    /// Lifecycle and streams.
    pub api: NodeApiClient<Channel>,
    /// Debugging.
    pub debug: NodeDebugClient<Channel>,
    /// Volumes.
    pub volumes: NodeVolumesClient<Channel>,
}

impl NodeClient {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let path: PathBuf = socket.to_owned();
        let connector = service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://node.invalid").connect_with_connector(connector).await?;
        let api = NodeApiClient::new(channel.clone()).max_decoding_message_size(64 << 20);
        Ok(Self { api, volumes: NodeVolumesClient::new(channel.clone()), debug: NodeDebugClient::new(channel) })
    }

    /// Imports an archive under its own name.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn import(&self, archive: &Path) -> Result<model::ImageInfo> {
        use import_image_input::Input;
        let size_bytes = std::fs::metadata(archive)?.len();
        let file = tokio::fs::File::open(archive).await?;
        let start = Input::Start(ImportImageStart { reference: String::new(), size_bytes });
        let pieces = futures::stream::unfold(file, |mut file| async move {
            use tokio::io::AsyncReadExt;
            let mut piece = vec![0; PIECE_BYTES];
            match file.read(&mut piece).await {
                Ok(len) if len > 0 => {
                    piece.truncate(len);
                    Some((Input::Data(piece), file))
                }
                _ => None,
            }
        });
        let inputs = futures::stream::iter([start]).chain(pieces).map(|input| ImportImageInput { input: Some(input) });
        let mut progress = self.api.clone().import_image(inputs).await?.into_inner();
        while let Some(message) = progress.message().await? {
            if let Some(wire::import_image_progress::Progress::Done(image)) = message.progress {
                return Ok(image.try_into()?);
            }
        }
        Err("the import ended without an image".into())
    }

    /// Makes a sandbox and returns its id at once.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn create(&self, spec: &SandboxSpec) -> Result<SandboxId> {
        let id = SandboxId::random();
        let request = wire::CreateSandboxRequest {
            sandbox_id: id.to_string(),
            spec: Some(spec.clone().into()),
            name: String::new(),
        };
        self.api.clone().create_sandbox(request).await?;
        Ok(id)
    }

    /// Makes a sandbox and waits until it is Ready.
    ///
    /// # Errors
    /// The node's refusal, or that it failed.
    pub async fn create_ready(&self, spec: &SandboxSpec) -> Result<SandboxId> {
        let id = self.create(spec).await?;
        self.reaches(&id, Phase::Ready).await?;
        Ok(id)
    }

    /// What the node sees of a sandbox.
    ///
    /// # Errors
    /// That it is not there.
    pub async fn get(&self, id: &SandboxId) -> Result<Observed> {
        let request = wire::GetSandboxRequest { sandbox_id: id.to_string() };
        let sandbox = self.api.clone().get_sandbox(request).await?.into_inner();
        Ok(sandbox.observed.ok_or("no observed state")?.try_into()?)
    }

    /// Changes what a sandbox may use.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn set(&self, id: &SandboxId, change: model::ResourcesChange) -> Result<()> {
        let request =
            wire::UpdateSandboxRequest { sandbox_id: id.to_string(), resources: Some(change.into()), lifetime: None };
        self.api.clone().update_sandbox(request).await?;
        Ok(())
    }

    /// What the node says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn node(&self) -> Result<model::NodeStatus> {
        Ok(self.api.clone().get_node(wire::GetNodeRequest {}).await?.into_inner().try_into()?)
    }

    /// Waits until a sandbox is in a phase.
    ///
    /// # Errors
    /// That it failed meanwhile, or the limit.
    pub async fn reaches(&self, id: &SandboxId, phase: Phase) -> Result<Observed> {
        let what = format!("{id} becomes {phase}");
        within(&what, PHASE_LIMIT, async {
            let request = wire::WatchSandboxesRequest { sandbox_id: id.to_string() };
            let mut watch = self.api.clone().watch_sandboxes(request).await?.into_inner();
            while let Some(sandbox) = watch.message().await? {
                let observed: Observed = sandbox.observed.ok_or("no observed state")?.try_into()?;
                if observed.phase == phase {
                    return Ok(observed);
                }
                if observed.phase == Phase::Failed {
                    let message = observed.message.unwrap_or_default();
                    let output = self.output(id).await?;
                    return Err(format!("{id} failed: {message}\n{output}").into());
                }
            }
            Err("the watch ended".into())
        })
        .await
    }

    /// The last lines of what display and workload printed.
    ///
    /// # Errors
    /// That the node does not hold them.
    pub async fn output(&self, id: &SandboxId) -> Result<String> {
        let mut text = Vec::new();
        for source in [wire::LogSource::Display, wire::LogSource::Workload] {
            text.extend(format!("--- {}\n", source.as_str_name()).into_bytes());
            let tail_lines = Some(FAILURE_LINES);
            let logs =
                wire::LogsRequest { sandbox_id: id.to_string(), source: source.into(), follow: false, tail_lines };
            let mut chunks = self.api.clone().logs(logs).await?.into_inner();
            while let Some(chunk) = chunks.message().await? {
                text.extend(chunk.data);
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Every sandbox that exists, with its phase.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn list(&self) -> Result<BTreeMap<String, Phase>> {
        let list = self.api.clone().list_sandboxes(wire::ListSandboxesRequest {}).await?.into_inner();
        let pairs = list.sandboxes.into_iter().filter_map(|s| s.observed);
        pairs.map(|o| Ok((o.sandbox_id, Phase::from_wire(o.phase)?))).collect()
    }

    /// Deletes a sandbox and waits until nothing of it is left.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn delete(&self, id: &SandboxId) -> Result<()> {
        self.api.clone().delete_sandbox(request(id)).await?;
        within(&format!("{id} goes"), PHASE_LIMIT, async {
            let request = wire::WatchSandboxesRequest { sandbox_id: id.to_string() };
            let mut watch = match self.api.clone().watch_sandboxes(request).await {
                // Gone before we looked.
                Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
                answer => answer?.into_inner(),
            };
            while let Some(sandbox) = watch.message().await? {
                let observed: Observed = sandbox.observed.ok_or("no observed state")?.try_into()?;
                if observed.phase == Phase::Gone {
                    return Ok(());
                }
            }
            Err("the watch ended".into())
        })
        .await
    }

    /// Runs a program in a workload.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn exec(&self, id: &SandboxId, command: &[&str]) -> Result<ExecResult> {
        let start = wire::ExecStart {
            sandbox_id: id.to_string(),
            command: command.iter().map(ToString::to_string).collect(),
            ..wire::ExecStart::default()
        };
        let input = wire::ExecInput { input: Some(wire::exec_input::Input::Start(start)) };
        // The input stays open: its end would say that the client went away.
        let inputs = futures::stream::iter([input]).chain(futures::stream::pending());
        let mut output = self.api.clone().exec(inputs).await?.into_inner();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(message) = output.message().await? {
            match message.output {
                Some(wire::exec_output::Output::Stdout(data)) => stdout.extend(data),
                Some(wire::exec_output::Output::Stderr(data)) => stderr.extend(data),
                Some(wire::exec_output::Output::ExitCode(exit_code)) => {
                    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                    return Ok(ExecResult { stdout: text(stdout), stderr: text(stderr), exit_code });
                }
                None => {}
            }
        }
        Err("the program's stream ended without an exit code".into())
    }

    /// A frame as PNG.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn screenshot(&self, id: &SandboxId) -> Result<Vec<u8>> {
        let request = wire::ScreenshotRequest { sandbox_id: id.to_string() };
        Ok(self.api.clone().screenshot(request).await?.into_inner().png)
    }
}

/// The request that names a sandbox.
#[must_use]
pub fn request(id: &SandboxId) -> wire::SandboxRequest {
    wire::SandboxRequest { sandbox_id: id.to_string() }
}
