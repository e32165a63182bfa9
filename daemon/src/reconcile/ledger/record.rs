//! What is stored of a sandbox, with the version of its format.
//!
//! A [`Record`] is written by the manager alone, a [`Progress`] by the driver
//! alone: neither can undo the other's newer word. Both are JSON with a
//! `version` field. This build writes the newest version and reads every one
//! that was ever released; `golden/` holds one file of each.

use std::sync::Arc;

use roost_proto::model::{BindingState, LastEnd, OutOfMemory, Stage, StageTiming};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sandbox::Desired;
use crate::sandbox::expiry::{Expired, Rested};
use crate::sandbox::restart::Scope;

/// Version that this build writes.
const VERSION: u32 = 1;

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeRecordError {
    /// Not JSON, or a field is wrong.
    #[error("not a record of version {VERSION}")]
    Json(#[source] serde_json::Error),
    /// No number under `version`.
    #[error("no version number")]
    NoVersion,
    /// Written by a newer daemon.
    #[error("version {found} is newer than {VERSION}: start the newer roostd again, or remove its ledger")]
    Newer {
        /// The version of the record.
        found: u32,
    },
}

/// Why a sandbox failed, as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Stable word, e.g. `workload-exited`.
    pub reason: String,
    /// One sentence for people, with the next step.
    pub message: String,
    /// The stage of the start that failed; absent when it was Ready.
    pub stage: Option<Stage>,
    /// Exit code of the workload, when it ended by itself.
    pub exit_code: Option<i32>,
    /// Generation that this failure answers: a newer one starts again.
    pub generation: u64,
}

/// What is wanted of a sandbox and allocated to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What is wanted; shared by all that hold it.
    pub desired: Arc<Desired>,
    /// What id 0 inside is outside; 65 536 ids follow.
    pub first_id: u32,
    /// X display number inside.
    pub display_number: u32,
}

/// How far a sandbox came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// How often it was started.
    pub starts: u32,
    /// Restarts that were carried out.
    pub restarts_done: u64,
    /// The failure that stands, if any.
    pub failure: Option<Failure>,
    /// Its last entry into Ready, while it is.
    pub ready: Option<ReadyRecord>,
    /// What its restart policy did and is about to do.
    #[serde(default, skip_serializing_if = "Recovery::is_default")]
    pub recovery: Recovery,
    /// What the kernel killed in it.
    #[serde(default, skip_serializing_if = "OomProgress::is_default")]
    pub oom: OomProgress,
    /// What came of its claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingState>,
    /// The time that was over, and what was decided then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Expired>,
    /// When it was Stopped: its time to live stands still then.
    #[serde(default, skip_serializing_if = "Rested::is_default")]
    pub rested: Rested,
}

/// What the restart policy of a sandbox did and is about to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// Restarts in its life.
    pub restarts: u32,
    /// Restarts since it was last stable or somebody started it.
    pub streak: u32,
    /// The last end that nobody asked for.
    pub last_end: Option<LastEnd>,
    /// The restart that is waited for or under way.
    pub comeback: Option<Comeback>,
}

/// A restart that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comeback {
    /// How much is made again.
    pub scope: Scope,
    /// Unix time at which it begins, in milliseconds.
    pub at_unix_ms: u64,
    /// One sentence for people about what ended.
    pub message: String,
    /// Generation that it answers: a newer one does not wait.
    pub generation: u64,
}

/// Kills for want of memory, and how far the kernel's counters were read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OomProgress {
    /// Kills in the sandbox's life and the last victim.
    pub seen: OutOfMemory,
    /// Count of the display's present cgroup.
    pub display_counter: u64,
    /// Count of the workload's present cgroup.
    pub workload_counter: u64,
}

