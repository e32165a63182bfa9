//! How far an import is.

use tokio::sync::watch;

/// What an import does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Bytes come in.
    Receive,
    /// Blobs are read, checked and handed to containerd.
    Verify,
    /// Layers become snapshots; counted in compressed bytes.
    Unpack,
}

impl Step {
    /// The word for it on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Verify => "verify",
            Self::Unpack => "unpack",
        }
    }
}

/// Where an import stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// What it does.
    pub step: Step,
    /// Bytes of this step that are done.
    pub done_bytes: u64,
    /// Bytes of this step in all; 0 if not known.
    pub total_bytes: u64,
}

/// The end that an import reports to. Only the latest position is kept, so a
/// slow or absent reader never holds an import up. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress(watch::Sender<Position>);

impl Progress {
    /// A new pair of ends; the reader starts at "nothing received".
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Position>) {
        let (position_tx, position_rx) =
            watch::channel(Position { step: Step::Receive, done_bytes: 0, total_bytes: 0 });
        (Self(position_tx), position_rx)
    }

    /// For imports that nobody watches.
    #[must_use]
    pub fn ignored() -> Self {
        Self::new().0
    }

    /// Begins a step.
    pub(super) fn begin(&self, step: Step, total_bytes: u64) {
        self.0.send_replace(Position { step, done_bytes: 0, total_bytes });
    }

    /// Counts bytes of the present step as done.
    pub(super) fn add(&self, bytes: u64) {
        self.0.send_modify(|position| position.done_bytes = position.done_bytes.saturating_add(bytes));
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
        assert_eq!(*reader.borrow(), Position { step: Step::Verify, done_bytes: 9, total_bytes: 10 });
    }

    #[test]
    fn without_a_reader_nothing_fails() {
        let progress = Progress::ignored();
        progress.begin(Step::Unpack, 1);
        progress.add(1);
    }
}
