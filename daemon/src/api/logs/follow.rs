//! Reads a log that grows and is rotated meanwhile.

use std::collections::VecDeque;
use std::fs::File as StdFile;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

use super::tail::tail;
use super::{LogsError, older};

/// Bytes read at once.
const CHUNK_BYTES: usize = 32 << 10;
/// Pause between two looks at the file: below what people notice, and ten
/// cheap calls a second for each follower.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// One file being read.
#[derive(Debug)]
struct Part {
    file: File,
    inode: u64,
    /// Bytes read so far.
    position: u64,
    /// Where to stop; absent = at the present end, and look again later.
    end: Option<u64>,
}

impl Part {
    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.position));
        let mut buffer = vec![0; CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES))];
        let bytes = self.file.read(&mut buffer).await?;
        self.position += bytes as u64;
        buffer.truncate(bytes);
        Ok((bytes > 0).then_some(buffer))
    }
}

/// A log from a chosen line on.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    /// Parts that end, oldest first.
    finished: VecDeque<Part>,
    /// The part that grows; absent until the file exists.
    current: Option<Part>,
}

impl Follower {
    /// Opens what is kept at its last `tail_lines` lines; absent = at its
    /// begin. A log that does not exist yet is empty.
    pub(super) async fn open(path: PathBuf, tail_lines: Option<u32>) -> Result<Self, LogsError> {
        let file = path.clone();
        let opened = tokio::task::spawn_blocking(move || open(&file, tail_lines)).await;
        let (rotated, current) = opened
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| LogsError::Read { path: path.clone(), source })?;
        Ok(Self { path, finished: rotated.into_iter().collect(), current })
    }

    /// The next piece; `None` at the present end.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<u8>>, LogsError> {
        self.read_part().await.map_err(|source| LogsError::Read { path: self.path.clone(), source })
    }

    async fn read_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            while let Some(part) = self.finished.front_mut() {
                if let Some(data) = part.read().await? {
                    return Ok(Some(data));
                }
                self.finished.pop_front();
            }
            if let Some(part) = &mut self.current
                && let Some(data) = part.read().await?
            {
                return Ok(Some(data));
            }
            if !self.notice_rotation().await? {
                return Ok(None);
            }
        }
    }

    /// Waits a moment, so that more may be there.
    // Needs no state now; takes it, so that a notification can replace the
    // pause without touching the callers.
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(POLL_PERIOD).await;
    }

    /// Looks, at the present end, whether the file was replaced or truncated.
    /// True if there may be more to read.
    async fn notice_rotation(&mut self) -> io::Result<bool> {
        let Some(current) = &mut self.current else {
            self.current = whole(&self.path).await?;
            return Ok(self.current.is_some());
        };
        let len = current.file.metadata().await?.len();
        if len < current.position {
            let missed = rest_of_copy(&self.path, current.position).await?;
            current.file.rewind().await?;
            current.position = 0;
            self.finished.extend(missed);
            return Ok(true);
        }
        let Some(new) = whole(&self.path).await? else { return Ok(false) };
        if new.inode == current.inode {
            return Ok(len > current.position);
        }
        // What was written between the last read and the rename comes first.
        self.finished.extend(self.current.replace(new));
        Ok(true)
    }
}

/// What a truncation took from under us: the copy holds it behind `position`.
async fn rest_of_copy(path: &Path, position: u64) -> io::Result<Option<Part>> {
    let Some(mut copy) = whole(&older(path)).await? else { return Ok(None) };
    let len = copy.file.metadata().await?.len();
    if len <= position {
        return Ok(None);
    }
    copy.file.seek(SeekFrom::Start(position)).await?;
    Ok(Some(Part { position, end: Some(len), ..copy }))
}

/// A file from its begin; `None` if there is none.
async fn whole(path: &Path) -> io::Result<Option<Part>> {
    let file = match File::open(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let inode = file.metadata().await?.ino();
    Ok(Some(Part { file, inode, position: 0, end: None }))
}

/// Opens the rotated and the present part at the asked line. Blocks.
fn open(path: &Path, tail_lines: Option<u32>) -> io::Result<(Option<Part>, Option<Part>)> {
    let (current, left) = open_one(path, tail_lines)?;
    let (rotated, _) = open_one(&older(path), left)?;
    // A rename between the two looks shows the same file twice.
    let is_same = matches!((&rotated, &current), (Some(a), Some(b)) if a.inode == b.inode);
    let rotated = rotated.filter(|_| !is_same);
    Ok((rotated, current.map(|part| Part { end: None, ..part })))
}

/// One file at its last `lines` lines, and how many lines are left to find.
fn open_one(path: &Path, lines: Option<u32>) -> io::Result<(Option<Part>, Option<u32>)> {
    let mut file = match StdFile::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, lines)),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    let (position, left) = match lines {
        None => (0, None),
        Some(lines) => match tail(&file, metadata.len(), lines) {
            // Truncated during the search: all that is left is new.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => (0, Some(0)),
            found => found.map(|tail| (tail.offset, Some(lines - tail.lines)))?,
        },
    };
    io::Seek::seek(&mut file, SeekFrom::Start(position))?;
    let part = Part { file: File::from_std(file), inode: metadata.ino(), position, end: Some(metadata.len()) };
    Ok((Some(part), left))
}
