//! Frames of the displays of running sandboxes.

use std::sync::Arc;

use roost_proto::id::SandboxId;
use roost_proto::model::Phase;

use crate::api::screenshot::{Png, ScreenshotError, Screenshots};
use crate::display::Geometry;
use crate::sandbox::{Manager, Node};

/// Frames of the manager's sandboxes.
#[derive(Debug, Clone)]
pub struct Frames {
    node: Arc<Node>,
    manager: Manager,
}

impl Frames {
    /// Frames of the manager's sandboxes.
    #[must_use]
    pub fn new(node: Arc<Node>, manager: Manager) -> Self {
        Self { node, manager }
    }
}

#[tonic::async_trait]
impl Screenshots for Frames {
    async fn png(&self, id: &SandboxId) -> Result<Png, ScreenshotError> {
        let view = self.manager.get(id).ok_or_else(|| ScreenshotError::NotFound(id.clone()))?;
        // A start that hangs is looked into with a screenshot.
        // What stands still has left its last frame.
        let has_screen = matches!(view.observed.phase, Phase::Ready | Phase::Paused | Phase::Starting);
        let runs = has_screen && view.observed.display.is_some();
        if !runs {
            return Err(ScreenshotError::NotRunning(id.clone()));
        }
        if let Some(activity) = self.manager.activity(id) {
            activity.touch();
        }
        let display = view.desired.spec.display;
        let geometry = Geometry { width_px: display.width_px, height_px: display.height_px };
        let dir = self.node.layout.sandbox(id).framebuffer();
        // What a claim made of it, once it is bound.
        let claimed = view.desired.binding.as_ref().filter(|_| view.observed.binding.as_ref().is_some_and(|b| b.bound));
        let screen = claimed.and_then(|binding| binding.screen);
        let shown = screen.map_or(geometry, |s| Geometry { width_px: s.width_px, height_px: s.height_px });
        let png = self.node.screenshots.take(dir, geometry, shown).await;
        let png = png.map_err(|error| ScreenshotError::Capture { id: id.clone(), source: Box::new(error) })?;
        Ok(Png { bytes: png.png, width_px: shown.width_px, height_px: shown.height_px })
    }
}