impl Recovery {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl OomProgress {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An entry into Ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadyRecord {
    /// Unix time, in milliseconds.
    pub at_unix_ms: u64,
    /// Stages of that start, in order.
    pub stages: Vec<StageTiming>,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

/// A stored value as bytes.
///
/// # Errors
/// None that input can cause; serialisation of plain data.
pub fn encode<T: Serialize>(content: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Versioned { version: VERSION, content })
}

/// Reads a stored value of any released version.
///
/// # Errors
/// See [`DecodeRecordError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeRecordError> {
    let mut object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes).map_err(DecodeRecordError::Json)?;
    let version = object.remove("version").and_then(|v| u32::try_from(v.as_u64()?).ok());
    match version {
        None => Err(DecodeRecordError::NoVersion),
        Some(found) if found > VERSION => Err(DecodeRecordError::Newer { found }),
        Some(_) => serde_json::from_value(object.into()).map_err(DecodeRecordError::Json),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sandbox::Origin;
    use roost_proto::id::SandboxId;
    use roost_proto::model::RunState;

    pub(crate) fn record() -> Record {
        Record {
            desired: Arc::new(Desired {
                id: SandboxId::random(),
                name: None,
                tenant: "default".parse().unwrap(),
                origin: Origin::Local,
                generation: 1,
                run_state: RunState::Running,
                restart_count: 0,
                spec: serde_json::from_str(r#"{"template":"desktop","image":"roost/desktop"}"#).unwrap(),
                resources: None,
                asked_generation: None,
                created_at_unix_ms: 1,
                pool: None,
                binding: None,
                unconfirmed: false,
                paused: false,
                lifetime: None,
                ttl_count: 0,
                clock: None,
                brings_files: false,
            }),
            first_id: 1 << 20,
            display_number: 0,
        }
    }

    /// Format version 1 as it was released: these files never change.
    const RECORD_V1: &str = include_str!("golden/record-v1.json");
    /// The same with what was added to version 1 since.
    const RECORD_V1_RESOURCES: &str = include_str!("golden/record-v1-resources.json");
    const PROGRESS_V1: &str = include_str!("golden/progress-v1.json");
    /// Version 1 with what came after its first release.
    const PROGRESS_V1_RESTARTS: &str = include_str!("golden/progress-v1-restarts.json");

    #[test]
    fn values_of_every_released_version_are_read() {
        let record: Record = decode(RECORD_V1.as_bytes()).unwrap();
        assert_eq!(record.desired.id.as_str(), "sbx-0123456789abcdef");
        assert_eq!(record.desired.resources(), &record.desired.spec.resources);
        let record: Record = decode(RECORD_V1_RESOURCES.as_bytes()).unwrap();
        assert_eq!(record.desired.resources().pids_limit, 300);
        let progress: Progress = decode(PROGRESS_V1.as_bytes()).unwrap();
        assert_eq!(progress.failure.unwrap().reason, "workload-exited");
        assert_eq!(progress.recovery, Recovery::default());
        let progress: Progress = decode(PROGRESS_V1_RESTARTS.as_bytes()).unwrap();
        assert_eq!(progress.recovery.comeback.unwrap().scope, Scope::Workload);
        assert_eq!(progress.oom.seen.kills, 3);
    }

    #[test]
    fn the_newest_version_is_what_its_golden_files_say() {
        let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let record = encode(&decode::<Record>(RECORD_V1.as_bytes()).unwrap()).unwrap();
        assert_eq!(json(&record), json(RECORD_V1.as_bytes()));
        let record = encode(&decode::<Record>(RECORD_V1_RESOURCES.as_bytes()).unwrap()).unwrap();
        assert_eq!(json(&record), json(RECORD_V1_RESOURCES.as_bytes()));
        for golden in [PROGRESS_V1, PROGRESS_V1_RESTARTS] {
            let progress = encode(&decode::<Progress>(golden.as_bytes()).unwrap()).unwrap();
            assert_eq!(json(&progress), json(golden.as_bytes()));
        }
    }

    #[test]
    fn a_record_of_a_newer_daemon_is_refused_with_the_way_back() {
        let newer = RECORD_V1.replacen("\"version\": 1", "\"version\": 2", 1);
        let error = decode::<Record>(newer.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("start the newer roostd"), "{error}");
    }
}
