//! Giving a directory to a container that runs, or is about to.
//!
//! A clone of the directory's mount, with the id mapping of the container's
//! user namespace, is moved into its mount namespace. The place is found step
//! by step without following a link: what the sandbox made cannot lead the
//! mount elsewhere. Directories that are missing are made with the rights of
//! the container's root or of its user.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fstat, mkdirat};

use super::{Error, mount};

/// `NS_GET_USERNS`, include/uapi/linux/nsfs.h.
const GET_OWNER: libc::c_ulong = 0xb701;
/// `MOVE_MOUNT_F_EMPTY_PATH` and `MOVE_MOUNT_T_EMPTY_PATH`: both ends are
/// descriptors.
const BOTH_BY_DESCRIPTOR: libc::c_uint = 0x04 | 0x40;

/// The container that is given directories.
#[derive(Debug, Clone)]
pub struct Container {
    /// A process in its mount namespace.
    pub pid: u32,
    /// Its pinned user namespace.
    pub user_namespace: PathBuf,
    /// What root inside is outside.
    pub root: (u32, u32),
    /// User and group of its program, outside.
    pub user: (u32, u32),
}

/// A directory to give.
#[derive(Debug, Clone)]
pub struct Given {
    /// Here; its files belong to ids as they count inside.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// Gives a container all of the directories; what it has already stays as it
/// is. Takes about a millisecond for each.
///
/// # Errors
/// The first that the kernel refuses, by its path inside; those before it are
/// given.
pub fn attach(container: &Container, given: &[Given]) -> Result<(), Error> {
    let open = |path: &Path| File::open(path).map_err(|e| Error::path("open", path, e));
    let user_namespace = open(&container.user_namespace)?;
    let mounts = open(Path::new(&format!("/proc/{}/ns/mnt", container.pid)))?;
    // A process id that was used again must not get somebody's files.
    if !is_owned_by(&mounts, &user_namespace)? {
        let gone = std::io::Error::new(std::io::ErrorKind::NotFound, "its process has ended");
        return Err(Error::call("enter the mounts of the container", gone));
    }
    let clones = given.iter().map(|one| {
        let facts = one.source.metadata().map_err(|e| Error::path("look at", &one.source, e))?;
        let clone = mount::clone_data(&one.source, user_namespace.as_fd(), one.read_only)?;
        Ok((one, clone, (facts.dev(), facts.ino())))
    });
    let clones = clones.collect::<Result<Vec<_>, Error>>()?;
    in_mounts_of(&mounts, || {
        clones.iter().try_for_each(|(one, clone, identity)| place(container, &one.target, clone, *identity))
    })
}

/// Whether a mount namespace belongs to a user namespace.
fn is_owned_by(mounts: &File, user_namespace: &File) -> Result<bool, Error> {
    // SAFETY: the descriptor is open; the request takes no argument.
    let fd = unsafe { libc::ioctl(mounts.as_raw_fd(), GET_OWNER as _) };
    if fd < 0 {
        return Err(Error::call("ask for the owner of a mount namespace", std::io::Error::last_os_error()));
    }
    // SAFETY: a non-negative result is a new descriptor that nobody else owns.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let identity = |file: &File| file.metadata().map(|facts| (facts.dev(), facts.ino()));
    let same = identity(&owner).and_then(|owner| Ok(owner == identity(user_namespace)?));
    same.map_err(|e| Error::call("look at a namespace", e))
}

/// Runs `work` on a thread of its own that sees the mounts of a namespace.
fn in_mounts_of<T: Send>(mounts: &File, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let on_thread = || {
        // Root and working directory must be the thread's own for that.
        unshare(CloneFlags::CLONE_FS)
            .and_then(|()| setns(mounts, CloneFlags::CLONE_NEWNS))
            .map_err(|e| Error::call("enter the mounts of the container", e))?;
        work()
    };
    let result = std::thread::scope(|scope| scope.spawn(on_thread).join());
    result.unwrap_or_else(|_| Err(Error::Unfit("attaching to a sandbox panicked".into())))
}

fn place(container: &Container, target: &Path, clone: &OwnedFd, identity: (u64, u64)) -> Result<(), Error> {
    let refused = |error: nix::Error| refusal(target, error);
    let dir = find_or_make(container, target)?;
    let facts = fstat(&dir).map_err(refused)?;
    if (facts.st_dev, facts.st_ino) == identity {
        return Ok(());
    }
    // SAFETY: both descriptors are open, both paths are empty C strings.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            clone.as_raw_fd(),
            c"".as_ptr(),
            dir.as_raw_fd(),
            c"".as_ptr(),
            BOTH_BY_DESCRIPTOR,
        )
    };
    nix::Error::result(rc).map(drop).map_err(refused)
}

