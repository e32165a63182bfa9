//! Making a home of a checkpoint. Every piece is checked before it is
//! written, and nothing is written outside of the new home.

use std::os::unix::fs::FileExt;
use std::path::Path;

use futures::StreamExt;
use tokio::sync::mpsc;

use super::manifest::{Kind, Manifest, Piece, check_path};
use super::{CheckpointError, Checkpoints, Summary};
use crate::host::Error;
use crate::host::home::NewHome;

/// Pieces that are fetched ahead, some 4 MiB each at most.
const AHEAD: usize = 8;

/// A checkpoint that is being read: its entries, and the pieces of its files
/// in their order.
#[derive(Debug)]
pub(in crate::volume) struct Reading {
    tree: Manifest,
    pieces: mpsc::Receiver<Result<Vec<u8>, CheckpointError>>,
}

impl Checkpoints {
    /// Begins to read a checkpoint.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub(in crate::volume) async fn open(&self, summary: &Summary) -> Result<Reading, CheckpointError> {
        let tree = self.tree(summary).await?;
        for entry in &tree.entries {
            check_path(&entry.path.0)
                .map_err(|problem| CheckpointError::Damaged { id: summary.id.clone(), problem })?;
        }
        let (tx, pieces) = mpsc::channel(1);
        let wanted: Vec<Piece> = tree.pieces().collect();
        let blobs = self.blobs.clone();
        // Ends with whoever reads.
        self.tasks.spawn("restore", async move {
            let fetched = futures::stream::iter(wanted).map(|Piece(hash, _, len)| {
                let blobs = blobs.clone();
                async move { blobs.piece(hash, len).await.map_err(CheckpointError::from) }
            });
            let mut fetched = std::pin::pin!(fetched.buffered(AHEAD));
            while let Some(piece) = fetched.next().await {
                if tx.send(piece).await.is_err() {
                    return;
                }
            }
        });
        Ok(Reading { tree, pieces })
    }
}

impl Reading {
    /// Fills an empty directory. Blocking.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub(in crate::volume) fn fill(mut self, dir: &Path) -> Result<(), CheckpointError> {
        let mut home = NewHome::begin(dir)?;
        for entry in std::mem::take(&mut self.tree.entries) {
            let (path, meta) = (&entry.path.0, entry.meta());
            match &entry.kind {
                Kind::Dir => home.dir(path, meta)?,
                Kind::Fifo => home.fifo(path, &meta)?,
                Kind::Link(target) => home.link(path, &target.0, &meta)?,
                Kind::Same(first) => home.hard_link(path, &first.0)?,
                Kind::File { size, pieces, .. } => {
                    let file = home.file(path, *size, &meta)?;
                    for Piece(_, offset, _) in pieces {
                        let data = self.pieces.blocking_recv().ok_or(CheckpointError::Stopped)??;
                        file.write_all_at(&data, *offset).map_err(|e| Error::path("write", path.clone(), e))?;
                    }
                    home.finish_file(path, &meta)?;
                }
            }
        }
        Ok(home.finish()?)
    }
}
