//! One file that is written: whole, or not there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::input::Seen;
use super::level::Facts;
use super::{PIECE_BYTES, TreeError};

/// A name that is not there yet and that nobody can guess. What it stands for
/// goes away with this, unless it was put into its place.
#[derive(Debug)]
pub(super) struct Temporary<'a> {
    dir: BorrowedFd<'a>,
    name: String,
    is_kept: bool,
}

impl<'a> Temporary<'a> {
    pub(super) fn new(dir: BorrowedFd<'a>) -> Self {
        Self { dir, name: format!(".roost-{:016x}", rand::random::<u64>()), is_kept: false }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Puts it in the place of what is there.
    pub(super) fn rename(mut self, name: &OsStr, shown: &Path) -> Result<(), TreeError> {
        match renameat(self.dir, self.name.as_str(), self.dir, name) {
            Ok(()) => {
                self.is_kept = true;
                Ok(())
            }
            Err(Errno::EISDIR) => Err(TreeError::refused(shown, "a directory is in its place")),
            Err(error) => Err(TreeError::path("put in place", shown, error)),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // The failure before is the one that counts.
            let _ = unlinkat(self.dir, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Writes a file from its content. Pieces of zeros become holes.
pub(super) fn write(
    (dir, name): (BorrowedFd<'_>, &OsStr),
    (content, size, seen): (&mut impl Read, u64, &Seen),
    facts: Facts,
    shown: &Path,
    mut step: impl FnMut(u64),
) -> Result<(), TreeError> {
    let failed = |e: Errno| TreeError::path("write", shown, e);
    let temporary = Temporary::new(dir);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(dir, temporary.name(), flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed)?;
    let mut file = File::from(made);
    let write_failed = |e| TreeError::path("write", shown, e);
    let piece = usize::try_from(size).unwrap_or(PIECE_BYTES).clamp(1, PIECE_BYTES);
    let mut buffer = vec![0; piece];
    let mut written = 0;
    let mut ends_in_hole = false;
    loop {
        let bytes = fill(content, &mut buffer).map_err(|e| seen.explain(e))?;
        let Some(data) = buffer.get(..bytes).filter(|data| !data.is_empty()) else { break };
        ends_in_hole = data.iter().all(|byte| *byte == 0);
        if ends_in_hole {
            file.seek(SeekFrom::Current(i64::try_from(bytes).unwrap_or(i64::MAX))).map_err(write_failed)?;
        } else {
            file.write_all(data).map_err(write_failed)?;
        }
        written += bytes as u64;
        step(bytes as u64);
    }
    if written != size {
        let error = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it ends in the middle of a file");
        return Err(seen.explain(error));
    }
    if ends_in_hole {
        file.set_len(size).map_err(write_failed)?;
    }
    let time = facts.time();
    fchmod(&file, Mode::from_bits_truncate(facts.mode)).map_err(failed)?;
    futimens(&file, &time, &time).map_err(failed)?;
    temporary.rename(name, shown)
}

/// Reads until the buffer is full or the content ends.
pub(super) fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
