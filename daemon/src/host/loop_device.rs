//! Loop devices: a file as a disk.
//!
//! A device is freed by the kernel when its last mount goes, so that nothing
//! has to be remembered and a daemon that is killed leaves none behind.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::Error;

/// Requests of linux/loop.h.
const GET_FREE: libc::c_ulong = 0x4c82;
const CONFIGURE: libc::c_ulong = 0x4c0a;
const GET_STATUS: libc::c_ulong = 0x4c05;
const SET_CAPACITY: libc::c_ulong = 0x4c07;
/// `LO_FLAGS_AUTOCLEAR` and `LO_FLAGS_DIRECT_IO`: pages are cached once, in
/// the file system on the device, and charged to whoever wrote them.
const FLAGS: u32 = 4 | 16;
/// That of the file systems on these devices, in bytes.
const BLOCK_BYTES: u32 = 4096;
/// Somebody else may take the free device that was found.
const ATTEMPTS: u32 = 64;
/// How long an earlier mount of the same file may take to vanish, and between
/// two looks: the kernel ends a mount after its last process.
const VANISH: (u32, Duration) = (250, Duration::from_millis(20));

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

impl Info {
    fn new(flags: u32) -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            names: [0; 160],
            init: [0; 2],
        }
    }
}

/// A device with a file behind it; dropped before it is mounted, it is freed.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    file: File,
}

impl LoopDevice {
    /// The device that is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `image` a disk. A file that is one already is waited for: two
    /// mounts of one file system would destroy it.
    ///
    /// # Errors
    /// That it stays in use, or what the kernel refuses.
    pub fn attach(image: &Path) -> Result<Self, Error> {
        let file = open(image)?;
        for _ in 0..VANISH.0 {
            if find(image)?.is_none() {
                return configure(image, &file);
            }
            std::thread::sleep(VANISH.1);
        }
        Err(Error::path("attach to a loop device", image, Errno::EBUSY))
    }

    /// The device that `image` is behind, if any.
    ///
    /// # Errors
    /// When devices cannot be looked at.
    pub fn of(image: &Path) -> Result<Option<Self>, Error> {
        find(image)
    }

    /// Takes over a new size of the file.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn update_capacity(&self) -> Result<(), Error> {
        // SAFETY: the descriptor is open; the request takes no argument.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), SET_CAPACITY as _, 0) };
        Errno::result(result).map(drop).map_err(|e| Error::path("resize", &self.path, e))
    }
}

fn open(path: &Path) -> Result<File, Error> {
    File::options().read(true).write(true).open(path).map_err(|e| Error::path("open", path, e))
}

fn configure(image: &Path, file: &File) -> Result<LoopDevice, Error> {
    let control = open(Path::new("/dev/loop-control")).map_err(|error| match error {
        Error::Path { .. } => Error::Unfit("no loop devices: /dev/loop-control is not there, modprobe loop".into()),
        other => other,
    })?;
    let fd = u32::try_from(file.as_raw_fd()).map_err(|_| Error::path("attach", image, Errno::EBADF))?;
    for _ in 0..ATTEMPTS {
        // SAFETY: the descriptor is open; the request takes no argument.
        let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) })
            .map_err(|e| Error::call("find a free loop device", e))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path)?;
        let config = Config { fd, block_size: BLOCK_BYTES, info: Info::new(FLAGS), reserved: [0; 8] };
        // SAFETY: both descriptors are open, and the kernel reads exactly this
        // structure.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) };
        match Errno::result(result) {
            Ok(_) => return Ok(LoopDevice { path, file: device }),
            Err(Errno::EBUSY) => {}
            Err(error) => return Err(Error::path("attach to a loop device", image, error)),
        }
    }
    Err(Error::path("attach to a loop device", image, Errno::EBUSY))
}

/// Devices are asked which file they show: the names that sysfs has for it
/// belong to the mount namespace of whoever attached it.
fn find(image: &Path) -> Result<Option<LoopDevice>, Error> {
    let facts = std::fs::metadata(image).map_err(|e| Error::path("look at", image, e))?;
    let entries = std::fs::read_dir("/sys/block").map_err(|e| Error::path("read", "/sys/block", e))?;
    for entry in entries.flatten() {
        // The directory is there while a file is behind the device.
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b"loop") || !entry.path().join("loop").exists() {
            continue;
        }
        let path = Path::new("/dev").join(&name);
        // It may vanish meanwhile, and then shows no file.
        let Ok(file) = open(&path) else { continue };
        let mut info = Info::new(0);
        // SAFETY: the descriptor is open, and the kernel fills exactly this
        // structure.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), GET_STATUS as _, &raw mut info) };
        if Errno::result(result).is_ok() && (info.device, info.inode) == (facts.dev(), facts.ino()) {
            return Ok(Some(LoopDevice { path, file }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Info>(), size_of::<Config>()), (232, 304));
    }

    #[test]
    fn a_file_is_found_behind_its_device_and_freed_with_it() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        assert!(LoopDevice::of(&image).unwrap().is_none());
        let device = LoopDevice::attach(&image).unwrap();
        let found = LoopDevice::of(&image).unwrap().unwrap();
        assert_eq!(found.path(), device.path());
        drop((device, found));
        let freed = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            LoopDevice::of(&image).unwrap().is_none()
        });
        assert!(freed, "nothing is attached any more");
    }
}
