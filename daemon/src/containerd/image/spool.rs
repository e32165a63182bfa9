//! An archive that arrives as a stream becomes a file without a name.
//!
//! A file, because the order of a tar is the sender's: the index that says
//! what the blobs are may come last. Without a name, because the kernel then
//! removes it however the daemon ends.

use std::error::Error as StdError;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::progress::{Progress, Step};

/// Pieces between the network and the disk: a few, so that one may wait for
/// the other, each at most a gRPC message.
const QUEUE_PIECES: usize = 8;
/// Longest silence of a sender.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes written between two looks at the free space.
const SPACE_CHECK_BYTES: u64 = 64 << 20;

/// Where archives are kept while they are imported, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// A directory on a disk, not a tmpfs.
    pub directory: PathBuf,
    /// Largest archive, in bytes.
    pub max_bytes: u64,
    /// Space that must stay free on that disk, in bytes.
    pub reserve_bytes: u64,
}

/// Why an archive could not be received.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Larger than the node accepts.
    #[error("the archive is larger than {max_bytes} bytes, the limit of this node")]
    TooLarge {
        /// The configured limit.
        max_bytes: u64,
    },
    /// It would fill the disk.
    #[error(
        "no space for the archive in {}: {free_bytes} bytes are free, {needed_bytes} are needed: \
         remove images or give the node a larger disk", directory.display()
    )]
    NoSpace {
        /// Where it was to be kept.
        directory: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// What has to be.
        needed_bytes: u64,
    },
    /// The sender fell silent.
    #[error("the archive stopped coming after {received_bytes} bytes: send it again")]
    Stalled {
        /// What had come.
        received_bytes: u64,
    },
    /// The sender broke off.
    #[error("the archive broke off after {received_bytes} bytes: send it again")]
    Broken {
        /// What had come.
        received_bytes: u64,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Other than announced.
    #[error("{received_bytes} bytes came where {expected_bytes} were announced: send the archive again")]
    Length {
        /// What had come.
        received_bytes: u64,
        /// What was announced.
        expected_bytes: u64,
    },
    /// The file could not be made or written.
    #[error("cannot keep the archive in {}", directory.display())]
    Io {
        /// Where it was to be kept.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes a stream into a file without a name. `expected_bytes` is what the
/// sender announced, if it did. Cancel-safe in that nothing is left behind.
///
/// # Errors
/// See [`SpoolError`].
pub async fn receive<E>(
    stream: impl Stream<Item = Result<Bytes, E>> + Send,
    expected_bytes: Option<u64>,
    config: &SpoolConfig,
    progress: &Progress,
) -> Result<File, SpoolError>
where
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    progress.begin(Step::Receive, expected_bytes.unwrap_or(0));
    let expected = expected_bytes.unwrap_or(0);
    if expected > config.max_bytes {
        return Err(SpoolError::TooLarge { max_bytes: config.max_bytes });
    }
    let (piece_tx, piece_rx) = mpsc::channel(QUEUE_PIECES);
    let writer_config = config.clone();
    let writer = spawn_blocking(move || write_pieces(piece_rx, expected, &writer_config));
    let received = forward(stream, piece_tx, config, progress).await;
    let io_error = |source| SpoolError::Io { directory: config.directory.clone(), source };
    // The writer's error comes first: a stream that ended early may have done
    // so because the writer went away.
    let file = writer.await.map_err(|source| io_error(io::Error::other(source)))??;
    let received_bytes = received?;
    match expected_bytes {
        Some(expected_bytes) if expected_bytes != received_bytes => {
            Err(SpoolError::Length { received_bytes, expected_bytes })
        }
        _ => Ok(file),
    }
}

/// Passes the stream on to the writer; returns its length in bytes.
async fn forward<E>(
    stream: impl Stream<Item = Result<Bytes, E>> + Send,
    piece_tx: mpsc::Sender<Bytes>,
    config: &SpoolConfig,
    progress: &Progress,
) -> Result<u64, SpoolError>
where
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut stream = pin!(stream);
    let mut received_bytes = 0_u64;
    loop {
        let next = tokio::select! {
            // Neither arm loses anything that matters: after the first the
            // stream is not read again, and `closed` only watches.
            () = piece_tx.closed() => break,
            next = timeout(SILENCE_TIMEOUT, stream.next()) => next,
        };
        let Some(piece) = next.map_err(|_| SpoolError::Stalled { received_bytes })? else { break };
        let piece = piece.map_err(|source| SpoolError::Broken { received_bytes, source: source.into() })?;
        let length = piece.len() as u64;
        received_bytes = received_bytes.saturating_add(length);
        if received_bytes > config.max_bytes {
            return Err(SpoolError::TooLarge { max_bytes: config.max_bytes });
        }
        if piece_tx.send(piece).await.is_err() {
            break; // The writer failed and says why.
        }
        progress.add(length);
    }
    Ok(received_bytes)
}

