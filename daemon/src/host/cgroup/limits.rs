//! Limits of one cgroup, while processes run in it.
//!
//! CPU and pids are taken at once. A memory limit below what is in use is
//! not: v1 refuses it (EBUSY), v2 would kill at once, so there the kernel is
//! first asked to reclaim down to it (`memory.high`) and the limit is written
//! only when that sufficed. In both cases the old limit stays.

use std::fmt;
use std::path::Path;

use roost_proto::model::Resources;

use super::{Cgroups, Version, read_text, read_u64, write_value};
use crate::host::Error;

/// Period of the CPU quota, in microseconds: the kernel's default.
pub(super) const CPU_PERIOD_US: u64 = 100_000;
/// What the kernel may round a limit down by: one page of the largest size
/// that it is built with.
const PAGE_SLACK_BYTES: u64 = 65_536;

/// A limit that was not lowered, because more than that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InUse {
    /// `memory` or `/dev/shm`.
    pub what: &'static str,
    /// The limit that was asked for, in bytes.
    pub wanted_bytes: u64,
    /// What is in use, in bytes.
    pub used_bytes: u64,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, wanted_bytes, used_bytes } = self;
        write!(f, "{what} cannot be limited to {wanted_bytes} bytes while {used_bytes} bytes are in use")
    }
}

/// What the kernel enforces after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsSet {
    /// Every limit as it is now.
    pub in_force: Resources,
    /// Limits that stay as they were.
    pub refused: Vec<InUse>,
}

impl Cgroups {
    /// Gives a cgroup its limits; what runs in it goes on. `/dev/shm` is not
    /// part of it. May take seconds, while the kernel reclaims memory.
    ///
    /// # Errors
    /// What the kernel refuses for another reason than use.
    pub fn set_limits(&self, name: &str, wanted: &Resources) -> Result<LimitsSet, Error> {
        let path = self.relative(name);
        self.set_cpu(&path, wanted)?;
        self.set_pids(&path, wanted.pids_limit)?;
        let refused = self.set_memory(&path, wanted.memory_limit_bytes)?;
        let memory_limit_bytes = match refused {
            None => wanted.memory_limit_bytes,
            Some(_) => self.memory_limit(&path)?,
        };
        let in_force = Resources { memory_limit_bytes, ..wanted.clone() };
        Ok(LimitsSet { in_force, refused: refused.into_iter().collect() })
    }

    /// A request is a share: 1 024 shares are one core, 2 the kernel's least;
    /// v2 counts weights from 1 to 10 000 instead.
    fn set_cpu(&self, path: &str, wanted: &Resources) -> Result<(), Error> {
        let shares = (u64::from(wanted.cpu_request_millis) * 1024 / 1000).clamp(2, 262_144);
        let weight = match self.version {
            Version::V1 => shares,
            Version::V2 => 1 + (shares - 2) * 9_999 / 262_142,
        };
        write_value(&self.version.file("cpu", path, "cpu.shares", "cpu.weight"), &weight.to_string())?;
        let limit = (wanted.cpu_limit_millis > 0).then_some(wanted.cpu_limit_millis);
        // v1 refuses a quota above that of the parent.
        let limit = limit.map(|limit| self.cap.map_or(limit, |cap| limit.min(cap.cpu_millis)));
        self.set_quota(path, limit)
    }

    /// Most CPU, in thousandths of a core; none = no limit.
    pub(super) fn set_quota(&self, path: &str, limit_millis: Option<u32>) -> Result<(), Error> {
        let quota = limit_millis.map(|millis| u64::from(millis) * CPU_PERIOD_US / 1000);
        match self.version {
            Version::V1 => {
                let period = self.version.file("cpu", path, "cpu.cfs_period_us", "");
                write_value(&period, &CPU_PERIOD_US.to_string())?;
                let text = quota.map_or_else(|| "-1".into(), |quota| quota.to_string());
                write_value(&self.version.file("cpu", path, "cpu.cfs_quota_us", ""), &text)
            }
            Version::V2 => {
                let text = quota.map_or_else(|| "max".into(), |quota| quota.to_string());
                write_value(&self.version.file("", path, "", "cpu.max"), &format!("{text} {CPU_PERIOD_US}"))
            }
        }
    }

