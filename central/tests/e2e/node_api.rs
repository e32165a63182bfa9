//! The API of a node without containers: every answer can be told from others.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt};
use roost_proto::node::exec_input::Input;
use roost_proto::node::exec_output::Output;
use roost_proto::node::import_image_input::Input as ImportInput;
use roost_proto::node::import_image_progress::Progress;
use roost_proto::node::node_api_server::NodeApi;
use roost_proto::node::pull_image_progress::Progress as Pulled;
use roost_proto::node::*;
use roost_proto::types::{Image, NodeStatus};
use tonic::{Request, Response, Status, Streaming};

use crate::desks::Desks;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// The fake node.
#[derive(Clone, Default)]
pub(crate) struct FakeNode {
    /// References that were to be removed.
    pub(crate) removed: Arc<Mutex<Vec<String>>>,
    /// Records of sandboxes.
    pub(crate) held: Arc<Mutex<Vec<Sandbox>>>,
    /// Pools and claims.
    pub(crate) desks: Arc<Mutex<Desks>>,
}

fn unused<T>() -> Answer<T> {
    Err(Status::unimplemented("central does not call this"))
}

#[tonic::async_trait]
impl NodeApi for FakeNode {
    type WatchSandboxesStream = Answers<Sandbox>;
    type ExecStream = Answers<ExecOutput>;
    type LogsStream = Answers<LogChunk>;
    type UploadFilesStream = Answers<UploadFilesProgress>;
    type DownloadFilesStream = Answers<DownloadFilesPiece>;
    type ImportImageStream = Answers<ImportImageProgress>;
    type PullImageStream = Answers<PullImageProgress>;
    type ExportImageStream = Answers<ExportImageChunk>;

