//! Writes the tree of an archive.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::{UtimensatFlags, fstatat, utimensat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};
use tar::{Archive, Entry, EntryType};

use super::file::{self, Temporary};
use super::input::{Input, Seen};
use super::level::{Facts, Levels};
use super::{Target, TreeError, name};
use crate::model::CopyReport;

/// Bits that make a program run as its owner or group.
const SET_ID_BITS: u32 = 0o6000;

/// What is taken over from an archive.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Files of this owner keep their setuid and setgid bits.
    pub set_id_of: Option<u64>,
}

/// Unpacks an archive to its end. `step` sees how far it is.
///
/// # Errors
/// See [`TreeError`]. What was written before stays, in whole files.
pub fn unpack(
    from: impl Read,
    target: &Target,
    rules: Rules,
    step: &mut dyn FnMut(&CopyReport),
) -> Result<CopyReport, TreeError> {
    let (input, seen) = Input::new(from);
    let mut archive = Archive::new(input);
    let mut unpacker = Unpacker {
        target,
        rules,
        seen: &seen,
        step,
        levels: Levels::new(target.dir.as_fd()),
        top: None,
        report: CopyReport::default(),
    };
    let done = unpacker.all(&mut archive);
    // Directories get their bits also when something failed.
    let left = unpacker.levels.leave(0, &target.path);
    let report = unpacker.report;
    done.and(left)?;
    archive.into_inner().finish()?;
    Ok(report)
}

/// The top entry of an archive whose top is renamed.
#[derive(Debug, PartialEq, Eq)]
enum Top {
    /// `.`: everything lies in the new name.
    Itself,
    /// A name that is replaced.
    Named(OsString),
}

struct Unpacker<'a> {
    target: &'a Target,
    rules: Rules,
    seen: &'a Seen,
    step: &'a mut dyn FnMut(&CopyReport),
    levels: Levels<'a>,
    top: Option<Top>,
    report: CopyReport,
}

