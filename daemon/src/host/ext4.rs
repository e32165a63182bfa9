//! File systems in files: made, copied, mounted, grown.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::Whence;

use super::Error;
use super::loop_device::LoopDevice;

/// Block size of every file system that is made here, in bytes.
const BLOCK_BYTES: u64 = 4096;
/// Bytes for each inode that a file system has room for: half of mke2fs's own
/// figure, as desktops hold many small files.
pub const BYTES_PER_INODE: u64 = 8192;
/// `EXT4_IOC_RESIZE_FS`, linux/ext4.h.
const RESIZE: libc::c_ulong = 0x4008_6610;
/// `FICLONE`, linux/fs.h.
const CLONE: libc::c_ulong = 0x4004_9409;
/// Nothing fills the tables of a sparse file in the background; what programs
/// remove is given back to the file's own file system.
const OPTIONS: &str = "noinit_itable,discard,errors=remount-ro";

/// Makes a sparse file of `bytes` with an empty file system in it. Takes some
/// 20 ms.
///
/// # Errors
/// That mkfs.ext4 is not installed, or what it says.
pub fn make(image: &Path, bytes: u64) -> Result<(), Error> {
    let file = File::create(image).map_err(|e| Error::path("create", image, e))?;
    file.set_len(bytes).map_err(|e| Error::path("size", image, e))?;
    let per_inode = BYTES_PER_INODE.to_string();
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-m", "0", "-b", "4096", "-J", "size=8", "-i", &per_inode]);
    command.args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]).arg(image);
    run(&mut command, 0)
}

/// Runs one of the programs of e2fsprogs; exit codes up to `most` are success.
fn run(command: &mut Command, most: i32) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Unfit(format!("{program} is not there: install e2fsprogs, disk limits need it on this node"))
        }
        _ => Error::path("run", &program, e),
    })?;
    if output.status.code().is_some_and(|code| (0..=most).contains(&code)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::path("run", &program, std::io::Error::other(said.trim().to_owned())))
}

/// Copies a sparse file, by reference where the file system can, else only
/// what is not a hole.
///
/// # Errors
/// What the kernel refuses.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<(), Error> {
    let source = File::open(from).map_err(|e| Error::path("open", from, e))?;
    let target = File::create(to).map_err(|e| Error::path("create", to, e))?;
    // SAFETY: both descriptors are open; the argument is the source's.
    if unsafe { libc::ioctl(target.as_raw_fd(), CLONE as _, source.as_raw_fd()) } == 0 {
        return Ok(());
    }
    copy_data(&source, &target).map_err(|e| Error::path("copy to", to, e))
}

fn copy_data(source: &File, target: &File) -> std::io::Result<()> {
    let len = i64::try_from(source.metadata()?.len()).map_err(std::io::Error::other)?;
    target.set_len(source.metadata()?.len())?;
    let mut end = 0;
    while end < len {
        let mut begin = match nix::unistd::lseek(source, end, Whence::SeekData) {
            Ok(begin) => begin,
            // Nothing but a hole follows.
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        end = nix::unistd::lseek(source, begin, Whence::SeekHole)?;
        let mut out = begin;
        while begin < end {
            let left = usize::try_from(end - begin).map_err(std::io::Error::other)?;
            let copied = nix::fcntl::copy_file_range(source, Some(&mut begin), target, Some(&mut out), left)?;
            if copied == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    Ok(())
}

/// Mounts the file system in `image` on `target`, an existing directory. The
/// loop device goes with the mount.
///
/// # Errors
/// What the kernel refuses; nothing stays attached then.
pub fn mount_image(image: &Path, target: &Path) -> Result<(), Error> {
    let device = LoopDevice::attach(image)?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
    mount(Some(device.path()), target, Some("ext4"), flags, Some(OPTIONS))
        .map_err(|e| Error::path("mount ext4 on", target, e))
}

fn set_len(image: &Path, bytes: u64) -> Result<(), Error> {
    let set = File::options().write(true).open(image).and_then(|file| file.set_len(bytes));
    set.map_err(|e| Error::path("size", image, e))
}

/// Grows a file and the file system in it to `bytes`, while nobody uses it.
/// Takes some 50 ms.
///
/// # Errors
/// That the programs are not installed, or what they say.
pub fn grow_unused(image: &Path, bytes: u64) -> Result<(), Error> {
    set_len(image, bytes)?;
    // Asked for by resize2fs; 1 means that something was mended.
    run(Command::new("e2fsck").args(["-f", "-p"]).arg(image), 1)?;
    run(Command::new("resize2fs").arg(image), 0)
}

/// Grows a mounted file system and its file to `bytes`; what uses it goes on.
///
/// # Errors
/// What the kernel refuses: without CAP_SYS_RESOURCE, all of it. The file then
/// is as it was.
pub fn grow_mounted(image: &Path, mounted: &Path, bytes: u64) -> Result<(), Error> {
    let before = std::fs::metadata(image).map_err(|e| Error::path("look at", image, e))?.len();
    let device = LoopDevice::of(image)?.ok_or_else(|| Error::path("grow", image, Errno::ENXIO))?;
    let resize = |to: u64| set_len(image, to).and_then(|()| device.update_capacity());
    resize(bytes)?;
    let grown = resize_file_system(image, mounted, bytes);
    if grown.is_err() {
        resize(before)?;
    }
    grown
}

fn resize_file_system(image: &Path, mounted: &Path, bytes: u64) -> Result<(), Error> {
    let top = File::open(mounted).map_err(|e| Error::path("open", mounted, e))?;
    let blocks = bytes / BLOCK_BYTES;
    // SAFETY: the descriptor is open, and the kernel reads one number of 64
    // bits.
    let result = unsafe { libc::ioctl(top.as_raw_fd(), RESIZE as _, &raw const blocks) };
    Errno::result(result).map(drop).map_err(|e| match e {
        Errno::EPERM => Error::Unfit(
            "a disk limit cannot be raised under way without CAP_SYS_RESOURCE, which roostd lacks: it is raised with \
             the next start of the sandbox"
                .into(),
        ),
        _ => Error::path("grow", image, e),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        make(&from, 1 << 30).unwrap();
        copy_sparse(&from, &to).unwrap();
        let facts = std::fs::metadata(&to).unwrap();
        assert_eq!(facts.len(), 1 << 30);
        assert!(facts.blocks() * 512 < 32 << 20, "{} bytes on the disk", facts.blocks() * 512);
        let same = Command::new("cmp").arg(&from).arg(&to).status().unwrap();
        assert!(same.success());
        let checked = Command::new("e2fsck").args(["-fn"]).arg(&to).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }

    #[test]
    fn a_path_that_cannot_be_made_is_named() {
        let error = make(Path::new("/nowhere/image"), 1 << 26).unwrap_err();
        assert!(error.to_string().contains("/nowhere/image"), "{error}");
    }

    #[test]
    fn a_program_that_fails_tells_what_it_said() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, "no file system").unwrap();
        let error = grow_unused(&image, 1 << 26).unwrap_err();
        assert!(error.to_string().contains("e2fsck"), "{error}");
    }
}
