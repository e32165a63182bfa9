//! What a simulated node answers through a tunnel: what it can play, it plays;
//! of the rest it says that it is a simulation.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use roost_proto::id::SandboxId;
use roost_proto::model::{
    HostReport, ImageInfo, ImageRef, LeftOut, NodeStatus, Phase, PullPolicy, StartRecord, SupportPart,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::host::SimHost;
use crate::api::debug::DebugSource;
use crate::api::exec::{ExecError, ExecRunner, ExecSession, ExecSpec};
use crate::api::files::{Files, FilesError, Tree};
use crate::api::image::{Archive, ImageStore, Pull};
use crate::api::screenshot::{Png, ScreenshotError, Screenshots};
use crate::api::support::SupportSource;
use crate::containerd::image::archive::ArchiveError;
use crate::containerd::image::source::BlobStream;
use crate::containerd::image::{ImageError, Progress};
use crate::logging::LoggingError;
use crate::sandbox::Manager;
use crate::sandbox::publisher::unix_ms;

/// Grey of a simulated screen: neither the black of a dead one nor white.
const GREY: u8 = 0x60;

#[derive(Debug, thiserror::Error)]
#[error("the node is a simulation: it runs no programs, draws nothing and holds no files")]
struct Simulated;

/// One node's answers.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Its containers.
    pub host: Arc<SimHost>,
    /// Its sandboxes.
    pub manager: Manager,
    /// What it says of itself; images are added here.
    pub status: watch::Sender<NodeStatus>,
}

#[tonic::async_trait]
impl ExecRunner for Parts {
    async fn start(&self, id: &SandboxId, _spec: ExecSpec) -> Result<ExecSession, ExecError> {
        self.manager.get(id).ok_or_else(|| ExecError::NotFound(id.clone()))?;
        Err(ExecError::Runtime { operation: "run a program", id: id.clone(), source: Box::new(Simulated) })
    }
}

#[tonic::async_trait]
impl Files for Parts {
    async fn open(&self, id: &SandboxId) -> Result<Box<dyn Tree>, FilesError> {
        self.manager.get(id).ok_or_else(|| FilesError::NotFound(id.clone()))?;
        Err(FilesError::Runtime { id: id.clone(), source: Box::new(Simulated) })
    }
}

#[tonic::async_trait]
impl Screenshots for Parts {
    async fn png(&self, id: &SandboxId) -> Result<Png, ScreenshotError> {
        let view = self.manager.get(id).ok_or_else(|| ScreenshotError::NotFound(id.clone()))?;
        if !matches!(view.observed.phase, Phase::Ready | Phase::Paused) {
            return Err(ScreenshotError::NotRunning(id.clone()));
        }
        let (width_px, height_px) = (view.desired.spec.display.width_px, view.desired.spec.display.height_px);
        let bytes = grey_png(width_px, height_px)
            .map_err(|error| ScreenshotError::Capture { id: id.clone(), source: Box::new(error) })?;
        Ok(Png { bytes, width_px, height_px })
    }
}

/// One grey picture of this size.
fn grey_png(width_px: u32, height_px: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width_px, height_px);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_compression(png::Compression::Fast);
    let pixels = usize::try_from(u64::from(width_px) * u64::from(height_px)).unwrap_or_default();
    encoder.write_header()?.write_image_data(&vec![GREY; pixels])?;
    Ok(bytes)
}

#[tonic::async_trait]
impl ImageStore for Parts {
    /// Counts the archive and forgets it; the name is the caller's, since
    /// nobody looks inside.
    async fn import(
        &self,
        mut archive: Archive,
        _size_bytes: Option<u64>,
        reference: Option<ImageRef>,
        _progress: &Progress,
    ) -> Result<ImageInfo, ImageError> {
        let reference = reference.ok_or(ArchiveError::NoImage)?;
        let mut size_bytes = 0;
        while let Some(piece) = archive.next().await {
            let piece = piece.map_err(ArchiveError::NotTar)?;
            size_bytes += u64::try_from(piece.len()).unwrap_or_default();
        }
        let info = image(&reference, size_bytes);
        self.put(&info);
        Ok(info)
    }

