//! The open directories above what is written.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat};
use nix::sys::time::TimeSpec;

use super::TreeError;

/// Mode of a directory that no entry of the archive describes.
const PLAIN_MODE: u32 = 0o755;

/// Mode and time that something gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Permission bits.
    pub(super) mode: u32,
    /// Time of the last change, in seconds since 1970.
    pub(super) mtime_s: i64,
}

impl Facts {
    /// The time for calls that set access and change.
    pub(super) fn time(self) -> TimeSpec {
        TimeSpec::new(self.mtime_s, 0)
    }
}

/// A directory of the tree that is open.
#[derive(Debug)]
struct Level {
    name: OsString,
    dir: OwnedFd,
    /// What it gets when it is left: it was made here.
    facts: Option<Facts>,
}

/// The way from the top to where something is written.
#[derive(Debug)]
pub(super) struct Levels<'a> {
    top: BorrowedFd<'a>,
    open: Vec<Level>,
}

impl<'a> Levels<'a> {
    pub(super) fn new(top: BorrowedFd<'a>) -> Self {
        Self { top, open: Vec::new() }
    }

    /// The directory that is open.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.top, |level| level.dir.as_fd())
    }

    /// Goes to a directory; those that are missing are made.
    pub(super) fn enter(&mut self, names: &[OsString], shown: &Path) -> Result<(), TreeError> {
        let same = self.open.iter().zip(names).take_while(|(level, name)| level.name == **name).count();
        self.leave(same, shown)?;
        for name in names.iter().skip(same) {
            let (dir, _) = open_or_make(self.dir(), name, PLAIN_MODE, shown)?;
            self.open.push(Level { name: name.clone(), dir, facts: None });
        }
        Ok(())
    }

    /// Goes into a directory that the archive describes. One that is there
    /// keeps its mode and time.
    pub(super) fn describe(&mut self, name: &OsStr, facts: Facts, shown: &Path) -> Result<(), TreeError> {
        // Its own bits last: they may forbid to write into it.
        let (dir, is_new) = open_or_make(self.dir(), name, 0o700, shown)?;
        self.open.push(Level { name: name.into(), dir, facts: is_new.then_some(facts) });
        Ok(())
    }

    /// Leaves all directories but the upper ones; each gets its bits and time.
    pub(super) fn leave(&mut self, upper: usize, shown: &Path) -> Result<(), TreeError> {
        while self.open.len() > upper {
            let Some(level) = self.open.pop() else { break };
            let Some(facts) = level.facts else { continue };
            let time = facts.time();
            fchmod(&level.dir, Mode::from_bits_truncate(facts.mode))
                .and_then(|()| futimens(&level.dir, &time, &time))
                .map_err(|e| TreeError::path("set mode and time of the directories above", shown, e))?;
        }
        Ok(())
    }
}

/// A directory below another one, and whether it was made now.
fn open_or_make(above: BorrowedFd<'_>, name: &OsStr, mode: u32, shown: &Path) -> Result<(OwnedFd, bool), TreeError> {
    let made = mkdirat(above, name, Mode::from_bits_truncate(mode));
    // To search is enough where others made it; what was made here is written.
    let access = match made {
        Ok(()) => OFlag::O_RDONLY,
        Err(Errno::EEXIST) => OFlag::O_PATH,
        Err(error) => return Err(TreeError::path("make the directory for", shown, error)),
    };
    let flags = access | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(above, name, flags, Mode::empty()) {
        Ok(dir) => Ok((dir, made.is_ok())),
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            Err(TreeError::refused(shown, "a link or a file is in its way, and links are not followed"))
        }
        Err(error) => Err(TreeError::path("open the directory for", shown, error)),
    }
}
