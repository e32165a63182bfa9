//! The generated service traits, each method one line to its area.

use std::sync::Arc;

use roost_proto::node as wire;
use roost_proto::node::node_api_server::NodeApi;
use roost_proto::node::node_debug_server::NodeDebug;
use roost_proto::types::NodeStatus;
use tonic::{Request, Response, Status, Streaming};

use tokio::sync::Semaphore;

use super::status::within;
use super::{ApiParts, claim, debug, exec, files, image, logs, sandbox, screenshot, watch};

/// A server-streaming answer.
pub(super) type Answers<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

type Answer<T> = Result<Response<T>, Status>;

/// The parts, and the bounds that all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) parts: ApiParts,
    /// Programs that may still be started.
    pub(super) execs: Arc<Semaphore>,
    /// Readers of logs that may still come.
    pub(super) readers: Arc<Semaphore>,
    /// Imports that may still begin.
    pub(super) imports: Arc<Semaphore>,
    /// Copies of files that may still begin.
    pub(super) copies: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(parts: ApiParts) -> Self {
        Self {
            parts,
            execs: Arc::new(Semaphore::new(exec::EXECS_MAX)),
            readers: Arc::new(Semaphore::new(logs::READERS_MAX)),
            imports: Arc::new(Semaphore::new(image::IMPORTS_MAX)),
            copies: Arc::new(Semaphore::new(files::COPIES_MAX)),
        }
    }
}

/// `NodeApi` over the parts.
#[derive(Debug, Clone)]
pub(super) struct NodeApiService(pub(super) Arc<Shared>);

