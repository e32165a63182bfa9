//! What a sandbox may use.

use serde::{Deserialize, Serialize};

use super::{FieldError, Validate};

/// Smallest `/dev/shm`, in bytes (64 MiB): below it browsers crash.
pub const MIN_SHM_BYTES: u64 = 64 << 20;
/// Largest `/dev/shm`, in bytes, whatever the memory limit (64 GiB).
pub const MAX_SHM_BYTES: u64 = 64 << 30;
/// Smallest memory limit, in bytes (128 MiB): display, window manager, shim.
const MIN_MEMORY_BYTES: u64 = 128 << 20;
/// Smallest process limit: display server, window manager and their threads.
const MIN_PIDS: u32 = 32;
/// Largest process limit: the kernel's own maximum of pids.
const MAX_PIDS: u32 = 4_194_304;
/// Smallest disk limit, in bytes (64 MiB): a file system of its own has a
/// journal and tables to hold.
const MIN_DISK_BYTES: u64 = 64 << 20;
/// Largest disk limit, in bytes (8 TiB): half of what ext4 can grow to with
/// block numbers of 32 bits.
const MAX_DISK_BYTES: u64 = 8 << 40;
/// Largest CPU figure, in thousandths of a core (1 024 cores).
const MAX_CPU_MILLIS: u32 = 1_024_000;

/// Requests (what placement counts) and limits (what the kernel enforces) of
/// one whole sandbox, its display included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// CPU that placement counts, in thousandths of a core.
    pub cpu_request_millis: u32,
    /// CPU that the kernel enforces, in thousandths of a core; 0 = no limit.
    pub cpu_limit_millis: u32,
    /// Memory that placement counts, in bytes.
    pub memory_request_bytes: u64,
    /// Memory that the kernel enforces, in bytes.
    pub memory_limit_bytes: u64,
    /// Processes and threads that the kernel allows.
    pub pids_limit: u32,
    /// Size of `/dev/shm`, in bytes: at least 64 MiB, at most half of the
    /// memory limit; what is used there is charged to the sandbox.
    pub shm_bytes: u64,
    /// What the files that the workload changes may take on the disk, in
    /// bytes, as the kernel enforces it; 0 = no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub disk_limit_bytes: u64,
}

/// Older peers refuse fields that they do not know: a limit that is not asked
/// for is left out.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Default for Resources {
    /// A desktop with a browser: half a core and 512 MiB counted, no CPU
    /// limit, 4 GiB memory, 4 096 processes, 1 GiB `/dev/shm`, no disk limit.
    fn default() -> Self {
        Self {
            cpu_request_millis: 500,
            cpu_limit_millis: 0,
            memory_request_bytes: 512 << 20,
            memory_limit_bytes: 4 << 30,
            pids_limit: 4096,
            shm_bytes: 1 << 30,
            disk_limit_bytes: 0,
        }
    }
}

/// New values for some requests and limits; absent ones stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResourcesChange {
    /// CPU that placement counts, in thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_request_millis: Option<u32>,
    /// CPU that the kernel enforces, in thousandths of a core; 0 = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit_millis: Option<u32>,
    /// Memory that placement counts, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_request_bytes: Option<u64>,
    /// Memory that the kernel enforces, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads that the kernel allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u32>,
    /// Size of `/dev/shm`, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// What its files may take on the disk, in bytes; it can only rise, and
    /// only where there is a limit already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_limit_bytes: Option<u64>,
}