    async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        Ok(self.status.borrow().images.clone())
    }

    async fn remove(&self, reference: &ImageRef) -> Result<(), ImageError> {
        let mut is_held = false;
        self.host.images().retain(|held| held != reference);
        self.status.send_modify(|status| {
            is_held = status.images.iter().any(|held| held.reference == *reference);
            status.images.retain(|held| held.reference != *reference);
        });
        if is_held { Ok(()) } else { Err(ImageError::NotFound { reference: reference.clone() }) }
    }

    /// What is pulled is here at once: nobody is asked.
    async fn pull(&self, reference: &ImageRef, _policy: PullPolicy) -> Result<Pull, ImageError> {
        let held = self.status.borrow().images.iter().find(|image| image.reference == *reference).cloned();
        let info = held.unwrap_or_else(|| image(reference, 0));
        self.put(&info);
        Ok(Pull::Here(Box::new(info)))
    }

    async fn set_pinned(&self, reference: &ImageRef, is_pinned: bool) -> Result<ImageInfo, ImageError> {
        let held = self.status.borrow().images.iter().find(|image| image.reference == *reference).cloned();
        let held = held.ok_or_else(|| ImageError::NotFound { reference: reference.clone() })?;
        let info = ImageInfo { pinned: is_pinned, ..held };
        self.put(&info);
        Ok(info)
    }

    /// Its disk is never full.
    async fn prune(&self, _unused_for: Duration, _is_dry_run: bool) -> Result<(Vec<ImageInfo>, u64), ImageError> {
        Ok((Vec::new(), 0))
    }

    /// There is nothing inside that could be given.
    async fn export(&self, reference: &ImageRef) -> Result<(u64, BlobStream), ImageError> {
        Err(ImageError::NotFound { reference: reference.clone() })
    }
}

impl Parts {
    /// Holds an image from now on, and says so.
    fn put(&self, info: &ImageInfo) {
        let mut images = self.host.images();
        images.retain(|held| *held != info.reference);
        images.push(info.reference.clone());
        drop(images);
        self.status.send_modify(|status| {
            status.images.retain(|held| held.reference != info.reference);
            status.images.push(info.clone());
        });
    }
}

/// An image as a simulated node lists it: its digest is made of its name.
#[must_use]
pub fn image(reference: &ImageRef, size_bytes: u64) -> ImageInfo {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(reference.as_str()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    ImageInfo::new(reference.clone(), format!("sha256:{digest}"), size_bytes, unix_ms())
}

#[tonic::async_trait]
impl SupportSource for Parts {
    /// A simulated host has nothing that could be unfit.
    async fn examine(&self, sandboxes: Option<u32>) -> HostReport {
        let status = self.status.borrow();
        HostReport {
            hostname: status.facts.hostname.clone(),
            kernel: status.facts.kernel.clone(),
            daemon_version: status.facts.daemon_version.clone(),
            sandboxes: sandboxes.unwrap_or(status.capacity.sandboxes_max),
            checks: Vec::new(),
        }
    }

    fn starts(&self, _sandbox: Option<&SandboxId>, _last: Option<usize>) -> Vec<StartRecord> {
        Vec::new()
    }

    async fn collect(&self, _log_lines: Option<usize>) -> Vec<SupportPart> {
        let left = LeftOut { what: "everything of this node".into(), why: Simulated.to_string() };
        vec![SupportPart::Begin { files: 0 }, SupportPart::LeftOut(left)]
    }
}

#[tonic::async_trait]
impl DebugSource for Parts {
    async fn state(&self) -> Value {
        json!({ "node": *self.status.borrow(), "central_generation": self.manager.central_generation() })
    }

    fn set_log_filter(&self, filter: &str) -> Result<String, LoggingError> {
        // The log is the whole fleet's.
        Ok(filter.to_owned())
    }
}
