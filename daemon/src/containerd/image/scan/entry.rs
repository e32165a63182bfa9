//! What one entry of a layer may be.

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
/// Longest path that an error quotes, in characters.
const MAX_QUOTED_CHARS: usize = 200;

/// Checks one entry.
///
/// # Errors
/// [`Finding::Entry`], with what is wrong.
pub(super) fn check<R: Read>(entry: &mut Entry<'_, R>) -> Result<(), Finding> {
    let path = entry.path_bytes().into_owned();
    let kind = entry.header().entry_type();
    let refuse = |problem| {
        let path = String::from_utf8_lossy(&path).chars().take(MAX_QUOTED_CHARS).collect();
        Err(Finding::Entry { path, problem })
    };
    if kind.is_pax_global_extensions() {
        return Ok(());
    }
    if let Some(problem) = path_problem(&path) {
        return refuse(problem);
    }
    if has_unknown_sparse(entry) {
        return refuse("is a sparse file of a form that is not accepted: pack the layer without --sparse");
    }
    let link = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Directory | EntryType::Fifo => {
            Ok(())
        }
        EntryType::Link => match path_problem(&link) {
            Some(_) => refuse("is a hard link to a path outside the image"),
            None => Ok(()),
        },
        EntryType::Symlink if climbs_out(&path, &link) => refuse("is a symbolic link that leads out of the image"),
        EntryType::Symlink => Ok(()),
        // overlayfs' own form of a whiteout.
        EntryType::Char if device(entry) == (0, 0) => Ok(()),
        // Debian's own root file systems come with these; a container has a
        // /dev of its own above them.
        EntryType::Char if is_below_dev(&path) && STANDARD_DEVICES.contains(&device(entry)) => Ok(()),
        EntryType::Char | EntryType::Block => refuse("is a device: sandboxes get theirs from the node"),
        _ => refuse("is of a kind that layers do not have"),
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

/// Whether a link's relative target climbs above the root. Absolute ones are
/// resolved inside the image by whoever follows them.
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

/// The tar library does not know the newer forms of sparse files, whose real
/// size stands in extended headers only.
fn has_unknown_sparse<R: Read>(entry: &mut Entry<'_, R>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else { return false };
    extensions.into_iter().any(|extension| match extension {
        Ok(extension) => extension.key_bytes().starts_with(b"GNU.sparse."),
        Err(_) => true,
    })
}
