//! Users and groups of an image, by the files in its layers.
//!
//! The layers are foreign: links in them are resolved below the layer's own
//! root, never on the host.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::Error;

/// Largest account file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Largest id inside a sandbox: 65 536 ids are mapped.
const MAX_ID: u32 = 65_535;

/// Why an image's user cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The name is not in the image.
    #[error("the image's {file} has no \"{name}\": use a number, or add it to the image")]
    Unknown {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// The name.
        name: String,
    },
    /// The id cannot exist in a sandbox.
    #[error("id {id} is above {MAX_ID}, the largest id of a sandbox")]
    OutOfRange {
        /// The id.
        id: u32,
    },
    /// A layer cannot be read.
    #[error("the image's account files cannot be read")]
    Read(#[from] Error),
}

/// Who a program of an image runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Further groups inside.
    pub groups: Vec<u32>,
    /// Home directory; `/` when the image does not say.
    pub home: String,
    /// Name; empty when the image does not say.
    pub name: String,
}

/// Resolves `user[:group]`, each by name or number; empty means root.
/// `layers` come topmost first.
///
/// # Errors
/// See [`AccountError`].
pub fn resolve(layers: &[PathBuf], user: &str) -> Result<Account, AccountError> {
    let (user, group) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g)));
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read_from_layers(layers, "etc/passwd")?;
    let group_file = read_from_layers(layers, "etc/group")?;
    let by_name = |line: &&str| line.split(':').next() == Some(user);
    let by_id = |line: &&str| line.split(':').nth(2) == Some(user);
    let line = match user.parse::<u32>() {
        Ok(_) => passwd.lines().find(by_id),
        Err(_) => Some(passwd.lines().find(by_name).ok_or_else(|| unknown("/etc/passwd", user))?),
    };
    let fields: Vec<&str> = line.map(|l| l.split(':').collect()).unwrap_or_default();
    let number = |index: usize| fields.get(index).and_then(|f| f.parse::<u32>().ok());
    let uid = user.parse().ok().or_else(|| number(2)).ok_or_else(|| unknown("/etc/passwd", user))?;
    let gid = match group {
        Some(group) => group_id(&group_file, group)?,
        None => number(3).unwrap_or(0),
    };
    let name = fields.first().copied().unwrap_or_default().to_owned();
    let groups = if name.is_empty() { Vec::new() } else { groups_of(&group_file, &name, gid) };
    for id in [uid, gid].into_iter().chain(groups.iter().copied()) {
        if id > MAX_ID {
            return Err(AccountError::OutOfRange { id });
        }
    }
    let home = fields.get(5).copied().filter(|h| h.starts_with('/')).unwrap_or("/").to_owned();
    Ok(Account { uid, gid, groups, home, name })
}

fn unknown(file: &'static str, name: &str) -> AccountError {
    AccountError::Unknown { file, name: name.to_owned() }
}

fn group_id(group_file: &str, group: &str) -> Result<u32, AccountError> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let line = group_file.lines().find(|line| line.split(':').next() == Some(group));
    line.and_then(|l| l.split(':').nth(2)?.parse().ok()).ok_or_else(|| unknown("/etc/group", group))
}

/// Groups that list the user as a member.
fn groups_of(group_file: &str, name: &str, primary: u32) -> Vec<u32> {
    let is_member = |line: &&str| line.split(':').nth(3).is_some_and(|m| m.split(',').any(|n| n == name));
    let ids = group_file.lines().filter(is_member).filter_map(|l| l.split(':').nth(2)?.parse().ok());
    ids.filter(|&id| id != primary).collect()
}

/// A file from the topmost layer that has it; empty if none has.
fn read_from_layers(layers: &[PathBuf], path: &str) -> Result<String, Error> {
    for layer in layers {
        match open_below(layer, path) {
            Ok(fd) => {
                let mut bytes = Vec::new();
                let error = |e| Error::path("read", layer.join(path), e);
                File::from(fd).take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(error)?;
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ENXIO | nix::Error::ELOOP) => {}
            Err(e) => return Err(Error::path("open", layer.join(path), e)),
        }
    }
    Ok(String::new())
}

/// Opens a regular file below `root`, taking `root` for `/` in every link.
fn open_below(root: &Path, path: &str) -> Result<OwnedFd, nix::Error> {
    let dir =
        nix::fcntl::open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    // Non-blocking: the foreign file may be a FIFO.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let fd = openat2(&dir, path, how)?;
    let kind = nix::sys::stat::fstat(&fd)?.st_mode & nix::libc::S_IFMT;
    if kind == nix::libc::S_IFREG { Ok(fd) } else { Err(nix::Error::ENOENT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(passwd: &str, group: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("etc/group"), group).unwrap();
        dir
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nagent:x:1000:\naudio:x:29:agent,other\n";

    #[test]
    fn names_and_numbers_give_the_same_account() {
        let dir = layer(PASSWD, GROUP);
        let layers = [dir.path().to_owned()];
        let expected =
            Account { uid: 1000, gid: 1000, groups: vec![29], home: "/home/agent".into(), name: "agent".into() };
        for user in ["agent", "1000", "agent:agent", "1000:1000"] {
            assert_eq!(resolve(&layers, user).unwrap(), expected, "{user}");
        }
        assert_eq!(resolve(&layers, "").unwrap().home, "/root");
    }

    #[test]
    fn an_unknown_name_is_refused_and_an_unknown_number_is_not() {
        let dir = layer(PASSWD, GROUP);
        let layers = [dir.path().to_owned()];
        assert!(matches!(resolve(&layers, "nobody"), Err(AccountError::Unknown { .. })));
        assert_eq!(resolve(&layers, "4242").unwrap().uid, 4242);
        assert!(matches!(resolve(&layers, "70000"), Err(AccountError::OutOfRange { id: 70000 })));
    }

    #[test]
    fn a_link_in_a_layer_does_not_reach_the_host() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("etc")).unwrap();
        // Below the layer `/etc` is a link to itself: nothing is found.
        assert!(matches!(resolve(&[dir.path().to_owned()], "root"), Err(AccountError::Unknown { .. })));
    }
}
