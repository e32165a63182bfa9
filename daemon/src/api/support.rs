//! What people ask when something is wrong; on the socket and in tunnels.

use std::sync::Arc;

use futures::StreamExt;
use roost_proto::convert::parse;
use roost_proto::id::SandboxId;
use roost_proto::model::{HostReport, StartRecord, SupportPart};
use roost_proto::node as wire;
use roost_proto::node::node_support_server::NodeSupport;
use tonic::{Request, Response, Status};

use super::service::{Answers, Shared};
use super::status::{invalid, within};

/// The parts of the daemon that a report is made of.
#[tonic::async_trait]
pub trait SupportSource: Send + Sync + 'static {
    /// Checks the host for so many sandboxes; without, for those configured.
    async fn examine(&self, sandboxes: Option<u32>) -> HostReport;

    /// The latest starts, of one sandbox or all.
    fn starts(&self, sandbox: Option<&SandboxId>, last: Option<usize>) -> Vec<StartRecord>;

    /// The node's part of a support bundle, without secrets.
    async fn collect(&self, log_lines: Option<usize>) -> Vec<SupportPart>;
}

/// `NodeSupport` over the parts.
#[derive(Debug, Clone)]
pub(super) struct NodeSupportService(pub(super) Arc<Shared>);

/// On the wire 0 means "all" or "as configured".
fn given(number: u32) -> Option<usize> {
    usize::try_from(number).ok().filter(|&number| number > 0)
}

#[tonic::async_trait]
impl NodeSupport for NodeSupportService {
    type CollectSupportStream = Answers<wire::SupportPart>;

    async fn examine(&self, request: Request<wire::ExamineRequest>) -> Result<Response<wire::HostReport>, Status> {
        let sandboxes = Some(request.into_inner().sandboxes).filter(|&number| number > 0);
        let report = within(async { Ok(self.0.parts.support.examine(sandboxes).await) }).await?;
        Ok(Response::new(report.into()))
    }

    async fn list_starts(
        &self,
        request: Request<wire::ListStartsRequest>,
    ) -> Result<Response<wire::ListStartsResponse>, Status> {
        let request = request.into_inner();
        let id = Some(request.sandbox_id.as_str()).filter(|id| !id.is_empty());
        let id = id.map(|id| parse::<SandboxId>("sandbox_id", id)).transpose().map_err(invalid)?;
        let starts = self.0.parts.support.starts(id.as_ref(), given(request.last));
        Ok(Response::new(wire::ListStartsResponse { starts: starts.into_iter().map(Into::into).collect() }))
    }

    async fn collect_support(
        &self,
        request: Request<wire::CollectSupportRequest>,
    ) -> Result<Response<Self::CollectSupportStream>, Status> {
        let lines = given(request.into_inner().log_lines);
        let support = self.0.parts.support.clone();
        // The answer begins before the work: a caller waits for parts, not
        // for the head of the answer.
        let parts = futures::stream::once(async move { support.collect(lines).await });
        let parts = parts.flat_map(|parts| futures::stream::iter(parts.into_iter().map(|part| Ok(part.into()))));
        Ok(Response::new(Box::pin(parts)))
    }
}
