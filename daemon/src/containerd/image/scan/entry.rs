//! What one entry of a layer may be.

use std::collections::HashSet;
use std::io::Read;

use tar::{Entry, EntryType};

use super::Finding;

/// Longest path, in bytes: what the kernel takes.
const MAX_PATH_LEN: usize = 4096;
/// Beginning of a name that removes another one from the layers below.
const WHITEOUT: &[u8] = b".wh.";
/// null, zero, full, random, urandom, tty, console and ptmx, by the kernel's
/// list of devices (Documentation/admin-guide/devices.txt).
const STANDARD_DEVICES: [(u32, u32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
/// Extended headers that hold attributes, of GNU tar and of libarchive.
const XATTRS: [&[u8]; 2] = [b"SCHILY.xattr.", b"LIBARCHIVE.xattr."];
/// Attributes in which overlayfs keeps its state.
const OVERLAYS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// Most climbing links of one layer: each is remembered while it is looked
/// through.
const MAX_CLIMBING: usize = 4096;
/// Longest path that an error quotes, in characters.
const MAX_QUOTED_CHARS: usize = 200;

/// Symbolic links of one layer whose relative targets climb above the root.
///
/// Real images have such links. Whoever follows one in a container gets to
/// the image's own root, as `..` of `/` is `/`. That a layer writes through
/// its own link of this kind is an attack on whoever unpacks it without such
/// a root, and no builder does it.
#[derive(Debug, Default)]
pub(super) struct Climbing(HashSet<Vec<u8>>);

impl Climbing {
    /// Whether a path leads through one of the links.
    fn is_above(&self, path: &[u8]) -> bool {
        !self.0.is_empty() && {
            let path = normal(path);
            let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
            ends.into_iter().any(|end| self.0.contains(&path[..end]))
        }
    }

    /// Notes a link; false if there are too many to be noted.
    fn add(&mut self, path: &[u8]) -> bool {
        self.0.insert(normal(path));
        self.0.len() <= MAX_CLIMBING
    }

    /// Another entry takes the place of a link.
    fn replace(&mut self, path: &[u8]) {
        if !self.0.is_empty() {
            self.0.remove(&normal(path));
        }
    }
}

/// The path without `.` and empty parts.
fn normal(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

/// Checks one entry. `climbing` is what earlier entries of the layer left.
///
/// # Errors
/// [`Finding::Entry`], with what is wrong.
pub(super) fn check<R: Read>(entry: &mut Entry<'_, R>, climbing: &mut Climbing) -> Result<(), Finding> {
    let path = entry.path_bytes().into_owned();
    if entry.header().entry_type().is_pax_global_extensions() {
        return Ok(());
    }
    match problem(entry, &path, climbing) {
        None => Ok(()),
        Some(problem) => {
            let path = String::from_utf8_lossy(&path).chars().take(MAX_QUOTED_CHARS).collect();
            Err(Finding::Entry { path, problem })
        }
    }
}

fn problem<R: Read>(entry: &mut Entry<'_, R>, path: &[u8], climbing: &mut Climbing) -> Option<&'static str> {
    let kind = entry.header().entry_type();
    if let Some(problem) = path_problem(path).or_else(|| extension_problem(entry)) {
        return Some(problem);
    }
    let through = "leads through a symbolic link that climbs above the image's root";
    if climbing.is_above(path) {
        return Some(through);
    }
    climbing.replace(path);
    let link = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Directory | EntryType::Fifo => {
            None
        }
        EntryType::Link if path_problem(&link).is_some() => Some("is a hard link to a path outside the image"),
        EntryType::Link if climbing.is_above(&link) => Some(through),
        EntryType::Link => None,
        EntryType::Symlink if link.len() > MAX_PATH_LEN => Some("is a link of more than 4096 bytes"),
        EntryType::Symlink if climbs_out(path, &link) && !climbing.add(path) => {
            Some("is one of more than 4096 symbolic links that climb above the image's root")
        }
        EntryType::Symlink => None,
        // overlayfs' own form of a whiteout.
        EntryType::Char if device(entry) == (0, 0) => None,
        // Debian's own root file systems come with these; a container has a
        // /dev of its own above them.
        EntryType::Char if is_below_dev(path) && STANDARD_DEVICES.contains(&device(entry)) => None,
        EntryType::Char | EntryType::Block => Some("is a device: sandboxes get theirs from the node"),
        _ => Some("is of a kind that layers do not have"),
    }
}

fn path_problem(path: &[u8]) -> Option<&'static str> {
    if path.len() > MAX_PATH_LEN {
        return Some("has a path of more than 4096 bytes");
    }
    if path.starts_with(b"/") {
        return Some("has an absolute path");
    }
    if path.split(|b| *b == b'/').any(|part| part == b"..") {
        return Some("has a path that leads out of the image");
    }
    let name = path.rsplit(|b| *b == b'/').find(|part| !part.is_empty()).unwrap_or_default();
    let removed = name.strip_prefix(WHITEOUT);
    removed.is_some_and(|removed| matches!(removed, b"" | b"." | b"..")).then_some("removes no name")
}

/// Whether a link's relative target climbs above the root, by its text alone.
/// Absolute ones are resolved inside the image by whoever follows them.
fn climbs_out(path: &[u8], target: &[u8]) -> bool {
    if target.starts_with(b"/") {
        return false;
    }
    let parts = |path: &'_ [u8]| path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").count();
    let mut depth = parts(path).saturating_sub(1);
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

/// Major and minor number; what is no number is none of the accepted ones.
fn device<R: Read>(entry: &Entry<'_, R>) -> (u32, u32) {
    let number = |number: std::io::Result<Option<u32>>| match number {
        Ok(number) => number.unwrap_or_default(),
        Err(_) => u32::MAX,
    };
    (number(entry.header().device_major()), number(entry.header().device_minor()))
}

fn is_below_dev(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    path.strip_prefix(b"dev/").is_some_and(|name| !name.is_empty() && !name.contains(&b'/'))
}

/// What extended headers may not say. The tar library does not know the newer
/// forms of sparse files, whose real size stands there only. overlayfs takes
/// its attributes for its own word: they could redirect a directory, or show
/// what another layer removed.
fn extension_problem<R: Read>(entry: &mut Entry<'_, R>) -> Option<&'static str> {
    for extension in entry.pax_extensions().ok()?? {
        let Ok(extension) = extension else { return Some("has an extended header that cannot be read") };
        let key = extension.key_bytes();
        if key.starts_with(b"GNU.sparse.") {
            return Some("is a sparse file of a form that is not accepted: pack the layer without --sparse");
        }
        let attribute = XATTRS.iter().find_map(|prefix| key.strip_prefix(*prefix)).unwrap_or_default();
        if OVERLAYS.iter().any(|prefix| attribute.starts_with(prefix)) {
            return Some("has an attribute that only overlayfs may set");
        }
    }
    None
}
