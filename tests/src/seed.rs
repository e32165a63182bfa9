//! A containerd state that holds the images already.
//!
//! Importing the desktop image takes longer than a whole test. It is done
//! once per image; each test gets a copy of that state made of links: hard
//! ones to blobs, and one symbolic link to each unpacked layer, which has
//! thousands of files. Nothing ever writes to a layer, and containerd removes
//! the link alone; the databases are copied for real.

use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use crate::node::image_dir;
use crate::{Containerd, Result};

/// Archives that every test node holds.
pub const ARCHIVES: [&str; 2] = ["display.tar", "desktop.tar"];
/// Present in a seed that is whole.
const DONE: &str = "done";

/// Where seeds lie: on the same file system as the test roots.
fn seeds() -> PathBuf {
    std::env::var_os("ROOST_TEST_SEEDS").map_or_else(|| "/var/tmp/roost-seeds".into(), PathBuf::from)
}

/// Variable: a seed that was made elsewhere, by [`make`].
const FINISHED: &str = "ROOST_TEST_SEED";

/// Names a seed by what it was made from: a rebuilt archive makes a new one.
/// A short name: containerd's socket lies below, and its path has 107 bytes.
fn seed_name() -> Result<String> {
    let mut made_from = std::hash::DefaultHasher::new();
    for archive in ARCHIVES {
        let path = image_dir().join(archive);
        let meta = fs::metadata(&path).map_err(|e| {
            format!("{}: {e}: build the images with deploy/images/build.sh, or run tests/run.sh", path.display())
        })?;
        (meta.size(), meta.mtime()).hash(&mut made_from);
    }
    Ok(format!("seed-{:016x}", made_from.finish()))
}

/// Fills `dir`, a containerd state directory of a new test, from the seed.
///
/// # Errors
/// When the seed cannot be made or copied.
pub async fn plant(dir: &Path) -> Result<()> {
    let seed = match std::env::var_os(FINISHED) {
        Some(finished) => finished.into(),
        None => make().await?,
    };
    copy(&seed.join("c"), dir)
}

/// The seed's path; makes it if it is not there.
///
/// # Errors
/// When it cannot be made.
pub async fn make() -> Result<PathBuf> {
    fs::create_dir_all(seeds())?;
    let seed = seeds().join(seed_name()?);
    let lock = fs::File::create(seed.with_extension("lock"))?;
    // Tests of one run wait for the first of them, in whatever process.
    let lock = tokio::task::spawn_blocking(move || Flock::lock(lock, FlockArg::LockExclusive)).await?;
    let _lock = lock.map_err(|(_, error)| error)?;
    if !seed.join(DONE).exists() {
        let _none = fs::remove_dir_all(&seed);
        grow(&seed).await?;
        fs::write(seed.join(DONE), "")?;
    }
    Ok(seed)
}

/// Imports the archives with a real daemon.
async fn grow(seed: &Path) -> Result<()> {
    let containerd = Containerd::start(&seed.join("c")).await?;
    let root = crate::Root::at(&seed.join("node"))?;
    let (mut daemon, client) = crate::node::launch(&root, &containerd, "").await?;
    for archive in ARCHIVES {
        client.import(&image_dir().join(archive)).await?;
    }
    daemon.stop();
    Ok(())
}

/// Links what `from` holds into `to`, and copies the databases.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for plugin in fs::read_dir(from.join("root"))? {
        let plugin = plugin?;
        let target = to.join("root").join(plugin.file_name());
        fs::create_dir_all(&target)?;
        for entry in fs::read_dir(plugin.path())? {
            let entry = entry?;
            link(&entry.path(), &target.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn link(path: &Path, target: &Path) -> Result<()> {
    if path.extension().is_some_and(|e| e == "db") {
        fs::copy(path, target)?;
        return Ok(());
    }
    if path.ends_with("snapshots") {
        fs::create_dir(target)?;
        for layer in fs::read_dir(path)? {
            let layer = layer?;
            std::os::unix::fs::symlink(layer.path(), target.join(layer.file_name()))?;
        }
        return Ok(());
    }
    let status = Command::new("cp").arg("-al").args([path, target]).status()?;
    if !status.success() {
        return Err(format!("cannot link {} to {}", path.display(), target.display()).into());
    }
    Ok(())
}
