//! Limits of one cgroup, while processes run in it.
//!
//! CPU and pids are taken at once. A memory limit below what is in use is
//! not: v1 refuses it (EBUSY), v2 would kill at once, so there the kernel is
//! first asked to reclaim down to it (`memory.high`) and the limit is written
//! only when that sufficed. In both cases the old limit stays.
//!
//! What was written is read back: something else on the host may hold the
//! same files, and a sandbox must not run without its limits.

use std::fmt;
use std::path::Path;

use roost_proto::model::Resources;

use super::{Cgroups, Version, parse_u64, read_text, read_u64, write_value};
use crate::host::Error;

/// Period of the CPU quota, in microseconds: the kernel's default.
pub(super) const CPU_PERIOD_US: u64 = 100_000;
/// What the kernel may round a limit down by: one page of the largest size
/// that it is built with.
const PAGE_SLACK_BYTES: u64 = 65_536;

/// CPU time that a cgroup may use in each period, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quota {
    /// Absent = no limit.
    us: Option<u64>,
    period_us: u64,
}

impl Quota {
    /// `limit_millis` in thousandths of a core; none = no limit.
    fn of(limit_millis: Option<u32>) -> Self {
        Self { us: limit_millis.map(|millis| u64::from(millis) * CPU_PERIOD_US / 1000), period_us: CPU_PERIOD_US }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.us {
            Some(us) => write!(f, "{us} us of CPU in {} us", self.period_us),
            None => f.write_str("no limit of CPU"),
        }
    }
}

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

