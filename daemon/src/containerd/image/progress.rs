//! How far an import or a pull is.

use roost_proto::model::{LayerProgress, LayerState};
use tokio::sync::watch;

use super::digest::Digest;
use super::document::Layer;

/// What an import does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A registry is asked what there is.
    Resolve,
    /// Bytes come in.
    Receive,
    /// Blobs are read, checked and handed to containerd.
    Verify,
    /// The same, from a registry.
    Download,
    /// Layers become snapshots; counted in compressed bytes.
    Unpack,
}

impl Step {
    /// The word for it on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Receive => "receive",
            Self::Verify => "verify",
            Self::Download => "download",
            Self::Unpack => "unpack",
        }
    }
}

/// Where an import stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// What it does.
    pub step: Step,
    /// Bytes of this step that are done.
    pub done_bytes: u64,
    /// Bytes of this step in all; 0 if not known.
    pub total_bytes: u64,
    /// Lowest layer first, without repetitions; empty until they are known.
    pub layers: Vec<LayerProgress>,
    /// Host that is asked; empty for archives.
    pub source: String,
    /// Packed bytes of the layers that are unpacked: the first ones are while
    /// others still come.
    pub unpacked_bytes: u64,
}

/// The end that an import reports to. Only the latest position is kept, so a
/// slow or absent reader never holds an import up. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress(watch::Sender<Position>);

impl Progress {
    /// A new pair of ends for an archive; the reader starts at "nothing
    /// received".
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Position>) {
        Self::at(Step::Receive)
    }

    /// A new pair of ends for a pull.
    #[must_use]
    pub fn of_pull() -> (Self, watch::Receiver<Position>) {
        Self::at(Step::Resolve)
    }

    fn at(step: Step) -> (Self, watch::Receiver<Position>) {
        let start = Position {
            step,
            done_bytes: 0,
            total_bytes: 0,
            layers: Vec::new(),
            source: String::new(),
            unpacked_bytes: 0,
        };
        let (position_tx, position_rx) = watch::channel(start);
        (Self(position_tx), position_rx)
    }

    /// For imports that nobody watches.
    #[must_use]
    pub fn ignored() -> Self {
        Self::new().0
    }

    /// Begins a step.
    pub(super) fn begin(&self, step: Step, total_bytes: u64) {
        self.0.send_modify(|position| {
            (position.step, position.done_bytes, position.total_bytes) = (step, 0, total_bytes);
        });
    }

    /// Counts bytes of the present step as done.
    pub(super) fn add(&self, bytes: u64) {
        self.0.send_modify(|position| position.done_bytes = position.done_bytes.saturating_add(bytes));
    }

    /// Begins the step in which layers are only unpacked.
    pub(super) fn begin_unpack(&self, total_bytes: u64) {
        self.begin(Step::Unpack, total_bytes);
        self.0.send_modify(|position| position.done_bytes = position.unpacked_bytes);
    }

    /// Counts packed bytes of a layer as unpacked.
    pub(super) fn unpacked(&self, bytes: u64) {
        self.0.send_modify(|position| {
            position.unpacked_bytes = position.unpacked_bytes.saturating_add(bytes);
            if position.step == Step::Unpack {
                position.done_bytes = position.unpacked_bytes;
            }
        });
    }

    /// Names the host that is asked.
    pub(crate) fn source(&self, host: &str) {
        self.0.send_modify(|position| host.clone_into(&mut position.source));
    }

    /// Names the layers, each once.
    pub(super) fn layers<'a>(&self, layers: impl Iterator<Item = &'a Layer>) {
        let waiting = |layer: &Layer| LayerProgress {
            digest: layer.blob.digest.to_string(),
            done_bytes: 0,
            total_bytes: layer.blob.size_bytes,
            state: LayerState::Waiting,
        };
        let layers = layers.map(waiting).collect();
        self.0.send_modify(|position| position.layers = layers);
    }

    /// Counts bytes of a layer, and of the step, as done.
    pub(super) fn layer_bytes(&self, digest: &Digest, bytes: u64) {
        self.add(bytes);
        self.layer(digest, |layer| layer.done_bytes = layer.done_bytes.saturating_add(bytes));
    }

    /// Takes bytes of a layer back: they turned out to be wrong.
    pub(super) fn layer_again(&self, digest: &Digest) {
        self.0.send_modify(|position| {
            let text = digest.to_string();
            if let Some(layer) = position.layers.iter_mut().find(|layer| layer.digest == text) {
                position.done_bytes = position.done_bytes.saturating_sub(layer.done_bytes);
                layer.done_bytes = 0;
            }
        });
    }

    /// Says what a layer goes through.
    pub(super) fn layer_state(&self, digest: &Digest, state: LayerState) {
        self.layer(digest, |layer| {
            layer.state = state;
            // It was there already, or came with another image.
            if matches!(state, LayerState::Downloaded | LayerState::Done) {
                layer.done_bytes = layer.total_bytes;
            }
        });
    }

    fn layer(&self, digest: &Digest, edit: impl FnOnce(&mut LayerProgress)) {
        let text = digest.to_string();
        self.0.send_modify(|position| {
            if let Some(layer) = position.layers.iter_mut().find(|layer| layer.digest == text) {
                edit(layer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_the_latest_position() {
        let (progress, reader) = Progress::new();
        progress.begin(Step::Verify, 10);
        progress.add(4);
        progress.add(5);
        let position = reader.borrow().clone();
        assert_eq!((position.step, position.done_bytes, position.total_bytes), (Step::Verify, 9, 10));
    }

    #[test]
    fn without_a_reader_nothing_fails() {
        let progress = Progress::ignored();
        progress.begin(Step::Unpack, 1);
        progress.add(1);
    }
}
