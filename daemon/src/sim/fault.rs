//! Why a simulated start fails: the reasons that people know from real nodes.

use roost_proto::model::{SandboxSpec, Stage};
use serde::{Deserialize, Serialize};

use crate::containerd;
use crate::host;
use crate::sandbox::failure::StartError;

/// Exit code of a simulated program that ends by itself.
const EXIT_CODE: i32 = 1;

/// A way for a start to fail; its name is the reason that central shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// containerd or runc refuses a step.
    ContainerFailed,
    /// The kernel refuses a step.
    HostFailed,
    /// The X server does not come up.
    DisplayFailed,
    /// The X server ends.
    DisplayExited,
    /// The program of the image ends.
    WorkloadExited,
    /// It takes longer than its template allows; played without the wait.
    StartTimeout,
}

#[derive(Debug, thiserror::Error)]
#[error("the simulator was told to fail it")]
struct Told;

impl Fault {
    /// The stage at which a real start would fail so.
    #[must_use]
    pub fn stage(self) -> Stage {
        match self {
            Self::HostFailed => Stage::Rootfs,
            Self::ContainerFailed => Stage::DisplayContainer,
            Self::DisplayFailed | Self::DisplayExited => Stage::DisplayServer,
            Self::WorkloadExited | Self::StartTimeout => Stage::FirstFrame,
        }
    }

    /// The error of a real start.
    #[must_use]
    pub fn error(self, spec: &SandboxSpec) -> StartError {
        match self {
            Self::ContainerFailed => StartError::Containerd(containerd::Error::Answer {
                operation: "create task",
                object: "simulated container".into(),
                missing: "everything",
            }),
            Self::HostFailed => StartError::Host(host::Error::Unfit(Told.to_string())),
            Self::DisplayFailed => StartError::Display(Box::new(Told)),
            Self::DisplayExited => StartError::Exited { role: "display", exit_code: EXIT_CODE },
            Self::WorkloadExited => StartError::Exited { role: "workload", exit_code: EXIT_CODE },
            Self::StartTimeout => StartError::Timeout { timeout_ms: spec.start_timeout_ms },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_fault_is_the_reason_that_it_brings() {
        let spec: SandboxSpec = serde_json::from_str(r#"{"template":"t","image":"a"}"#).unwrap();
        for fault in [
            Fault::ContainerFailed,
            Fault::HostFailed,
            Fault::DisplayFailed,
            Fault::DisplayExited,
            Fault::WorkloadExited,
            Fault::StartTimeout,
        ] {
            let name = serde_json::to_value(fault).unwrap();
            assert_eq!(name, fault.error(&spec).reason());
        }
    }
}
