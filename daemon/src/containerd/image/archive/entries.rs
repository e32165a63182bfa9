//! What lies where in a tar file, read with suspicion.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use tar::{Archive, EntryType};

use super::ArchiveError;

/// Most entries of an archive: many times what images have.
const MAX_ENTRIES: usize = 16_384;
/// Longest path, in bytes.
const MAX_PATH_LEN: usize = 1_024;
/// Most header bytes before an entry's data. The tar library holds long names
/// and extended headers in memory whatever size they claim.
const MAX_HEADER_BYTES: u64 = 64 << 10;
/// Most links followed from one name.
const MAX_LINKS: usize = 8;

/// Where something lies in the file; always inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// First byte.
    pub(super) offset: u64,
    /// Length, in bytes.
    pub(super) size_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    File(Extent),
    /// Another path of the archive.
    Link(String),
}

/// The files and links of an archive by normalised path.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_path: HashMap<String, Entry>,
}

impl Entries {
    /// Reads all headers; data is skipped. Blocking.
    ///
    /// # Errors
    /// No tar, packed as a whole, cut off, or an entry that breaks a rule.
    pub(super) fn read(file: &File) -> Result<Self, ArchiveError> {
        let file_bytes = file.metadata().map_err(ArchiveError::Io)?.len();
        refuse_packed(file)?;
        let allowance = Rc::new(Cell::new(MAX_HEADER_BYTES));
        let mut reader = Metered { inner: file, allowance: Rc::clone(&allowance) };
        reader.rewind().map_err(ArchiveError::Io)?;
        let mut archive = Archive::new(reader);
        let mut entries = Self::default();
        for entry in archive.entries_with_seek().map_err(ArchiveError::NotTar)? {
            let entry = entry.map_err(ArchiveError::NotTar)?;
            let place = Extent { offset: entry.raw_file_position(), size_bytes: entry.size() };
            let link = entry.link_name_bytes();
            entries.add(&entry.path_bytes(), entry.header().entry_type(), link.as_deref(), place, file_bytes)?;
            allowance.set(MAX_HEADER_BYTES);
        }
        Ok(entries)
    }

    /// The file at a path, links followed.
    pub(super) fn find(&self, path: &str) -> Option<Extent> {
        let mut path = resolve("", path)?;
        for _ in 0..=MAX_LINKS {
            match self.by_path.get(&path)? {
                Entry::File(extent) => return Some(*extent),
                Entry::Link(target) => path.clone_from(target),
            }
        }
        None
    }

    fn add(
        &mut self,
        path: &[u8],
        kind: EntryType,
        link: Option<&[u8]>,
        place: Extent,
        file_bytes: u64,
    ) -> Result<(), ArchiveError> {
        let shown: String = String::from_utf8_lossy(path).chars().take(MAX_PATH_LEN).collect();
        let refuse = |problem| ArchiveError::Entry { path: shown.clone(), problem };
        let path = clean(path).map_err(refuse)?;
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let target = |base| {
            let target = link.and_then(|link| resolve(base, std::str::from_utf8(link).ok()?));
            target.map(Entry::Link).ok_or_else(|| refuse("a link may only lead to a path inside the archive"))
        };
        let entry = match kind {
            EntryType::Directory | EntryType::XGlobalHeader => return Ok(()),
            EntryType::Regular => Entry::File(inside(place, file_bytes).map_err(refuse)?),
            EntryType::Symlink => target(parent)?,
            EntryType::Link => target("")?,
            _ => return Err(refuse("only files, directories and links belong into an image archive")),
        };
        if self.by_path.len() >= MAX_ENTRIES {
            return Err(refuse("more entries than the 16384 that an image archive may have"));
        }
        match self.by_path.entry(path) {
            hash_map::Entry::Vacant(vacant) => vacant.insert(entry),
            hash_map::Entry::Occupied(_) => return Err(refuse("it is there twice")),
        };
        Ok(())
    }
}

/// The extent if the file holds all of it.
fn inside(place: Extent, file_bytes: u64) -> Result<Extent, &'static str> {
    match place.offset.checked_add(place.size_bytes) {
        Some(end) if end <= file_bytes => Ok(place),
        _ => Err("the archive is cut off inside it: send the archive again"),
    }
}

/// An entry's own path, normalised: it may not climb or be absolute.
fn clean(path: &[u8]) -> Result<String, &'static str> {
    let path = std::str::from_utf8(path).map_err(|_| "its path is not UTF-8")?;
    if path.len() > MAX_PATH_LEN {
        return Err("its path is longer than 1024 bytes");
    }
    if path.split('/').any(|part| part == "..") {
        return Err("its path contains \"..\"");
    }
    resolve("", path).ok_or("its path is absolute")
}

/// A path relative to a directory of the archive, normalised; none if it
/// leads out of the archive.
fn resolve(base: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.len() > MAX_PATH_LEN {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Tells archives that are packed as a whole by their first bytes.
fn refuse_packed(file: &File) -> Result<(), ArchiveError> {
    let mut first = [0; 6];
    let length = file.read_at(&mut first, 0).map_err(ArchiveError::Io)?;
    let (format, tool) = match &first[..length] {
        [0x1f, 0x8b, ..] => ("gzip", "gunzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("Zstandard", "unzstd"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => ("xz", "unxz"),
        [b'B', b'Z', b'h', ..] => ("bzip2", "bunzip2"),
        _ => return Ok(()),
    };
    Err(ArchiveError::Packed { format, tool })
}

/// A file that refuses to be read beyond an allowance, which is renewed for
/// each entry; seeking is free.
struct Metered<'a> {
    inner: &'a File,
    allowance: Rc<Cell<u64>>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let left = self.allowance.get().checked_sub(length as u64);
        let left = left.ok_or_else(|| io::Error::other("an entry's headers are larger than 64 KiB"))?;
        self.allowance.set(left);
        Ok(length)
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

#[cfg(test)]
mod tests;