impl ResourcesChange {
    /// What `held` becomes.
    ///
    /// # Errors
    /// A change of nothing, and every rule that the result breaks.
    pub fn apply(&self, held: &Resources) -> Result<Resources, Vec<FieldError>> {
        if *self == Self::default() {
            return Err(vec![FieldError::new("resources", "must change at least one request or limit")]);
        }
        let changed = Resources {
            cpu_request_millis: self.cpu_request_millis.unwrap_or(held.cpu_request_millis),
            cpu_limit_millis: self.cpu_limit_millis.unwrap_or(held.cpu_limit_millis),
            memory_request_bytes: self.memory_request_bytes.unwrap_or(held.memory_request_bytes),
            memory_limit_bytes: self.memory_limit_bytes.unwrap_or(held.memory_limit_bytes),
            pids_limit: self.pids_limit.unwrap_or(held.pids_limit),
            shm_bytes: self.shm_bytes.unwrap_or(held.shm_bytes),
            disk_limit_bytes: self.disk_limit_bytes.unwrap_or(held.disk_limit_bytes),
        };
        let mut errors = Vec::new();
        errors.extend(disk_change_problem(held.disk_limit_bytes, changed.disk_limit_bytes));
        changed.check("resources.", &mut errors);
        if errors.is_empty() { Ok(changed) } else { Err(errors) }
    }
}

/// Files do not move between a file system of their own and one that they
/// share, and a file system in use does not shrink.
fn disk_change_problem(held_bytes: u64, wanted_bytes: u64) -> Option<FieldError> {
    let problem = match (held_bytes, wanted_bytes) {
        (held, wanted) if held == wanted => return None,
        (0, _) => "the sandbox was made without a disk limit: create it again with a profile that has one".to_owned(),
        (held, wanted) if wanted < held => format!("{wanted} is less than {held}: a disk limit can only be raised"),
        _ => return None,
    };
    Some(FieldError::new("resources.disk_limit_bytes", problem))
}

