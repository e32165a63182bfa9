//! Images: what a node holds, and how a pull goes on.

use super::{InvalidMessage, WireEnum, parse, wire_enum};
use crate::model::{ImageInfo, LayerProgress, LayerState, PullPolicy, PullStep};
use crate::{node, types as wire};

wire_enum!(PullPolicy, wire::PullPolicy, "pull_policy", {
    Always <=> Always, IfNotPresent <=> IfNotPresent, Never <=> Never,
});
wire_enum!(LayerState, node::LayerState, "layers.state", {
    Waiting <=> Waiting, Downloading <=> Downloading, Downloaded <=> Downloaded,
    Unpacking <=> Unpacking, Done <=> Done,
});

/// Reads a policy that may be left out.
///
/// # Errors
/// A number that is no policy.
pub fn pull_policy_or(number: i32, default: PullPolicy) -> Result<PullPolicy, InvalidMessage> {
    if number == 0 { Ok(default) } else { PullPolicy::from_wire(number) }
}

impl From<ImageInfo> for wire::Image {
    fn from(image: ImageInfo) -> Self {
        Self {
            reference: image.reference.into(),
            digest: image.digest,
            size_bytes: image.size_bytes,
            imported_at_unix_ms: image.imported_at_unix_ms,
            unpacked_bytes: image.unpacked_bytes,
            pinned: image.pinned,
            in_use_by: image.in_use_by,
            last_used_at_unix_ms: image.last_used_at_unix_ms,
            platform: image.platform,
        }
    }
}

impl TryFrom<wire::Image> for ImageInfo {
    type Error = InvalidMessage;

    fn try_from(image: wire::Image) -> Result<Self, InvalidMessage> {
        Ok(Self {
            reference: parse("images.reference", &image.reference)?,
            digest: image.digest,
            size_bytes: image.size_bytes,
            imported_at_unix_ms: image.imported_at_unix_ms,
            unpacked_bytes: image.unpacked_bytes,
            pinned: image.pinned,
            in_use_by: image.in_use_by,
            last_used_at_unix_ms: image.last_used_at_unix_ms,
            platform: image.platform,
        })
    }
}

impl From<PullStep> for node::PullStep {
    fn from(step: PullStep) -> Self {
        let layer = |layer: LayerProgress| node::LayerProgress {
            digest: layer.digest,
            done_bytes: layer.done_bytes,
            total_bytes: layer.total_bytes,
            state: layer.state.to_wire(),
        };
        Self {
            name: step.name,
            done_bytes: step.done_bytes,
            total_bytes: step.total_bytes,
            layers: step.layers.into_iter().map(layer).collect(),
            source: step.source,
        }
    }
}

impl TryFrom<node::PullStep> for PullStep {
    type Error = InvalidMessage;

    fn try_from(step: node::PullStep) -> Result<Self, InvalidMessage> {
        let layer = |layer: node::LayerProgress| {
            Ok(LayerProgress {
                digest: layer.digest,
                done_bytes: layer.done_bytes,
                total_bytes: layer.total_bytes,
                state: LayerState::from_wire(layer.state)?,
            })
        };
        Ok(Self {
            name: step.name,
            done_bytes: step.done_bytes,
            total_bytes: step.total_bytes,
            layers: step.layers.into_iter().map(layer).collect::<Result<_, InvalidMessage>>()?,
            source: step.source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_a_pull_survives_the_wire() {
        let layer =
            LayerProgress { digest: "sha256:0".into(), done_bytes: 1, total_bytes: 2, state: LayerState::Downloading };
        let step = PullStep {
            name: "download".into(),
            done_bytes: 1,
            total_bytes: 2,
            layers: vec![layer],
            source: "mirror.example".into(),
        };
        assert_eq!(PullStep::try_from(node::PullStep::from(step.clone())), Ok(step));
    }

    #[test]
    fn an_image_of_an_older_node_is_read() {
        let old = wire::Image { reference: "a:1".into(), digest: "sha256:0".into(), ..wire::Image::default() };
        let image = ImageInfo::try_from(old).unwrap();
        assert_eq!((image.unpacked_bytes, image.pinned, image.in_use_by), (0, false, 0));
    }
}
