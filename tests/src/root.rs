//! The temporary root of one test.

use std::path::{Path, PathBuf};

use crate::Result;

/// A directory that is unmounted and removed with its owner.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// Makes a new one, on a disk: an overlay needs a file system that can
    /// be its upper side.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn create() -> Result<Self> {
        let base = std::env::var_os("ROOST_TEST_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        Self::at(&base.join(format!("roost-{:08x}", rand_u32())))
    }

    /// Makes it at a path of the caller's choice.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn at(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Mounts a file of `mib` as a disk with ext4; whoever owns `target` unmounts
/// it.
///
/// # Errors
/// When this machine cannot do it.
pub fn mount_disk(file: &Path, target: &Path, mib: u64) -> Result<()> {
    std::fs::File::create(file)?.set_len(mib << 20)?;
    std::fs::create_dir_all(target)?;
    for (program, args) in [("mkfs.ext4", vec!["-q", "-m", "0"]), ("mount", vec!["-o", "loop"])] {
        let mut command = std::process::Command::new(program);
        command.args(args).arg(file);
        if program == "mount" {
            command.arg(target);
        }
        let output = command.output().map_err(|e| format!("{program}: {e}"))?;
        if !output.status.success() {
            return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
    }
    Ok(())
}

/// Random enough for a name: the address space of the process and its clock.
fn rand_u32() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    u32::try_from(hasher.finish() & u64::from(u32::MAX)).unwrap_or_default()
}

impl Drop for Root {
    fn drop(&mut self) {
        for point in crate::traces::mounts_under(&self.path).into_iter().rev() {
            let _gone = nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("harness: {} stays: {error}", self.path.display());
        }
    }
}
