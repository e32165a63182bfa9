//! The nouns of Roost as strict types: what JSON, TOML and the ledger show.
//!
//! Unknown fields are refused everywhere. [`Validate`] finds what types alone
//! cannot, and names each field with the fix.

mod claim;
mod claim_request;
mod copy;
mod fleet_pool;
mod image;
mod lifetime;
mod node;
mod pool;
mod pressure;
mod problem;
mod pull;
mod resources;
mod restart;
mod sandbox;
mod spec;
mod support;
mod template;
mod volume;

pub use claim::{Binding, BindingState, ClaimContract, ScreenSize};
pub use claim_request::{BindStep, ClaimFile, Claimed, Content, CreateClaim, ParseContentError};
pub use copy::{CopyProblem, CopyReport};
pub use fleet_pool::{FleetPool, FleetPoolStatus, PoolOnNode, PoolStanding};
pub use image::{ImageInfo, ImageRef, ParseImageRefError};
pub use lifetime::{Ends, ExpiryAction, ExpiryReason, Lifetime, LifetimeChange};
pub use node::{
    Ability, Node, NodeCap, NodeCapacity, NodeCertificate, NodeCondition, NodeFacts, NodeLoad, NodePhase, NodeStatus,
    ReadmitNode,
};
pub use pool::{Pool, PoolSpec, PoolUpdate};
pub use pressure::{Pressure, Stall};
pub use problem::{FieldError, Problem};
pub use pull::{LayerProgress, LayerState, PullPolicy, PullStep};
pub use resources::{MAX_SHM_BYTES, MIN_SHM_BYTES, Resources, ResourcesChange};
pub use restart::{LastEnd, OomVictim, OutOfMemory, Part, Restart, RestartPolicy};
pub use sandbox::{
    AdoptOrphan, CreateSandbox, DisplayState, Observed, Orphan, Page, Phase, RunState, Sandbox, Stage, StageTiming,
    UpdateSandbox, Usage,
};
pub use spec::{DisplayKind, DisplaySpec, Isolation, Readiness, SandboxSpec, WindowManager};
pub use support::{Check, HostReport, LeftOut, StartRecord, SupportPart, Verdict};
pub use template::{Profile, Template, resolve};
pub use volume::{Checkpoint, Volume, VolumeAttachment, VolumeMount, VolumePhase, VolumeUsage, check_volume_size};

/// Checks that a type alone cannot express.
pub trait Validate {
    /// Adds one [`FieldError`] per violated rule; `path` is the prefix of the
    /// field names, empty or ending in a dot.
    fn check(&self, path: &str, errors: &mut Vec<FieldError>);

    /// All violations, or none.
    ///
    /// # Errors
    /// Every field that breaks a rule, with how to mend it.
    fn validate(&self) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        self.check("", &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}