/// `NodeDebug` over the parts.
#[derive(Debug, Clone)]
pub(super) struct NodeDebugService(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl NodeApi for NodeApiService {
    type WatchSandboxesStream = Answers<wire::Sandbox>;
    type ExecStream = Answers<wire::ExecOutput>;
    type LogsStream = Answers<wire::LogChunk>;
    type UploadFilesStream = Answers<wire::UploadFilesProgress>;
    type DownloadFilesStream = Answers<wire::DownloadFilesPiece>;
    type ImportImageStream = Answers<wire::ImportImageProgress>;
    type PullImageStream = Answers<wire::PullImageProgress>;
    type ExportImageStream = Answers<wire::ExportImageChunk>;

    async fn create_sandbox(&self, request: Request<wire::CreateSandboxRequest>) -> Answer<wire::Sandbox> {
        within(sandbox::create(&*self.0.parts.sandboxes, request.into_inner())).await.map(Response::new)
    }

    async fn get_sandbox(&self, request: Request<wire::GetSandboxRequest>) -> Answer<wire::Sandbox> {
        sandbox::get(&*self.0.parts.sandboxes, &request.into_inner().sandbox_id).map(Response::new)
    }

    async fn list_sandboxes(&self, _: Request<wire::ListSandboxesRequest>) -> Answer<wire::ListSandboxesResponse> {
        Ok(Response::new(sandbox::list(&*self.0.parts.sandboxes)))
    }

    async fn watch_sandboxes(
        &self,
        request: Request<wire::WatchSandboxesRequest>,
    ) -> Answer<Self::WatchSandboxesStream> {
        watch::sandboxes(self.0.parts.sandboxes.clone(), &request.into_inner().sandbox_id).map(Response::new)
    }

    async fn start_sandbox(&self, request: Request<wire::SandboxRequest>) -> Answer<wire::Sandbox> {
        within(sandbox::start(&*self.0.parts.sandboxes, request.into_inner())).await.map(Response::new)
    }

    async fn stop_sandbox(&self, request: Request<wire::SandboxRequest>) -> Answer<wire::Sandbox> {
        within(sandbox::stop(&*self.0.parts.sandboxes, request.into_inner())).await.map(Response::new)
    }

    async fn restart_sandbox(&self, request: Request<wire::SandboxRequest>) -> Answer<wire::Sandbox> {
        within(sandbox::restart(&*self.0.parts.sandboxes, request.into_inner())).await.map(Response::new)
    }

    async fn pause_sandbox(&self, request: Request<wire::SandboxRequest>) -> Answer<wire::Sandbox> {
        within(sandbox::set_paused(&*self.0.parts.sandboxes, request.into_inner(), true)).await.map(Response::new)
    }

    async fn resume_sandbox(&self, request: Request<wire::SandboxRequest>) -> Answer<wire::Sandbox> {
        within(sandbox::set_paused(&*self.0.parts.sandboxes, request.into_inner(), false)).await.map(Response::new)
    }

    async fn update_sandbox(&self, request: Request<wire::UpdateSandboxRequest>) -> Answer<wire::Sandbox> {
        within(sandbox::update(&*self.0.parts.sandboxes, request.into_inner())).await.map(Response::new)
    }

    async fn claim_sandbox(&self, request: Request<wire::ClaimSandboxRequest>) -> Answer<wire::ClaimSandboxResponse> {
        // A hook has a limit of its own.
        claim::claim(&*self.0.parts.claims, request.into_inner()).await.map(Response::new)
    }

    async fn put_pool(&self, request: Request<wire::PutPoolRequest>) -> Answer<wire::Pool> {
        within(claim::put_pool(&*self.0.parts.claims, request.into_inner())).await.map(Response::new)
    }

    async fn remove_pool(&self, request: Request<wire::RemovePoolRequest>) -> Answer<wire::RemovePoolResponse> {
        within(claim::remove_pool(&*self.0.parts.claims, request.into_inner())).await.map(Response::new)
    }

    async fn list_pools(&self, _: Request<wire::ListPoolsRequest>) -> Answer<wire::ListPoolsResponse> {
        Ok(Response::new(claim::list_pools(&*self.0.parts.claims)))
    }

    async fn delete_sandbox(&self, request: Request<wire::SandboxRequest>) -> Answer<wire::Sandbox> {
        within(sandbox::delete(&*self.0.parts.sandboxes, request.into_inner())).await.map(Response::new)
    }

    async fn exec(&self, request: Request<Streaming<wire::ExecInput>>) -> Answer<Self::ExecStream> {
        exec::exec(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Answer<Self::LogsStream> {
        within(logs::logs(&self.0, request.into_inner())).await.map(Response::new)
    }

    async fn upload_files(
        &self,
        request: Request<Streaming<wire::UploadFilesInput>>,
    ) -> Answer<Self::UploadFilesStream> {
        files::upload(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn download_files(&self, request: Request<wire::DownloadFilesRequest>) -> Answer<Self::DownloadFilesStream> {
        within(files::download(&self.0, request.into_inner())).await.map(Response::new)
    }

    async fn screenshot(&self, request: Request<wire::ScreenshotRequest>) -> Answer<wire::ScreenshotResponse> {
        within(screenshot::screenshot(&*self.0.parts.screenshots, request.into_inner())).await.map(Response::new)
    }

    async fn import_image(
        &self,
        request: Request<Streaming<wire::ImportImageInput>>,
    ) -> Answer<Self::ImportImageStream> {
        image::import(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn list_images(&self, _: Request<wire::ListImagesRequest>) -> Answer<wire::ListImagesResponse> {
        within(image::list(&*self.0.parts.images)).await.map(Response::new)
    }

    async fn remove_image(&self, request: Request<wire::RemoveImageRequest>) -> Answer<wire::RemoveImageResponse> {
        within(image::remove(&*self.0.parts.images, request.into_inner())).await.map(Response::new)
    }

    async fn pull_image(&self, request: Request<wire::PullImageRequest>) -> Answer<Self::PullImageStream> {
        within(image::transfer::pull(&self.0, request.into_inner())).await.map(Response::new)
    }

    async fn prune_images(&self, request: Request<wire::PruneImagesRequest>) -> Answer<wire::PruneImagesResponse> {
        image::prune(&*self.0.parts.images, request.into_inner()).await.map(Response::new)
    }

    async fn export_image(&self, request: Request<wire::ExportImageRequest>) -> Answer<Self::ExportImageStream> {
        within(image::transfer::export(&self.0, request.into_inner())).await.map(Response::new)
    }

    async fn pin_image(&self, request: Request<wire::PinImageRequest>) -> Answer<wire::PinImageResponse> {
        within(image::pin(&*self.0.parts.images, request.into_inner())).await.map(Response::new)
    }

    async fn get_node(&self, _: Request<wire::GetNodeRequest>) -> Answer<NodeStatus> {
        Ok(Response::new(self.0.parts.node.borrow().clone().into()))
    }
}

#[tonic::async_trait]
impl NodeDebug for NodeDebugService {
    async fn state_dump(&self, _: Request<wire::StateDumpRequest>) -> Answer<wire::StateDumpResponse> {
        within(debug::state_dump(&*self.0.parts.debug)).await.map(Response::new)
    }

    async fn list_tasks(&self, _: Request<wire::ListTasksRequest>) -> Answer<wire::ListTasksResponse> {
        Ok(Response::new(debug::list_tasks(&self.0.parts.tasks)))
    }

    async fn set_log_level(&self, request: Request<wire::SetLogLevelRequest>) -> Answer<wire::SetLogLevelResponse> {
        debug::set_log_filter(&*self.0.parts.debug, &request.into_inner()).map(Response::new)
    }
}
