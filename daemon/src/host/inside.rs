//! Writing into a running container, as its own user would; whole trees, and
//! reading them, in [`copy`].
//!
//! Paths are resolved in the container's root and mounts: a link that the
//! sandbox made leads to a place of the sandbox. Each file is new and then
//! moved into its place, so that no file that exists, a file of the kernel's
//! among them, is ever opened for writing. The rights are those of the user.

#![allow(unsafe_code)]

pub mod copy;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Error;
use super::process::Process;

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Absolute path inside.
    pub path: PathBuf,
    /// Its content.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// Writes all files, in their order, into the container that the process is
/// of. `uid` and `gid` are those of its user as the host counts.
///
/// # Errors
/// The first file that the kernel refuses, by its path inside; those before
/// it are written.
pub fn write_files(process: &Process, uid: u32, gid: u32, files: &[NewFile]) -> Result<(), Error> {
    // Before the rights go: only root may look through another's root.
    let root = process.root()?;
    as_user(uid, gid, || files.iter().try_for_each(|file| write(&root, file)))
}

/// Runs `work` on a thread that has the file rights of a user, and no other.
fn as_user<T: Send, E: From<Error> + Send>(
    uid: u32,
    gid: u32,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    let on_thread = || {
        // SAFETY: plain system calls without memory. They concern this thread
        // alone, which ends with the work, and have no errors: a refused
        // change shows in the owner of the first file.
        unsafe {
            libc::setfsgid(gid);
            // Takes the capabilities over files with it.
            libc::setfsuid(uid);
        }
        drop_rights().map_err(|e| Error::call("drop the rights of a thread", e))?;
        work()
    };
    let result = std::thread::scope(|scope| scope.spawn(on_thread).join());
    result.unwrap_or_else(|_| Err(Error::Unfit("work in a sandbox panicked".into()).into()))
}

/// Takes groups and capabilities from this thread: with CAP_SYS_RESOURCE it
/// would write beyond quotas.
fn drop_rights() -> nix::Result<()> {
    // linux/capability.h: version 3, this thread; three words for each half.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    const NONE: [u32; 6] = [0; 6];
    // SAFETY: no groups, so nothing is read. The raw call is for this thread,
    // the library's is for all of them.
    let groups = unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) };
    nix::errno::Errno::result(groups)?;
    // SAFETY: both are as large as version 3 says and outlive the call.
    let capabilities = unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), NONE.as_ptr()) };
    nix::errno::Errno::result(capabilities).map(drop)
}

fn in_root(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

fn write(root: &OwnedFd, file: &NewFile) -> Result<(), Error> {
    let error = |e: nix::Error| Error::path("write in the sandbox", &file.path, e);
    let (Some(parent), Some(name)) = (file.path.parent(), file.path.file_name()) else {
        return Err(error(nix::Error::EISDIR));
    };
    if !file.path.is_absolute() || file.path.components().any(|part| part == Component::ParentDir) {
        return Err(error(nix::Error::EINVAL));
    }
    let dir = open_or_make(root, parent).map_err(error)?;
    // Not there yet, and nobody can guess it.
    let temporary = format!(".roost-{:016x}", rand::random::<u64>());
    let how = OpenHow::new()
        .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .mode(Mode::S_IRUSR | Mode::S_IWUSR);
    let made = openat2(dir.as_fd(), temporary.as_str(), how).map_err(error)?;
    let mut made = File::from(made);
    let written = made
        .write_all(&file.content)
        .map_err(|e| Error::path("write in the sandbox", &file.path, e))
        .and_then(|()| fchmod(&made, Mode::from_bits_truncate(file.mode)).map_err(error))
        .and_then(|()| renameat(dir.as_fd(), temporary.as_str(), dir.as_fd(), name).map_err(error));
    if written.is_err() {
        // The first failure is the one that counts.
        let _ = unlinkat(dir.as_fd(), temporary.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    written
}

/// A directory inside, made with those above it where it is missing.
fn open_or_make(root: &OwnedFd, dir: &Path) -> nix::Result<OwnedFd> {
    let inside = dir.strip_prefix("/").unwrap_or(dir);
    let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
    let open = || openat2(root.as_fd(), inside, in_root(OFlag::O_PATH | OFlag::O_DIRECTORY));
    match (open(), dir.parent(), dir.file_name()) {
        (Err(nix::Error::ENOENT), Some(above), Some(name)) => {
            let above = open_or_make(root, above)?;
            match mkdirat(above.as_fd(), name, Mode::from_bits_truncate(0o755)) {
                Err(error) if error != nix::Error::EEXIST => Err(error),
                _ => open(),
            }
        }
        (result, ..) => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::open;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    const UID: u32 = 1_234_567;

    /// Writes one file below a directory that plays the container's root.
    fn write_below(root: &Path, path: &str) -> Result<(), Error> {
        let file = NewFile { path: path.into(), content: b"new".to_vec(), mode: 0o640 };
        let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        as_user(UID, UID, || write(&root, &file))
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        super::super::files::set_mode(root.path(), 0o755).unwrap();
        super::super::files::create_owned_dir(&root.path().join("home"), 0o755, UID, UID).unwrap();
        root
    }

    #[test]
    fn a_file_is_the_users_and_whole_with_its_directories() {
        let root = root();
        write_below(root.path(), "/home/a/b/file").unwrap();
        let file = root.path().join("home/a/b/file");
        let meta = file.metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (UID, UID, 0o640));
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        write_below(root.path(), "/home/a/b/file").unwrap();
        assert_eq!(std::fs::read_dir(root.path().join("home/a/b")).unwrap().count(), 1, "nothing temporary stays");
    }

    #[test]
    fn a_link_of_the_sandbox_leads_nowhere_else() {
        let (root, outside) = (root(), tempfile::tempdir_in("/var/tmp").unwrap());
        super::super::files::set_mode(outside.path(), 0o777).unwrap();
        let home = root.path().join("home");
        symlink(outside.path(), home.join("absolute")).unwrap();
        symlink("../../../../../../../../../../var/tmp", home.join("climbing")).unwrap();
        for path in ["/home/absolute/x", "/home/climbing/x"] {
            // The target does not exist inside, and `/` is not the user's.
            assert!(write_below(root.path(), path).is_err(), "{path}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(!Path::new("/var/tmp/x").exists());
        // A link in the file's own place is replaced, not followed.
        std::fs::write(outside.path().join("kept"), "kept").unwrap();
        symlink(outside.path().join("kept"), home.join("link")).unwrap();
        write_below(root.path(), "/home/link").unwrap();
        assert_eq!(std::fs::read(outside.path().join("kept")).unwrap(), b"kept");
        assert!(home.join("link").symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn what_the_user_may_not_write_is_refused_by_path() {
        let root = root();
        let error = write_below(root.path(), "/etc/shadow").unwrap_err().to_string();
        assert!(error.contains("/etc/shadow"), "{error}");
        for path in ["/home/../x", "relative", "/"] {
            assert!(write_below(root.path(), path).is_err(), "{path}");
        }
    }
}
