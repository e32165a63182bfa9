//! The ready signal of a display server, over a FIFO.

use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::display::cookie::Owner;

/// Most bytes that are a display number: ten digits and a line feed.
const MAX_LINE_BYTES: usize = 11;

/// Why the display server is not ready.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// The FIFO cannot be made or opened.
    #[error("cannot make the ready FIFO {path}", path = .path.display())]
    Create {
        /// The FIFO.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The FIFO cannot be read.
    #[error("cannot read the ready FIFO")]
    Read(#[source] io::Error),
    /// Nothing was heard in time.
    #[error("the display server did not get ready in time: look at its log")]
    Deadline,
    /// The server ended without a word.
    #[error("the display server ended before it was ready: look at its log")]
    Ended,
    /// Something else than a number was heard.
    #[error("the display server said {text:?}, expected a display number and a line feed")]
    Malformed {
        /// The first bytes of it.
        text: String,
    },
}

/// The reading end, open before the server starts: neither side can miss the
/// other, and the shell's opening for writing does not wait.
#[derive(Debug)]
pub struct ReadyFifo {
    reader: pipe::Receiver,
}

impl ReadyFifo {
    /// Makes the FIFO, in the place of a stale one, writable by `owner`, and
    /// opens its reading end. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ReadyError::Create`].
    pub fn create_and_open(path: &Path, owner: Owner) -> Result<Self, ReadyError> {
        match create_fifo(path, owner).and_then(|()| pipe::OpenOptions::new().open_receiver(path)) {
            Ok(reader) => Ok(Self { reader }),
            Err(source) => Err(ReadyError::Create { path: path.to_owned(), source }),
        }
    }

    /// Waits until the server says that it listens; returns its display
    /// number. Dropping the future leaves nothing behind but the FIFO's name.
    ///
    /// # Errors
    /// See [`ReadyError`].
    pub async fn wait(self, deadline: Instant) -> Result<u32, ReadyError> {
        tokio::time::timeout_at(deadline, self.read_number()).await.map_err(|_elapsed| ReadyError::Deadline)?
    }

    async fn read_number(self) -> Result<u32, ReadyError> {
        let mut heard = Vec::new();
        loop {
            self.reader.readable().await.map_err(ReadyError::Read)?;
            // The writer is a process of the sandbox: what it may make us
            // keep is bounded.
            let mut chunk = [0; MAX_LINE_BYTES];
            match self.reader.try_read(&mut chunk) {
                Ok(0) if heard.is_empty() => return Err(ReadyError::Ended),
                Ok(0) => return Err(malformed(&heard)),
                Ok(count) => heard.extend(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(ReadyError::Read(error)),
            }
            if let Some(end) = heard.iter().position(|&byte| byte == b'\n') {
                return parse(&heard, end).ok_or_else(|| malformed(&heard));
            }
            if heard.len() >= MAX_LINE_BYTES {
                return Err(malformed(&heard));
            }
        }
    }
}

/// Makes the FIFO. The server's side may have left anything in its place.
pub(super) fn create_fifo(path: &Path, owner: Owner) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    chown(path, Some(owner.uid), Some(owner.gid))
}

/// Digits without a leading zero or sign, then the line feed, then nothing.
fn parse(heard: &[u8], end: usize) -> Option<u32> {
    let digits = std::str::from_utf8(&heard[..end]).ok()?;
    let number: u32 = digits.parse().ok()?;
    (end + 1 == heard.len() && number.to_string() == digits).then_some(number)
}

fn malformed(heard: &[u8]) -> ReadyError {
    ReadyError::Malformed { text: String::from_utf8_lossy(&heard[..heard.len().min(MAX_LINE_BYTES)]).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::time::Duration;

    fn fifo(dir: &tempfile::TempDir) -> (ReadyFifo, PathBuf) {
        let path = dir.path().join("displayfd");
        let owner = Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() };
        (ReadyFifo::create_and_open(&path, owner).unwrap(), path)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    async fn answer_to(said: &[u8]) -> Result<u32, ReadyError> {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, path) = fifo(&dir);
        let mut writer = OpenOptions::new().write(true).open(path).unwrap();
        writer.write_all(said).unwrap();
        drop(writer);
        fifo.wait(soon()).await
    }

    #[tokio::test]
    async fn a_number_and_a_line_feed_are_the_display() {
        assert_eq!(answer_to(b"0\n").await.unwrap(), 0);
        assert_eq!(answer_to(b"4294967295\n").await.unwrap(), u32::MAX);
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        for said in [&b"\n"[..], b"7", b"+7\n", b"07\n", b"4294967296\n", b"7\n8\n", b"seven\n", &[b'1'; 4096]] {
            assert!(matches!(answer_to(said).await, Err(ReadyError::Malformed { .. })), "{said:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_ends_silently_is_noticed_at_once() {
        assert!(matches!(answer_to(b"").await, Err(ReadyError::Ended)));
    }

    #[tokio::test]
    async fn the_number_may_come_in_pieces_and_before_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, path) = fifo(&dir);
        let mut writer = OpenOptions::new().write(true).open(path).unwrap();
        writer.write_all(b"1").unwrap();
        let waiting = fifo.wait(soon());
        let writing = async {
            tokio::task::yield_now().await;
            writer.write_all(b"2\n").unwrap();
        };
        assert_eq!(tokio::join!(waiting, writing).0.unwrap(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_meets_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, _path) = fifo(&dir);
        assert!(matches!(fifo.wait(soon()).await, Err(ReadyError::Deadline)));
    }

    #[tokio::test]
    async fn a_stale_fifo_or_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(fifo(&dir));
        let (_fifo, path) = fifo(&dir);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "not a fifo").unwrap();
        drop(fifo(&dir));
    }
}
