//! The namespaces of a sandbox: user, network, IPC and UTS, made together and
//! pinned by bind mounts, so that they outlive every process in them.
//!
//! A child is the first member of all four; it sets the host name, brings up
//! `lo`, and ends once the namespaces are pinned. It makes them as the first id
//! of the sandbox and not as root: the kernel charges inotify instances and the
//! like of a user namespace to the id that made it, and the sandboxes of a node
//! must not share that account.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::{Error, files, mount};

/// Ids that one sandbox owns: 0-65535 inside, a range of its own outside.
pub const IDS_PER_SANDBOX: u32 = 65_536;

/// A kind of namespace that a sandbox owns as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Users and capabilities.
    User,
    /// Network.
    Net,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
}

impl Kind {
    /// All of them; the user namespace owns the others and comes first.
    pub const ALL: [Self; 4] = [Self::User, Self::Net, Self::Ipc, Self::Uts];

    /// Its name under `/proc/<pid>/ns` and in the pin directory.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
        }
    }
}

/// Path of one pinned namespace.
#[must_use]
pub fn pin(dir: &Path, kind: Kind) -> PathBuf {
    dir.join(kind.file_name())
}

/// Makes and pins all namespaces of a sandbox in `dir`.
///
/// `first_id` is what uid and gid 0 inside are outside. Takes about 1 ms.
///
/// # Errors
/// What the kernel refuses; nothing stays pinned then.
pub fn create(dir: &Path, first_id: u32, hostname: &str) -> Result<(), Error> {
    files::create_dir(dir, 0o711)?;
    let result = create_pins(dir, first_id, hostname);
    if result.is_err() {
        remove(dir)?;
    }
    result
}

/// Removes the pins and their directory; a namespace lives on while a process
/// is in it.
///
/// # Errors
/// What the kernel refuses.
pub fn remove(dir: &Path) -> Result<(), Error> {
    for kind in Kind::ALL {
        mount::unmount(&pin(dir, kind))?;
    }
    files::remove_tree(dir)
}

fn create_pins(dir: &Path, first_id: u32, hostname: &str) -> Result<(), Error> {
    let mut child = Child::spawn(first_id, hostname)?;
    let map = format!("0 {first_id} {IDS_PER_SANDBOX}\n");
    for name in ["uid_map", "gid_map"] {
        let path = child.proc_path(name);
        std::fs::write(&path, &map).map_err(|e| Error::path("write", path, e))?;
    }
    child.go_on()?;
    for kind in Kind::ALL {
        let target = pin(dir, kind);
        files::write(&target, b"", 0o600)?;
        mount::bind(&child.proc_path(&format!("ns/{}", kind.file_name())), &target)?;
    }
    Ok(())
}

/// The first process of the new namespaces. Dropping it ends and reaps it.
struct Child {
    pid: libc::pid_t,
    /// `g` here lets the child go on, anything else ends it.
    go: Option<OwnedFd>,
    /// The child's errno after each step as four bytes, 0 for success.
    done: File,
}

impl Child {
    /// A child that is in its new namespaces.
    fn spawn(first_id: u32, hostname: &str) -> Result<Self, Error> {
        use nix::unistd::pipe2;
        let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| Error::call("make a pipe", e));
        let ((go_read, go_write), (done_read, done_write)) = (pipe()?, pipe()?);
        let ends = ChildEnds { go: go_read.as_raw_fd(), done: done_write.as_raw_fd(), parent: go_write.as_raw_fd() };
        // SAFETY: without CLONE_VM this is fork: the child has its own copy of
        // the memory. It only makes system calls on what was prepared above
        // (no allocation, no locks), and ends by _exit.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        match pid {
            0 => child_main(ends, first_id, hostname.as_bytes()),
            -1 => Err(Error::call("fork", std::io::Error::last_os_error())),
            pid => {
                let pid = libc::pid_t::try_from(pid).map_err(|_| Error::call("fork", nix::Error::ERANGE))?;
                drop(done_write);
                let mut child = Self { pid, go: Some(go_write), done: File::from(done_read) };
                child.answer("make namespaces")?;
                Ok(child)
            }
        }
    }

    fn proc_path(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.pid).into()
    }

    /// Lets the child set up host name and loopback.
    fn go_on(&mut self) -> Result<(), Error> {
        if let Some(go) = &self.go {
            let mut go = File::from(go.try_clone().map_err(|e| Error::call("copy a pipe", e))?);
            go.write_all(b"g").map_err(|e| Error::call("start the namespace child", e))?;
        }
        self.answer("set up host name and loopback")
    }

    /// Takes the child's answer to a step.
    fn answer(&mut self, operation: &'static str) -> Result<(), Error> {
        let mut answer = [0; 4];
        self.done.read_exact(&mut answer).map_err(|e| Error::call("hear from the namespace child", e))?;
        match i32::from_ne_bytes(answer) {
            0 => Ok(()),
            errno => Err(Error::call(operation, std::io::Error::from_raw_os_error(errno))),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A byte rather than only the end of the pipe: a child of a parallel
        // call may hold a copy of our end for another millisecond.
        if let Some(go) = self.go.take()
            && let Err(error) = File::from(go).write_all(b"e")
        {
            tracing::debug!(pid = self.pid, %error, "namespace child was gone already");
        }
        if let Err(error) = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(self.pid), None) {
            tracing::warn!(pid = self.pid, %error, "namespace child could not be reaped");
        }
    }
}

