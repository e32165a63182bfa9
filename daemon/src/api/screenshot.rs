//! One frame of a display, as a PNG.

use roost_proto::id::SandboxId;
use roost_proto::node as wire;
use tonic::Status;

use super::convert;
use super::status::invalid;

/// A frame in PNG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Png {
    /// The file.
    pub bytes: Vec<u8>,
    /// Width of the frame in pixels.
    pub width_px: u32,
    /// Height of the frame in pixels.
    pub height_px: u32,
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum ScreenshotError {
    /// No such sandbox on this node.
    #[error("no sandbox {0} on this node")]
    NotFound(SandboxId),
    /// Its display server does not run.
    #[error("sandbox {0} has no running display: start it first")]
    NotRunning(SandboxId),
    /// The frame could not be read or encoded.
    #[error("cannot capture the screen of sandbox {id}")]
    Capture {
        /// Whose screen.
        id: SandboxId,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Frames of the displays, as the API needs them.
#[tonic::async_trait]
pub trait Screenshots: Send + Sync + 'static {
    /// Captures the present frame.
    ///
    /// # Errors
    /// See [`ScreenshotError`].
    async fn png(&self, id: &SandboxId) -> Result<Png, ScreenshotError>;
}

pub(super) async fn screenshot(
    screenshots: &dyn Screenshots,
    request: wire::ScreenshotRequest,
) -> Result<wire::ScreenshotResponse, Status> {
    let id = convert::sandbox_id(&request.sandbox_id).map_err(invalid)?;
    let png = screenshots.png(&id).await?;
    Ok(wire::ScreenshotResponse { png: png.bytes, width_px: png.width_px, height_px: png.height_px })
}