    async fn create_sandbox(&self, _: Request<CreateSandboxRequest>) -> Answer<Sandbox> {
        unused()
    }
    async fn get_sandbox(&self, _: Request<GetSandboxRequest>) -> Answer<Sandbox> {
        unused()
    }
    async fn list_sandboxes(&self, _: Request<ListSandboxesRequest>) -> Answer<ListSandboxesResponse> {
        let mut sandboxes = self.held.lock().unwrap().clone();
        sandboxes.extend(self.desks.lock().unwrap().claimed.values().cloned());
        Ok(Response::new(ListSandboxesResponse { sandboxes }))
    }
    async fn watch_sandboxes(&self, _: Request<WatchSandboxesRequest>) -> Answer<Self::WatchSandboxesStream> {
        unused()
    }
    async fn start_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        unused()
    }
    async fn stop_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        unused()
    }
    async fn claim_sandbox(&self, request: Request<ClaimSandboxRequest>) -> Answer<ClaimSandboxResponse> {
        let (answer, is_silent) = {
            let mut desks = self.desks.lock().unwrap();
            (desks.claim(&request.into_inner()), desks.is_silent)
        };
        if is_silent {
            std::future::pending::<()>().await;
        }
        answer.map(Response::new)
    }
    async fn put_pool(&self, request: Request<PutPoolRequest>) -> Answer<Pool> {
        let spec = request.into_inner().spec.unwrap();
        let mut desks = self.desks.lock().unwrap();
        desks.puts += 1;
        desks.pools.insert(spec.name.clone(), spec.clone());
        Ok(Response::new(desks.standing(&spec)))
    }
    async fn remove_pool(&self, request: Request<RemovePoolRequest>) -> Answer<RemovePoolResponse> {
        self.desks.lock().unwrap().pools.remove(&request.into_inner().name);
        Ok(Response::new(RemovePoolResponse {}))
    }
    async fn list_pools(&self, _: Request<ListPoolsRequest>) -> Answer<ListPoolsResponse> {
        let desks = self.desks.lock().unwrap();
        Ok(Response::new(ListPoolsResponse { pools: desks.pools.values().map(|spec| desks.standing(spec)).collect() }))
    }
    async fn update_sandbox(&self, _: Request<UpdateSandboxRequest>) -> Answer<Sandbox> {
        unused()
    }

    async fn restart_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        unused()
    }

    async fn pause_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        unused()
    }

    async fn resume_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        unused()
    }
    async fn delete_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        unused()
    }
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let image = Image { reference: "roost/desktop:latest".into(), in_use_by: 4, ..Image::default() };
        Ok(Response::new(ListImagesResponse { images: vec![image] }))
    }
    async fn get_node(&self, _: Request<GetNodeRequest>) -> Answer<NodeStatus> {
        unused()
    }

    /// Says what it was told, repeats its input and ends with the input's length.
    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Answer<Self::ExecStream> {
        let mut input = request.into_inner();
        let Some(ExecInput { input: Some(Input::Start(start)) }) = input.message().await? else {
            return Err(Status::invalid_argument("no start"));
        };
        if start.command == ["refuse"] {
            return Err(Status::failed_precondition("the sandbox is Stopped: start it first"));
        }
        let say = |output| Ok(ExecOutput { output: Some(output) });
        let output = async_stream::stream! {
            yield say(Output::Stderr(format!("{:?} tty={}", start.command, start.tty).into_bytes()));
            let mut length = 0;
            while let Ok(Some(message)) = input.message().await {
                match message.input {
                    Some(Input::Stdin(data)) => {
                        length += data.len();
                        yield say(Output::Stdout(data));
                    }
                    Some(Input::Resize(size)) => {
                        yield say(Output::Stderr(format!("{}x{}", size.columns, size.rows).into_bytes()));
                    }
                    Some(Input::StdinEof(_)) => break,
                    _ => {}
                }
            }
            yield say(Output::ExitCode(i32::try_from(length).unwrap()));
        };
        Ok(Response::new(Box::pin(output)))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        let request = request.into_inner();
        let said = format!("source {} follow {} tail {:?}\n", request.source, request.follow, request.tail_lines);
        let chunks = futures::stream::iter([Ok(LogChunk { data: said.into_bytes() })]);
        let forever = futures::stream::pending();
        Ok(Response::new(if request.follow { Box::pin(chunks.chain(forever)) } else { Box::pin(chunks) }))
    }

    async fn upload_files(&self, request: Request<Streaming<UploadFilesInput>>) -> Answer<Self::UploadFilesStream> {
        super::files::upload(request.into_inner()).await
    }
    async fn download_files(&self, request: Request<DownloadFilesRequest>) -> Answer<Self::DownloadFilesStream> {
        super::files::download(&request.into_inner())
    }
    async fn screenshot(&self, request: Request<ScreenshotRequest>) -> Answer<ScreenshotResponse> {
        // Larger than any window and any default limit of a message.
        let mut png = request.into_inner().sandbox_id.into_bytes();
        png.resize(9 << 20, 7);
        Ok(Response::new(ScreenshotResponse { png, width_px: 1, height_px: 1 }))
    }

    async fn import_image(&self, request: Request<Streaming<ImportImageInput>>) -> Answer<Self::ImportImageStream> {
        let mut input = request.into_inner();
        let progress = async_stream::try_stream! {
            let (mut reference, mut received) = (String::new(), 0u64);
            while let Some(message) = input.message().await? {
                match message.input {
                    Some(ImportInput::Start(start)) => reference = start.reference,
                    Some(ImportInput::Data(data)) => received += data.len() as u64,
                    None => {}
                }
            }
            let step = ImportStep { name: "receive".into(), done_bytes: received, total_bytes: received };
            yield ImportImageProgress { progress: Some(Progress::Step(step)) };
            if received < 1024 {
                Err(Status::invalid_argument("the archive is not a tar"))?;
            }
            let image =
                Image { reference, digest: "sha256:1".into(), size_bytes: received, ..Image::default() };
            yield ImportImageProgress { progress: Some(Progress::Done(image)) };
        };
        Ok(Response::new(Box::pin(progress)))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<Self::PullImageStream> {
        let PullImageRequest { reference, pin, .. } = request.into_inner();
        let answers = async_stream::try_stream! {
            let layer = LayerProgress {
                digest: "sha256:2".into(),
                done_bytes: 5,
                total_bytes: 10,
                state: LayerState::Downloading.into(),
            };
            let source = "mirror.example".to_owned();
            let step =
                PullStep { name: "download".into(), done_bytes: 5, total_bytes: 10, layers: vec![layer], source };
            yield PullImageProgress { progress: Some(Pulled::Step(step)) };
            if reference.contains("unsigned") {
                Err(Status::failed_precondition("the image is refused: there is no signature"))?;
            }
            let image = Image { reference, digest: "sha256:1".into(), size_bytes: 10, pinned: pin, ..Image::default() };
            yield PullImageProgress { progress: Some(Pulled::Done(image)) };
        };
        Ok(Response::new(Box::pin(answers)))
    }

    async fn prune_images(&self, request: Request<PruneImagesRequest>) -> Answer<PruneImagesResponse> {
        let PruneImagesRequest { dry_run, unused_for_ms } = request.into_inner();
        if unused_for_ms == 77_000 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        let image = Image {
            reference: "old/app:1".into(),
            digest: "sha256:3".into(),
            last_used_at_unix_ms: unused_for_ms,
            ..Image::default()
        };
        let freed_bytes = if dry_run { 0 } else { 99 };
        Ok(Response::new(PruneImagesResponse { removed: vec![image], freed_bytes }))
    }

    async fn export_image(&self, request: Request<ExportImageRequest>) -> Answer<Self::ExportImageStream> {
        let name = request.into_inner().reference.into_bytes();
        let total_bytes = name.len() as u64 + 3;
        let chunks = [(name, total_bytes), (b"end".to_vec(), 0)]
            .map(|(data, total_bytes)| Ok(ExportImageChunk { data, total_bytes }));
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }

    async fn pin_image(&self, request: Request<PinImageRequest>) -> Answer<PinImageResponse> {
        let PinImageRequest { reference, pinned } = request.into_inner();
        let image = Image { reference, pinned, in_use_by: 4, ..Image::default() };
        Ok(Response::new(PinImageResponse { image: Some(image) }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        self.removed.lock().unwrap().push(request.into_inner().reference);
        Ok(Response::new(RemoveImageResponse {}))
    }
}