impl Unpacker<'_> {
    fn all<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<(), TreeError> {
        let mut entries = archive.entries().map_err(|e| self.seen.explain(e))?;
        loop {
            self.seen.at_header();
            let Some(entry) = entries.next() else { return Ok(()) };
            let mut entry = entry.map_err(|e| self.seen.explain(e))?;
            self.entry(&mut entry)?;
            (self.step)(&self.report);
        }
    }

    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), TreeError> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let full = entry.path_bytes().into_owned();
        let names = self.place(&full)?;
        let shown = names.iter().fold(self.target.path.clone(), |path, name| path.join(name));
        self.refuse_sparse(entry, &shown)?;
        let is_dir = kind.is_dir() || (kind.is_file() && full.ends_with(b"/"));
        let facts = self.facts(entry, is_dir)?;
        let Some((name, above)) = names.split_last() else {
            // The target itself: it is there and stays as it is.
            return if is_dir { Ok(()) } else { Err(TreeError::refused(shown, "the target is a directory")) };
        };
        self.levels.enter(above, &shown)?;
        match kind {
            _ if is_dir => {
                self.levels.describe(name, facts, &shown)?;
                self.report.directories += 1;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, name, facts, &shown)?;
            }
            EntryType::Symlink => self.symbolic_link(entry, name, facts, &shown)?,
            EntryType::Link => self.hard_link(entry, name, &shown)?,
            EntryType::Fifo => return Err(TreeError::refused(shown, "it is a FIFO")),
            EntryType::Char | EntryType::Block => return Err(TreeError::refused(shown, "it is a device")),
            _ => return Err(TreeError::refused(shown, "it is of a kind that is not copied")),
        }
        Ok(())
    }

    /// Where below the target something lies.
    fn place(&mut self, full: &[u8]) -> Result<Vec<OsString>, TreeError> {
        let names = name::parts(full)?;
        let Some(rename) = &self.target.rename else { return Ok(names) };
        let top = match names.first() {
            None => Top::Itself,
            Some(first) => Top::Named(first.clone()),
        };
        let known = self.top.get_or_insert(top);
        let rest = match (&*known, names.split_first()) {
            (Top::Itself, _) => names.as_slice(),
            (Top::Named(known), Some((first, rest))) if known == first => rest,
            (Top::Named(_), _) => {
                let reason = "the archive has more than one top entry, and the target is no directory";
                return Err(TreeError::refused(name::shown(full), reason));
            }
        };
        Ok(std::iter::once(rename).chain(rest).cloned().collect())
    }

    /// Such files would come out as something else.
    fn refuse_sparse<R: Read>(&self, entry: &mut Entry<'_, R>, shown: &Path) -> Result<(), TreeError> {
        let extensions = entry.pax_extensions().map_err(|e| self.seen.explain(e))?;
        let is_sparse = extensions
            .into_iter()
            .flatten()
            .any(|extension| extension.is_ok_and(|e| e.key_bytes().starts_with(b"GNU.sparse.")));
        if is_sparse {
            return Err(TreeError::refused(shown, "it is sparse in a form that is not read: use tar --format=gnu"));
        }
        Ok(())
    }

    fn facts<R: Read>(&self, entry: &Entry<'_, R>, is_dir: bool) -> Result<Facts, TreeError> {
        let header = entry.header();
        let read = || {
            let keeps = header.uid().is_ok_and(|uid| self.rules.set_id_of == Some(uid));
            let dropped = if keeps { 0 } else { SET_ID_BITS };
            let sticky = if is_dir { 0 } else { 0o1000 };
            let mode = header.mode()? & 0o7777 & !dropped & !sticky;
            Ok(Facts { mode, mtime_s: i64::try_from(header.mtime()?).unwrap_or(i64::MAX) })
        };
        read().map_err(|e| self.seen.explain(e))
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        name: &OsStr,
        facts: Facts,
        shown: &Path,
    ) -> Result<(), TreeError> {
        let size = entry.size();
        let Self { levels, seen, step, report, .. } = self;
        file::write((levels.dir(), name), (entry, size, seen), facts, shown, |bytes| {
            report.bytes += bytes;
            step(report);
        })?;
        self.report.files += 1;
        Ok(())
    }

    fn symbolic_link<R: Read>(
        &mut self,
        entry: &Entry<'_, R>,
        name: &OsStr,
        facts: Facts,
        shown: &Path,
    ) -> Result<(), TreeError> {
        let to = entry.link_name_bytes().filter(|to| !to.is_empty());
        let to = to.ok_or_else(|| TreeError::refused(shown, "it is a link to nothing"))?;
        let failed = |e| TreeError::path("make link", shown, e);
        let dir = self.levels.dir();
        let temporary = Temporary::new(dir);
        symlinkat(OsStr::from_bytes(&to), dir, temporary.name()).map_err(failed)?;
        let time = facts.time();
        utimensat(dir, temporary.name(), &time, &time, UtimensatFlags::NoFollowSymlink).map_err(failed)?;
        temporary.rename(name, shown)?;
        self.report.links += 1;
        Ok(())
    }

    /// One more name of a file of the tree.
    fn hard_link<R: Read>(&mut self, entry: &Entry<'_, R>, name: &OsStr, shown: &Path) -> Result<(), TreeError> {
        let outside = || TreeError::refused(shown, "it is a link to a file that is not in the tree");
        let to = entry.link_name_bytes().ok_or_else(outside)?;
        let to = self.place(&to).map_err(|_| outside())?;
        let (last, above) = to.split_last().ok_or_else(outside)?;
        let above: PathBuf = std::iter::once(OsString::from(".")).chain(above.iter().cloned()).collect();
        // Beneath the target, and through no link.
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let above = openat2(&self.target.dir, &above, how).map_err(|_| outside())?;
        let facts = fstatat(&above, last.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|_| outside())?;
        if facts.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(outside());
        }
        let dir = self.levels.dir();
        let temporary = Temporary::new(dir);
        let failed = |e| TreeError::path("link", shown, e);
        linkat(&above, last.as_os_str(), dir, temporary.name(), AtFlags::empty()).map_err(failed)?;
        let leftover = temporary.name().to_owned();
        temporary.rename(name, shown)?;
        // Where both names are of one file already, a rename leaves both.
        let _ = unlinkat(dir, leftover.as_str(), UnlinkatFlags::NoRemoveDir);
        self.report.links += 1;
        Ok(())
    }
}