/// What the kernel enforces after a change. A CPU limit above the cap over all
/// sandboxes counts as enforced: the cap is then the lower limit.
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
    /// What the kernel refuses for another reason than use, or takes and does
    /// not enforce.
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
        self.confirm_limits(&path, self.quota_millis(wanted), wanted.pids_limit)?;
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
        self.set_quota(path, self.quota_millis(wanted))
    }

    /// The quota that a sandbox gets, in thousandths of a core; none = no
    /// limit. v1 refuses one above that of the parent.
    fn quota_millis(&self, wanted: &Resources) -> Option<u32> {
        let limit = (wanted.cpu_limit_millis > 0).then_some(wanted.cpu_limit_millis);
        limit.map(|limit| self.cap.map_or(limit, |cap| limit.min(cap.cpu_millis)))
    }

    /// Most CPU, in thousandths of a core; none = no limit.
    pub(super) fn set_quota(&self, path: &str, limit_millis: Option<u32>) -> Result<(), Error> {
        let Quota { us, period_us } = Quota::of(limit_millis);
        match self.version {
            Version::V1 => {
                write_value(&self.version.file("cpu", path, "cpu.cfs_period_us", ""), &period_us.to_string())?;
                let text = us.map_or_else(|| "-1".into(), |us| us.to_string());
                write_value(&self.version.file("cpu", path, "cpu.cfs_quota_us", ""), &text)
            }
            Version::V2 => {
                let text = us.map_or_else(|| "max".into(), |us| us.to_string());
                write_value(&self.version.file("", path, "", "cpu.max"), &format!("{text} {period_us}"))
            }
        }
    }

    /// The quota that the kernel enforces.
    fn quota(&self, path: &str) -> Result<Quota, Error> {
        let file = self.version.file("cpu", path, "cpu.cfs_quota_us", "cpu.max");
        let text = read_text(&file)?;
        let (us, period_us) = match self.version {
            Version::V1 => (text.trim(), read_u64(&self.version.file("cpu", path, "cpu.cfs_period_us", ""))?),
            Version::V2 => {
                let mut words = text.split_whitespace();
                let us = words.next().unwrap_or_default();
                (us, parse_u64(&file, words.next().unwrap_or_default())?)
            }
        };
        let us = if matches!(us, "max" | "-1") { None } else { Some(parse_u64(&file, us)?) };
        Ok(Quota { us, period_us })
    }

    /// Whether the kernel enforces these limits; memory is confirmed when it is
    /// set.
    pub(super) fn confirm_limits(&self, path: &str, cpu_millis: Option<u32>, pids: u32) -> Result<(), Error> {
        let (held, wanted) = (self.quota(path)?, Quota::of(cpu_millis));
        if held != wanted {
            return Err(Error::Unfit(format!("the kernel limits {path} to {held} instead of {wanted}")));
        }
        // "max" where something else took the limit away.
        let held = read_text(&self.version.file("pids", path, "pids.max", "pids.max"))?;
        if held.trim() != pids.to_string() {
            return Err(Error::Unfit(format!(
                "the kernel limits {path} to {} processes instead of {pids}",
                held.trim()
            )));
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup with limits; removed with its owner.
    struct Limited(Cgroups, Resources);

    impl Limited {
        fn new(parent: &str, cap_millis: Option<u32>) -> Self {
            let mut cgroups = Cgroups::new(&format!("roost-test-{}-{parent}", std::process::id()));
            let resources = Resources { cpu_limit_millis: 500, pids_limit: 77, ..Resources::default() };
            cgroups.create_plain("sbx").unwrap();
            if let Some(cpu_millis) = cap_millis {
                let cap = roost_proto::model::NodeCap { cpu_millis, memory_bytes: 8 << 30, pids: 1000 };
                cgroups.set_cap(cap).unwrap();
            }
            cgroups.create("sbx", &resources).unwrap();
            Self(cgroups, resources)
        }

        fn confirm(&self) -> Result<(), Error> {
            let Self(cgroups, wanted) = self;
            cgroups.confirm_limits(&cgroups.relative("sbx"), cgroups.quota_millis(wanted), wanted.pids_limit)
        }

        fn overwrite(&self, controller: &str, v1: (&str, &str), v2: (&str, &str)) {
            let (file, value) = if self.0.version == Version::V1 { v1 } else { v2 };
            let path = self.0.version.file(controller, &self.0.relative("sbx"), file, file);
            std::fs::write(path, value).unwrap();
        }
    }

    impl Drop for Limited {
        fn drop(&mut self) {
            let removed = self.0.remove("sbx").and_then(|()| self.0.remove_parent());
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
        }
    }

    #[test]
    fn a_quota_that_something_else_wrote_is_not_what_was_wanted() {
        let limited = Limited::new("quota", None);
        limited.confirm().unwrap();
        limited.overwrite("cpu", ("cpu.cfs_quota_us", "80000"), ("cpu.max", "80000 100000"));
        let error = limited.confirm().unwrap_err().to_string();
        assert!(error.contains("80000 us of CPU in 100000 us instead of 50000 us"), "{error}");
        limited.overwrite("cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max"));
        let error = limited.confirm().unwrap_err().to_string();
        assert!(error.contains("no limit of CPU instead of 50000 us"), "{error}");
    }

    #[test]
    fn a_quota_of_another_period_is_not_what_was_wanted() {
        let limited = Limited::new("period", None);
        limited.overwrite("cpu", ("cpu.cfs_period_us", "60000"), ("cpu.max", "50000 60000"));
        let error = limited.confirm().unwrap_err().to_string();
        assert!(error.contains("50000 us of CPU in 60000 us"), "{error}");
    }

    #[test]
    fn a_lost_limit_of_processes_is_told() {
        let limited = Limited::new("pids", None);
        limited.overwrite("pids", ("pids.max", "max"), ("pids.max", "max"));
        let error = limited.confirm().unwrap_err().to_string();
        assert!(error.contains("max processes instead of 77"), "{error}");
    }

    #[test]
    fn a_limit_above_the_cap_is_confirmed_as_the_cap() {
        let limited = Limited::new("cap", Some(300));
        limited.confirm().unwrap();
        assert_eq!(limited.0.quota(&limited.0.relative("sbx")).unwrap(), Quota::of(Some(300)));
    }
}
