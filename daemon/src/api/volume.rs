//! Volumes; on the socket and in tunnels.

use std::sync::Arc;

use roost_proto::convert::{InvalidMessage, parse};
use roost_proto::id::TenantId;
use roost_proto::node as wire;
use roost_proto::node::node_volumes_server::NodeVolumes;
use tonic::{Code, Request, Response, Status};

use super::service::Shared;
use super::status::{invalid, status, within};
use crate::volume::checkpoint::Summary;
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

fn shown(summary: Summary) -> wire::Checkpoint {
    wire::Checkpoint {
        id: summary.id.into(),
        tenant: summary.tenant.into(),
        volume: summary.volume.into(),
        created_at_unix_ms: summary.created_at_unix_ms,
        size_bytes: summary.size_bytes,
        entries: summary.entries,
        content_bytes: summary.content_bytes,
        moved_bytes: summary.moved_bytes,
        stored_bytes: summary.stored_bytes,
        frozen_us: summary.frozen_us,
    }
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
        let checkpoint = match request.checkpoint {
            true => Some(self.volumes()?.checkpoint(key.clone()).await?),
            false => None,
        };
        within(async { Ok(self.volumes()?.delete(key).await?) }).await?;
        Ok(Response::new(wire::DeleteVolumeResponse { checkpoint: checkpoint.map(shown) }))
    }

    // Those that move content take as long as that takes.

    async fn checkpoint_volume(&self, request: Request<wire::VolumeRequest>) -> Answer<wire::Checkpoint> {
        let request = request.into_inner();
        let key = key(&request.tenant, &request.name)?;
        Ok(Response::new(shown(self.volumes()?.checkpoint(key).await?)))
    }

    async fn list_checkpoints(&self, request: Request<wire::VolumeRequest>) -> Answer<wire::ListCheckpointsResponse> {
        let request = request.into_inner();
        let key = key(&request.tenant, &request.name)?;
        let found = within(async { Ok(self.volumes()?.list_checkpoints(&key).await?) }).await?;
        Ok(Response::new(wire::ListCheckpointsResponse { checkpoints: found.into_iter().map(shown).collect() }))
    }

    async fn restore_volume(&self, request: Request<wire::RestoreVolumeRequest>) -> Answer<wire::Volume> {
        let request = request.into_inner();
        let (to, from) = (key(&request.tenant, &request.name)?, key(&request.tenant, &request.from)?);
        let id = Some(request.checkpoint_id).filter(|id| !id.is_empty());
        let id = id.map(|id| parse("checkpoint_id", &id)).transpose().map_err(invalid)?;
        Ok(Response::new(self.volumes()?.restore(to, from, id, request.size_bytes).await?.into()))
    }

    async fn clone_volume(&self, request: Request<wire::CloneVolumeRequest>) -> Answer<wire::Volume> {
        let request = request.into_inner();
        let (from, to) = (key(&request.tenant, &request.name)?, key(&request.tenant, &request.to)?);
        Ok(Response::new(self.volumes()?.duplicate(from, to).await?.into()))
    }
}
