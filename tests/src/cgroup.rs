//! What the kernel says of a cgroup, on v1 and v2 hosts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Result;

/// Where the controllers are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// Whether the host has the unified hierarchy alone.
#[must_use]
pub fn is_v2() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// Directory of a cgroup; on v1 that of one controller.
#[must_use]
pub fn dir(cgroup: &str, controller: &str) -> PathBuf {
    let base = if is_v2() { PathBuf::from(MOUNT) } else { Path::new(MOUNT).join(controller) };
    base.join(cgroup.trim_start_matches('/'))
}

/// A file of a cgroup, by its names on v1 and v2.
///
/// # Errors
/// That it cannot be read.
pub fn read(cgroup: &str, controller: &str, v1: &str, v2: &str) -> Result<String> {
    let path = dir(cgroup, controller).join(if is_v2() { v2 } else { v1 });
    Ok(std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?.trim().to_owned())
}

/// The same as a number.
///
/// # Errors
/// That it cannot be read, or is none.
pub fn read_u64(cgroup: &str, controller: &str, v1: &str, v2: &str) -> Result<u64> {
    Ok(read(cgroup, controller, v1, v2)?.parse()?)
}

/// The same as `key value` lines.
///
/// # Errors
/// That it cannot be read, or a value is no number.
pub fn read_keys(cgroup: &str, controller: &str, v1: &str, v2: &str) -> Result<BTreeMap<String, u64>> {
    let text = read(cgroup, controller, v1, v2)?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(key, value)| Ok((key.to_owned(), value.parse()?))).collect()
}
