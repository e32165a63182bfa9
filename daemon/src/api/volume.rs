//! Volumes; on the socket and in tunnels.

use std::sync::Arc;

use roost_proto::convert::{InvalidMessage, parse};
use roost_proto::id::TenantId;
use roost_proto::node as wire;
use roost_proto::node::node_volumes_server::NodeVolumes;
use tonic::{Code, Request, Response, Status};

use super::service::Shared;
use super::status::{invalid, status, within};
use crate::volume::{VolumeKey, Volumes};

/// `NodeVolumes` over the parts.
#[derive(Debug, Clone)]
pub(super) struct NodeVolumesService(pub(super) Arc<Shared>);

type Answer<T> = Result<Response<T>, Status>;

/// Empty means the local tenant.
fn tenant(text: &str) -> Result<TenantId, InvalidMessage> {
    if text.is_empty() { Ok(TenantId::local()) } else { parse("tenant", text) }
}

fn key(of: &str, name: &str) -> Result<VolumeKey, Status> {
    let read = || Ok(VolumeKey { tenant: tenant(of)?, name: parse("name", name)? });
    read().map_err(invalid)
}

impl NodeVolumesService {
    fn volumes(&self) -> Result<&Volumes, Status> {
        let simulated = || status(Code::Unimplemented, "simulation", "the node is a simulation: it keeps no files");
        self.0.parts.volumes.as_ref().ok_or_else(simulated)
    }
}

#[tonic::async_trait]
impl NodeVolumes for NodeVolumesService {
    async fn create_volume(&self, request: Request<wire::CreateVolumeRequest>) -> Answer<wire::Volume> {
        let request = request.into_inner();
        let key = key(&request.tenant, &request.name)?;
        let made = within(async { Ok(self.volumes()?.create(key, request.size_bytes).await?) }).await?;
        Ok(Response::new(made.into()))
    }

    async fn get_volume(&self, request: Request<wire::VolumeRequest>) -> Answer<wire::Volume> {
        let request = request.into_inner();
        let key = key(&request.tenant, &request.name)?;
        let volume = within(async { Ok(self.volumes()?.get(&key).await?) }).await?;
        Ok(Response::new(volume.into()))
    }

    async fn list_volumes(&self, request: Request<wire::ListVolumesRequest>) -> Answer<wire::ListVolumesResponse> {
        let of = request.into_inner().tenant;
        let of = Some(of).filter(|of| !of.is_empty()).map(|of| tenant(&of)).transpose().map_err(invalid)?;
        let volumes = within(async { Ok(self.volumes()?.list(of.as_ref()).await?) }).await?;
        Ok(Response::new(wire::ListVolumesResponse { volumes: volumes.into_iter().map(Into::into).collect() }))
    }

    async fn resize_volume(&self, request: Request<wire::ResizeVolumeRequest>) -> Answer<wire::Volume> {
        let request = request.into_inner();
        let key = key(&request.tenant, &request.name)?;
        let volume = within(async { Ok(self.volumes()?.resize(key, request.size_bytes).await?) }).await?;
        Ok(Response::new(volume.into()))
    }

    async fn delete_volume(&self, request: Request<wire::DeleteVolumeRequest>) -> Answer<wire::DeleteVolumeResponse> {
        let request = request.into_inner();
        let key = key(&request.tenant, &request.name)?;
        within(async { Ok(self.volumes()?.delete(key).await?) }).await?;
        Ok(Response::new(wire::DeleteVolumeResponse {}))
    }
}