impl Validate for Resources {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        let mut require = |ok: bool, field: &str, problem: String| {
            if !ok {
                errors.push(FieldError::new(format!("{path}{field}"), problem));
            }
        };
        let cpu = |v: u32| format!("{v} is out of range: use 0 to {MAX_CPU_MILLIS} thousandths of a core");
        require(self.cpu_request_millis <= MAX_CPU_MILLIS, "cpu_request_millis", cpu(self.cpu_request_millis));
        require(self.cpu_limit_millis <= MAX_CPU_MILLIS, "cpu_limit_millis", cpu(self.cpu_limit_millis));
        require(
            self.cpu_limit_millis == 0 || self.cpu_limit_millis >= self.cpu_request_millis.max(10),
            "cpu_limit_millis",
            "must be 0 (no limit), or at least 10 and at least cpu_request_millis".into(),
        );
        require(
            self.memory_limit_bytes >= MIN_MEMORY_BYTES,
            "memory_limit_bytes",
            format!(
                "{} is too small for a desktop: use at least {MIN_MEMORY_BYTES} (128 MiB)",
                self.memory_limit_bytes
            ),
        );
        require(
            self.memory_request_bytes <= self.memory_limit_bytes,
            "memory_request_bytes",
            "must not be above memory_limit_bytes".into(),
        );
        require(
            (MIN_PIDS..=MAX_PIDS).contains(&self.pids_limit),
            "pids_limit",
            format!("{} is out of range: use {MIN_PIDS} to {MAX_PIDS}", self.pids_limit),
        );
        let shm_max = (self.memory_limit_bytes / 2).min(MAX_SHM_BYTES);
        // A limit that leaves no room for it is refused above.
        require(
            shm_max < MIN_SHM_BYTES || (MIN_SHM_BYTES..=shm_max).contains(&self.shm_bytes),
            "shm_bytes",
            format!(
                "{} is out of range: use {MIN_SHM_BYTES} (64 MiB) to {shm_max} (half of memory_limit_bytes)",
                self.shm_bytes
            ),
        );
        require(
            self.disk_limit_bytes == 0 || (MIN_DISK_BYTES..=MAX_DISK_BYTES).contains(&self.disk_limit_bytes),
            "disk_limit_bytes",
            format!(
                "{} is out of range: use 0 (no limit), or {MIN_DISK_BYTES} (64 MiB) to {MAX_DISK_BYTES} (8 TiB)",
                self.disk_limit_bytes
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(resources: &Resources) -> Vec<String> {
        resources.validate().err().unwrap_or_default().into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Resources::default().validate(), Ok(()));
    }

    #[test]
    fn shm_stays_between_64_mib_and_half_of_the_memory_limit() {
        let with = |shm_bytes| Resources { shm_bytes, ..Resources::default() };
        assert_eq!(fields(&with(MIN_SHM_BYTES)), Vec::<String>::new());
        assert_eq!(fields(&with(2 << 30)), Vec::<String>::new());
        assert_eq!(fields(&with(MIN_SHM_BYTES - 1)), ["shm_bytes"]);
        assert_eq!(fields(&with((2 << 30) + 1)), ["shm_bytes"]);
    }

    #[test]
    fn a_memory_limit_that_is_too_small_is_not_told_as_a_range_that_ends_before_it_begins() {
        let small = Resources { memory_limit_bytes: 64 << 20, memory_request_bytes: 0, ..Resources::default() };
        assert_eq!(fields(&small), ["memory_limit_bytes"]);
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_must_keep_the_rules() {
        let held = Resources::default();
        let change = ResourcesChange { pids_limit: Some(300), ..ResourcesChange::default() };
        assert_eq!(change.apply(&held), Ok(Resources { pids_limit: 300, ..held.clone() }));
        let small = ResourcesChange { memory_limit_bytes: Some(1 << 30), ..ResourcesChange::default() };
        assert_eq!(small.apply(&held).unwrap_err()[0].field, "resources.shm_bytes");
        assert_eq!(ResourcesChange::default().apply(&held).unwrap_err()[0].field, "resources");
    }

    #[test]
    fn a_disk_limit_is_none_or_at_least_64_mib() {
        let with = |disk_limit_bytes| Resources { disk_limit_bytes, ..Resources::default() };
        assert_eq!(fields(&with(0)), Vec::<String>::new());
        assert_eq!(fields(&with(MIN_DISK_BYTES)), Vec::<String>::new());
        assert_eq!(fields(&with(MIN_DISK_BYTES - 1)), ["disk_limit_bytes"]);
        assert_eq!(fields(&with(MAX_DISK_BYTES + 1)), ["disk_limit_bytes"]);
    }

    #[test]
    fn a_disk_limit_rises_and_neither_falls_nor_comes_nor_goes() {
        let with = |disk_limit_bytes| Resources { disk_limit_bytes, ..Resources::default() };
        let set = |bytes, held: u64| {
            let change = ResourcesChange { disk_limit_bytes: Some(bytes), ..ResourcesChange::default() };
            change.apply(&with(held)).map(|r| r.disk_limit_bytes).map_err(|e| e[0].field.clone())
        };
        let refused = || Err("resources.disk_limit_bytes".to_owned());
        assert_eq!(set(2 << 30, 1 << 30), Ok(2 << 30));
        assert_eq!(set(1 << 30, 1 << 30), Ok(1 << 30));
        assert_eq!(set(1 << 29, 1 << 30), refused());
        assert_eq!(set(0, 1 << 30), refused());
        assert_eq!(set(1 << 30, 0), refused());
    }

    #[test]
    fn resources_without_a_disk_limit_are_spelled_as_before_there_was_one() {
        let json = serde_json::to_value(Resources::default()).unwrap();
        assert!(json.get("disk_limit_bytes").is_none(), "an older peer refuses what it does not know");
        assert_eq!(serde_json::from_value::<Resources>(json).unwrap(), Resources::default());
    }

    #[test]
    fn a_limit_below_its_request_is_refused() {
        let cpu = Resources { cpu_request_millis: 500, cpu_limit_millis: 400, ..Resources::default() };
        assert_eq!(fields(&cpu), ["cpu_limit_millis"]);
        let memory = Resources { memory_request_bytes: 5 << 30, ..Resources::default() };
        assert_eq!(fields(&memory), ["memory_request_bytes"]);
    }
}