fn write_pieces(
    mut piece_rx: mpsc::Receiver<Bytes>,
    expected_bytes: u64,
    config: &SpoolConfig,
) -> Result<File, SpoolError> {
    let directory = &config.directory;
    let io_error = |source| SpoolError::Io { directory: directory.clone(), source };
    check_space(config, expected_bytes)?;
    let mut file = tempfile::tempfile_in(directory).map_err(io_error)?;
    let mut unchecked_bytes = 0;
    while let Some(piece) = piece_rx.blocking_recv() {
        file.write_all(&piece).map_err(io_error)?;
        unchecked_bytes += piece.len() as u64;
        if unchecked_bytes >= SPACE_CHECK_BYTES {
            check_space(config, 0)?;
            unchecked_bytes = 0;
        }
    }
    Ok(file)
}

/// Refuses to go below the reserve with `more_bytes` to come.
fn check_space(config: &SpoolConfig, more_bytes: u64) -> Result<(), SpoolError> {
    let free_bytes = free_bytes(&config.directory)
        .map_err(|source| SpoolError::Io { directory: config.directory.clone(), source })?;
    let needed_bytes = config.reserve_bytes.saturating_add(more_bytes);
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(SpoolError::NoSpace { directory: config.directory.clone(), free_bytes, needed_bytes })
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    Ok(crate::host::disk::space(directory).map_err(io::Error::other)?.free_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use futures::stream;

    use super::*;

    fn config(directory: &Path) -> SpoolConfig {
        SpoolConfig { directory: directory.to_owned(), max_bytes: 100, reserve_bytes: 0 }
    }

    fn pieces(pieces: &'static [&'static str]) -> impl Stream<Item = Result<Bytes, io::Error>> {
        stream::iter(pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))))
    }

    #[tokio::test]
    async fn what_comes_is_in_the_file_and_the_directory_stays_empty() {
        let directory = tempfile::tempdir().unwrap();
        let (progress, reader) = Progress::new();
        let stream = pieces(&["ab", "", "cde"]);
        let mut file = receive(stream, Some(5), &config(directory.path()), &progress).await.unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcde");
        assert_eq!(reader.borrow().done_bytes, 5);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_archive_over_the_limit_is_refused_announced_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let config = SpoolConfig { max_bytes: 4, ..config(directory.path()) };
        let announced = receive(pieces(&[]), Some(5), &config, &Progress::ignored()).await;
        assert!(matches!(announced, Err(SpoolError::TooLarge { max_bytes: 4 })), "{announced:?}");
        let grown = receive(pieces(&["abc", "de"]), None, &config, &Progress::ignored()).await;
        assert!(matches!(grown, Err(SpoolError::TooLarge { max_bytes: 4 })), "{grown:?}");
    }

    #[tokio::test]
    async fn a_disk_below_its_reserve_takes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let config = SpoolConfig { reserve_bytes: u64::MAX, ..config(directory.path()) };
        let result = receive(pieces(&["a"]), None, &config, &Progress::ignored()).await;
        assert!(matches!(result, Err(SpoolError::NoSpace { .. })), "{result:?}");
    }

    #[tokio::test]
    async fn a_sender_that_breaks_off_or_lies_about_the_length_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let broken = stream::iter([Ok(Bytes::from_static(b"ab")), Err(io::Error::other("reset"))]);
        let result = receive(broken, None, &config(directory.path()), &Progress::ignored()).await;
        assert!(matches!(result, Err(SpoolError::Broken { received_bytes: 2, .. })), "{result:?}");
        let result = receive(pieces(&["ab"]), Some(3), &config(directory.path()), &Progress::ignored()).await;
        let length = matches!(result, Err(SpoolError::Length { received_bytes: 2, expected_bytes: 3 }));
        assert!(length, "{result:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_sender_does_not_hold_the_node_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let silent = stream::pending::<Result<Bytes, io::Error>>();
        // The writer's thread keeps the paused clock from moving by itself.
        let silence = async {
            tokio::task::yield_now().await;
            tokio::time::advance(SILENCE_TIMEOUT).await;
        };
        let (config, progress) = (config(directory.path()), Progress::ignored());
        let (result, ()) = tokio::join!(receive(silent, None, &config, &progress), silence);
        assert!(matches!(result, Err(SpoolError::Stalled { received_bytes: 0 })), "{result:?}");
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let missing = config(Path::new("/nonexistent/spool"));
        let error = receive(pieces(&["a"]), None, &missing, &Progress::ignored()).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/spool"), "{error}");
    }
}