/// What a refusal means to whoever chose the path.
fn refusal(target: &Path, error: nix::Error) -> Error {
    let path = target.display();
    match error {
        nix::Error::ELOOP => Error::Unfit(format!("{path} is a link or leads through one: name the directory itself")),
        nix::Error::ENOTDIR => Error::Unfit(format!("{path} is no directory, or leads through a file")),
        other => Error::path("attach in the sandbox at", target, other),
    }
}

/// The directory at `target`, made with those above it where it is missing.
fn find_or_make(container: &Container, target: &Path) -> Result<OwnedFd, Error> {
    let refused = |error: nix::Error| refusal(target, error);
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut dir = openat2(AT_FDCWD, "/", how).map_err(refused)?;
    let inside = target.strip_prefix("/").map_err(|_| refused(nix::Error::EINVAL))?;
    for part in inside.components() {
        let std::path::Component::Normal(name) = part else { return Err(refused(nix::Error::EINVAL)) };
        dir = match openat2(dir.as_fd(), name, how) {
            Err(nix::Error::ENOENT) => {
                make(container, &dir, name).map_err(refused)?;
                openat2(dir.as_fd(), name, how)
            }
            found => found,
        }
        .map_err(refused)?;
    }
    Ok(dir)
}

/// Makes a directory as root inside would, or else as the user.
fn make(container: &Container, dir: &OwnedFd, name: &std::ffi::OsStr) -> nix::Result<()> {
    let attempt = |(uid, gid): (u32, u32)| {
        set_file_ids(uid, gid);
        let made = mkdirat(dir.as_fd(), name, Mode::from_bits_truncate(0o755));
        set_file_ids(0, 0);
        made
    };
    match attempt(container.root).or_else(|_| attempt(container.user)) {
        // Somebody inside was quicker.
        Err(nix::Error::EEXIST) => Ok(()),
        made => made,
    }
}