/// The child's view of the pipes.
#[derive(Clone, Copy)]
struct ChildEnds {
    go: RawFd,
    done: RawFd,
    /// The parent's end of `go`, of which the child has a copy.
    parent: RawFd,
}

/// What the child does. Only system calls: it is a fork of a process with
/// many threads, whose locks may be held for ever in this copy.
fn child_main(ends: ChildEnds, first_id: u32, hostname: &[u8]) -> ! {
    // SAFETY: plain system calls on descriptors and memory of this process.
    unsafe {
        // Without our own copy of the parent's end, its close reads as the end.
        libc::close(ends.parent);
        // Nor may it hold what is the daemon's: the ends of a parallel call's
        // pipes, with which two children of a killed daemon would keep each
        // other alive, and the lock of the root, which its successor takes.
        close_others(ends);
        let go_on = || {
            let mut byte = 0_u8;
            libc::read(ends.go, (&raw mut byte).cast(), 1) == 1 && byte == b'g'
        };
        let answer = |result: Result<(), i32>| {
            let bytes = result.err().unwrap_or(0).to_ne_bytes();
            libc::write(ends.done, bytes.as_ptr().cast(), bytes.len());
            result.is_ok()
        };
        if answer(enter_namespaces(first_id)) && go_on() && answer(set_up_namespaces(hostname)) {
            // Stays until the namespaces are pinned.
            go_on();
        }
        libc::_exit(0)
    }
}

/// Closes every descriptor but the child's two ends and the standard ones.
fn close_others(ends: ChildEnds) {
    let (low, high) = (ends.go.min(ends.done), ends.go.max(ends.done));
    // Descriptors are not negative: nothing is lost.
    let range = |first: RawFd, last: RawFd| (first.cast_unsigned(), last.cast_unsigned());
    for (first, last) in [range(3, low - 1), range(low + 1, high - 1), range(high + 1, RawFd::MAX)] {
        if first <= last {
            // SAFETY: a plain system call, on descriptors that this process
            // does not use. Linux 5.9 has it, and idmapped mounts need 5.12.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// `SECBIT_NO_SETUID_FIXUP`, include/uapi/linux/securebits.h: the change of
/// ids leaves the capabilities, so that hosts which forbid user namespaces to
/// users without them allow this one.
const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;

/// Becomes the first id of the sandbox and makes the namespaces; the errno of
/// the first failure.
fn enter_namespaces(first_id: u32) -> Result<(), i32> {
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: plain system calls. The raw ones, because the C library's would
    // signal the other threads, which do not exist in this copy.
    unsafe {
        let check = |rc: libc::c_long| if rc < 0 { Err(*libc::__errno_location()) } else { Ok(()) };
        check(libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP).into())?;
        check(libc::syscall(libc::SYS_setresgid, first_id, first_id, first_id))?;
        check(libc::syscall(libc::SYS_setresuid, first_id, first_id, first_id))?;
        check(libc::unshare(flags).into())
    }
}

/// Sets the host name and brings up `lo`; the errno of the first failure.
fn set_up_namespaces(hostname: &[u8]) -> Result<(), i32> {
    // SAFETY: plain system calls; the request struct is fully initialised and
    // outlives the calls.
    unsafe {
        let errno = || *libc::__errno_location();
        if libc::sethostname(hostname.as_ptr().cast(), hostname.len()) != 0 {
            return Err(errno());
        }
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(errno());
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result =
            if libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) == 0 { Ok(()) } else { Err(errno()) };
        libc::close(socket);
        result
    }
}

/// Opens the pinned user namespace, for id-mapped mounts.
///
/// # Errors
/// When it is not pinned there.
pub fn open_user(dir: &Path) -> Result<OwnedFd, Error> {
    let path = pin(dir, Kind::User);
    File::open(&path).map(OwnedFd::from).map_err(|e| Error::path("open", path, e))
}

/// Gives a sandbox another host name, in its pinned namespace.
///
/// # Errors
/// When it is not pinned there, or the kernel refuses the name.
pub fn set_hostname(dir: &Path, hostname: &str) -> Result<(), Error> {
    let path = pin(dir, Kind::Uts);
    let namespace = File::open(&path).map_err(|e| Error::path("open", &path, e))?;
    let on_thread = || {
        // Of this thread alone, which ends here.
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWUTS)
            .and_then(|()| nix::unistd::sethostname(hostname))
            .map_err(|e| Error::path("set the host name in", &path, e))
    };
    let result = std::thread::scope(|scope| scope.spawn(on_thread).join());
    result.unwrap_or_else(|_| Err(Error::Unfit("setting a host name panicked".into())))
}