    pub(super) fn set_pids(&self, path: &str, limit: u32) -> Result<(), Error> {
        write_value(&self.version.file("pids", path, "pids.max", "pids.max"), &limit.to_string())
    }

    /// Most memory, swap included: swap is no way around the limit.
    pub(super) fn set_memory(&self, path: &str, wanted_bytes: u64) -> Result<Option<InUse>, Error> {
        let refused = match self.version {
            Version::V1 => self.set_memory_v1(path, wanted_bytes)?,
            Version::V2 => self.set_memory_v2(path, wanted_bytes)?,
        };
        if refused.is_none() {
            let held = self.memory_limit(path)?;
            if wanted_bytes.saturating_sub(held) >= PAGE_SLACK_BYTES {
                return Err(Error::Unfit(format!(
                    "the kernel limits {path} to {held} bytes instead of {wanted_bytes}"
                )));
            }
        }
        Ok(refused)
    }

    /// Memory with swap must never be limited below memory alone: it is raised
    /// first and lowered last.
    fn set_memory_v1(&self, path: &str, wanted_bytes: u64) -> Result<Option<InUse>, Error> {
        let limit = self.version.file("memory", path, "memory.limit_in_bytes", "");
        let with_swap = self.version.file("memory", path, "memory.memsw.limit_in_bytes", "");
        let held = read_u64(&limit)?;
        let wanted = wanted_bytes.to_string();
        if wanted_bytes >= held {
            write_if_there(&with_swap, &wanted)?;
            return write_value(&limit, &wanted).map(|()| None);
        }
        let lowered = match write_value(&limit, &wanted) {
            Ok(()) => write_if_there(&with_swap, &wanted),
            Err(error) => Err(error),
        };
        match lowered {
            Ok(()) => Ok(None),
            Err(error) if is_busy(&error) => {
                write_value(&limit, &held.to_string())?;
                self.in_use(path, wanted_bytes).map(Some)
            }
            Err(error) => Err(error),
        }
    }

    fn set_memory_v2(&self, path: &str, wanted_bytes: u64) -> Result<Option<InUse>, Error> {
        write_if_there(&self.version.file("", path, "", "memory.swap.max"), "0")?;
        let high = self.version.file("", path, "", "memory.high");
        if read_u64(&self.version.file("", path, "", "memory.current"))? > wanted_bytes {
            // The write reclaims; whoever allocates meanwhile is slowed down.
            write_value(&high, &wanted_bytes.to_string())?;
            let used = self.in_use(path, wanted_bytes)?;
            if used.used_bytes > wanted_bytes {
                write_value(&high, "max")?;
                return Ok(Some(used));
            }
        }
        write_value(&self.version.file("", path, "", "memory.max"), &wanted_bytes.to_string())?;
        write_value(&high, "max").map(|()| None)
    }

    fn in_use(&self, path: &str, wanted_bytes: u64) -> Result<InUse, Error> {
        let used = self.version.file("memory", path, "memory.usage_in_bytes", "memory.current");
        Ok(InUse { what: "memory", wanted_bytes, used_bytes: read_u64(&used)? })
    }

    /// The memory limit that the kernel enforces, in bytes.
    pub(super) fn memory_limit(&self, path: &str) -> Result<u64, Error> {
        let file = self.version.file("memory", path, "memory.limit_in_bytes", "memory.max");
        if read_text(&file)?.trim() == "max" { Ok(u64::MAX) } else { read_u64(&file) }
    }
}

/// A kernel without swap accounting has no such file.
fn write_if_there(path: &Path, value: &str) -> Result<(), Error> {
    if path.exists() { write_value(path, value) } else { Ok(()) }
}

fn is_busy(error: &Error) -> bool {
    matches!(error, Error::Path { source, .. } if source.kind() == std::io::ErrorKind::ResourceBusy)
}