/// The ids of this thread over files; with other ids than 0 its capabilities
/// over files are gone.
fn set_file_ids(uid: u32, gid: u32) {
    // SAFETY: plain system calls without memory, which concern this thread
    // alone. They have no errors.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::namespaces;
    use std::os::unix::fs::symlink;
    use std::process::{Child, Command, Stdio};

    const FIRST_ID: u32 = 1_300_000_000;
    const UID: u32 = 1000;

    /// A process with its own user and mount namespace, whose root is a
    /// directory of this test.
    struct Played {
        dir: tempfile::TempDir,
        child: Child,
    }

    impl Played {
        fn start() -> Self {
            let dir = tempfile::tempdir_in("/var/tmp").unwrap();
            super::super::files::set_mode(dir.path(), 0o711).unwrap();
            let (root, home) = (dir.path().join("root"), dir.path().join("home"));
            for path in [&root, &home] {
                std::fs::create_dir(path).unwrap();
            }
            // On disk, files belong to the ids inside.
            super::super::files::chown(&home, UID, UID).unwrap();
            super::super::files::chown(&root, FIRST_ID, FIRST_ID).unwrap();
            namespaces::create(&dir.path().join("ns"), FIRST_ID, "attach").unwrap();
            let out = dir.path().join("out");
            super::super::files::create_owned_dir(&out, 0o777, FIRST_ID, FIRST_ID).unwrap();
            // The shell stays: nothing else could be run in the empty root.
            let script = format!(
                "mount --bind {0} {0} && cd {0} && mkdir .old && pivot_root . .old && : >.old{1}/ready && read line",
                root.display(),
                out.display()
            );
            let child = Command::new("nsenter")
                .arg(format!("--user={}", dir.path().join("ns/user").display()))
                .args(["--setuid", "0", "--setgid", "0", "unshare", "--mount", "--propagation", "private"])
                .args(["/bin/sh", "-c", &script])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let played = Self { dir, child };
            let out = played.dir.path().join("out/ready");
            let is_ready = (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                out.exists()
            });
            assert!(is_ready, "the played container did not come up");
            played
        }

        fn container(&self) -> Container {
            let user = (FIRST_ID + UID, FIRST_ID + UID);
            let user_namespace = self.dir.path().join("ns/user");
            Container { pid: self.child.id(), user_namespace, root: (FIRST_ID, FIRST_ID), user }
        }

        fn give(&self, target: &str, read_only: bool) -> Result<(), Error> {
            let given = Given { source: self.dir.path().join("home"), target: target.into(), read_only };
            attach(&self.container(), &[given])
        }

        /// Lines of the container's mount table for a path inside.
        fn mounts(&self, target: &str) -> Vec<String> {
            let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", self.child.id())).unwrap();
            table.lines().filter(|line| line.split(' ').nth(4) == Some(target)).map(str::to_owned).collect()
        }

        fn root(&self) -> PathBuf {
            self.dir.path().join("root")
        }
    }

    impl Drop for Played {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            namespaces::remove(&self.dir.path().join("ns")).unwrap();
        }
    }

    #[test]
    fn a_directory_is_there_once_with_the_ids_of_inside_and_without_privileges() {
        let played = Played::start();
        for _ in 0..2 {
            played.give("/srv/data", false).unwrap();
        }
        let mounts = played.mounts("/srv/data");
        assert_eq!(mounts.len(), 1, "{mounts:?}");
        assert!(mounts[0].contains("nosuid") && mounts[0].contains("nodev") && mounts[0].contains("idmapped"));
        let seen = std::fs::metadata(format!("/proc/{}/root/srv/data", played.child.id())).unwrap();
        assert_eq!(seen.uid(), FIRST_ID + UID, "what belongs to a user on disk is the user's inside");
        played.give("/srv/more", true).unwrap();
        assert!(played.mounts("/srv/more")[0].split(' ').nth(5).unwrap().starts_with("ro"));
    }

    #[test]
    fn a_link_on_the_way_or_in_its_place_is_refused_and_nothing_is_made_behind_it() {
        let played = Played::start();
        let outside = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::create_dir(played.root().join("real")).unwrap();
        for (name, to) in [
            ("absolute", outside.path().to_path_buf()),
            ("inside", "/real".into()),
            ("climbing", "../../../../var/tmp".into()),
        ] {
            symlink(to, played.root().join(name)).unwrap();
            for path in [format!("/{name}"), format!("/{name}/new")] {
                let error = played.give(&path, false).unwrap_err().to_string();
                assert!(error.contains("link"), "{path}: {error}");
                assert!(played.mounts(&path).is_empty());
            }
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(played.root().join("real")).unwrap().count(), 0);
        std::fs::write(played.root().join("file"), "").unwrap();
        assert!(played.give("/file", false).unwrap_err().to_string().contains("no directory"));
    }

    #[test]
    fn a_process_of_somebody_else_gets_nothing() {
        let played = Played::start();
        let given = Given { source: played.dir.path().join("home"), target: "/srv".into(), read_only: false };
        let other = Container { pid: std::process::id(), ..played.container() };
        let error = attach(&other, &[given]).unwrap_err().to_string();
        assert!(error.contains("mounts of the container"), "{error}");
    }
}