/// Whether all namespaces of `dir` are pinned there.
///
/// # Errors
/// When the mount table cannot be read.
pub fn are_pinned(dir: &Path) -> Result<bool, Error> {
    let points = mount::mounts_under(dir)?;
    Ok(Kind::ALL.iter().all(|&kind| points.contains(&pin(dir, kind))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(path: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn pinned_namespaces_are_new_and_vanish_with_their_pins() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("ns");
        create(&dir, 1_000_000, "sbx-test").unwrap();
        for kind in Kind::ALL {
            let own = PathBuf::from(format!("/proc/self/ns/{}", kind.file_name()));
            assert_ne!(ns(&pin(&dir, kind)), ns(&own), "{kind:?}");
        }
        assert!(are_pinned(&dir).unwrap());
        remove(&dir).unwrap();
        assert!(!dir.exists());
        assert_eq!(mount::mounts_under(root.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_child_holds_nothing_of_the_daemons() {
        // As the lock of the root, a listener and the pipes of parallel calls.
        let held: Vec<File> = (0..8).map(|_| File::open("/proc/self/status").unwrap()).collect();
        let child = Child::spawn(1_000_000, "sbx-test").unwrap();
        let fds = std::fs::read_dir(format!("/proc/{}/fd", child.pid)).unwrap();
        let numbers: Vec<i32> = fds.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        let own = numbers.iter().filter(|fd| **fd > 2).count();
        assert_eq!(own, 2, "the ends of its two pipes, and none of {}: {numbers:?}", held.len());
    }

    #[test]
    fn a_user_namespace_belongs_to_the_first_id_of_its_sandbox() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("ns");
        create(&dir, 1_000_000, "sbx-test").unwrap();
        let namespace = File::open(pin(&dir, Kind::User)).unwrap();
        let mut owner: libc::uid_t = 0;
        // NS_GET_OWNER_UID, include/uapi/linux/nsfs.h.
        // SAFETY: the descriptor is open and the kernel writes one uid.
        let rc = unsafe { libc::ioctl(namespace.as_raw_fd(), 0xb704, &raw mut owner) };
        assert_eq!((rc, owner), (0, 1_000_000));
        remove(&dir).unwrap();
    }

    #[test]
    fn a_host_name_changes_in_its_sandbox_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("ns");
        create(&dir, 1_000_000, "before").unwrap();
        let own = nix::unistd::gethostname().unwrap();
        set_hostname(&dir, "after").unwrap();
        let inside = std::thread::scope(|scope| {
            let look = || {
                let namespace = File::open(pin(&dir, Kind::Uts)).unwrap();
                nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWUTS).unwrap();
                nix::unistd::gethostname().unwrap()
            };
            scope.spawn(look).join().unwrap()
        });
        assert_eq!(inside, "after");
        assert_eq!(nix::unistd::gethostname().unwrap(), own);
        remove(&dir).unwrap();
    }

    #[test]
    fn a_failed_set_up_leaves_no_pin() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("ns");
        // The kernel refuses host names above 64 bytes.
        assert!(create(&dir, 1_000_000, &"x".repeat(65)).is_err());
        assert!(!dir.exists());
    }
}
