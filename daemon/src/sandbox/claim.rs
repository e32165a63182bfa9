//! What a claim brings into a desktop that runs, and the contract with its
//! entry point (docs/claims.md).
//!
//! ```text
//! /run/roost/claim/          a tmpfs of the daemon's, read-only inside
//!     claim.json             who has it: appears with the claim
//!     env                    NAME='value' lines for a shell
//!     secrets/<name>         0400, the workload's user
//!     wait                   FIFO: a line with the claim's id wakes the hook
//!     status                 FIFO: "<claim id> <exit status>" is the answer
//!     await                  a shell script that does the hook's side
//!     record.json            0400, the daemon's: what a lost ledger is rebuilt from
//!     bound                  0400, the daemon's: to which process it is bound
//! ```
//!
//! No program is started in the container for a claim (an exec: 27 to 80 ms):
//! the entry point waits in a read of a FIFO. The directory belongs to the
//! daemon, so that nothing in it can be replaced by a link of the sandbox.

mod dir;
mod hook;
mod parcel;
mod workload;

pub use dir::{ClaimDir, claimed};
pub use hook::{HookError, call_hook};
pub use parcel::{Outcome, Parcel};
pub use workload::{WorkloadPids, workload};
use workload::{bound_before, note_bound};

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Node;
use super::failure::chain;
use super::runtime::Bind;
use super::volumes::{self, VolumesError};
use crate::containerd;
use crate::display::Geometry;
use crate::display::cookie::{Cookie, CookieError};
use crate::display::x11::{XAddress, XError, resize_screen};
use crate::host::{self, blocking, fault, files, inside, namespaces};
use crate::reconcile::ledger::Record;

/// Where the workload finds the claim's directory.
pub const CLAIM_DIR: &str = "/run/roost/claim";

/// How long the X server may take to change the screen: a client may hold it.
const SCREEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a claim could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The workload is not there.
    #[error("the workload does not run")]
    NotRunning,
    /// Values of secrets are not stored: only a claim brings them.
    #[error("the secret {0} is not on the node any more")]
    SecretMissing(String),
    /// Content of files is not stored either.
    #[error("the files of the claim are not on the node any more")]
    FilesMissing,
    /// A file or the host name.
    #[error("the claim cannot be laid out")]
    Host(#[from] host::Error),
    /// The cookie of the display.
    #[error("the display cannot be asked")]
    Cookie(#[from] CookieError),
    /// The display has the size that it had.
    #[error("the screen cannot be given its size")]
    Screen(#[from] XError),
    /// A volume.
    #[error("the volumes cannot be attached")]
    Volume(#[source] VolumesError),
    /// containerd does not answer.
    #[error("the workload cannot be asked for")]
    Containerd(#[from] containerd::Error),
    /// The hook did not answer as it must.
    #[error("the hook did not answer")]
    Hook(#[from] HookError),
}

impl From<VolumesError> for BindError {
    fn from(error: VolumesError) -> Self {
        match error {
            VolumesError::NotRunning => Self::NotRunning,
            VolumesError::Containerd(error) => Self::Containerd(error),
            error => Self::Volume(error),
        }
    }
}

impl BindError {
    /// Stable word for why the binding is not complete.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotRunning | Self::Containerd(_) => "claim-not-running",
            Self::SecretMissing(_) => "claim-secret-missing",
            Self::FilesMissing => "claim-files-missing",
            Self::Host(_) | Self::Cookie(_) | Self::Screen(_) => "claim-failed",
            Self::Volume(_) => "claim-volume-failed",
            Self::Hook(HookError::Timeout { .. }) => "claim-hook-timeout",
            Self::Hook(_) => "claim-hook-failed",
        }
    }

    /// One sentence for people, with the next step.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{}: send the claim again, or delete the sandbox", chain(self))
    }
}

/// What was bound, and how long its parts took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// Exit status of the hook; none without a hook.
    pub hook_exit_code: Option<i32>,
    /// Names and times of the parts, in their order.
    pub steps: Vec<(&'static str, Duration)>,
}

impl Bound {
    fn step(&mut self, name: &'static str, since: Instant) -> Instant {
        let now = Instant::now();
        self.steps.push((name, now - since));
        now
    }
}

/// Binds a claim to a sandbox that is Ready. May be called again.
///
/// # Errors
/// See [`BindError`]; what was laid out stays.
pub async fn bind(node: &Node, bind: Bind) -> Result<Bound, BindError> {
    let Bind { desired, first_id, display_number, binding, parcel, needs_files } = bind;
    let mut bound = Bound::default();
    let mut begun = Instant::now();
    let image = node.images.prepare(&desired.spec.image).await;
    let account = image.map_err(|_| BindError::NotRunning)?.account.clone();
    let owner = (first_id + account.uid, first_id + account.gid);
    let dirs = node.layout.sandbox(&desired.id);
    let claim_dir = dirs.claim();
    let process = Arc::new(workload(node, &desired.id).await?);
    if let Some(before) = bound_before(&claim_dir, &binding.claim_id, &process)? {
        return Ok(before);
    }
    // First of all: a home that is attached must not be forgotten with the
    // ledger, or somebody else would get it too.
    let dir = ClaimDir::new(&claim_dir, owner);
    dir.keep(&Record { desired: desired.clone(), first_id, display_number })?;
    if !binding.volumes.is_empty() {
        // Before the files: some of them may belong into a volume.
        volumes::attach_to(node, &desired, first_id, &account, binding.volumes.clone(), process.pid()).await?;
        begun = bound.step("volumes", begun);
    }
    let of_files = process.clone();
    let new_files = parcel.as_ref().map(|parcel| parcel.files.clone()).unwrap_or_default();
    if needs_files && new_files.is_empty() {
        return Err(BindError::FilesMissing);
    }
    fault::point("claim.begun")?;
    let json = dir::claim_json(&desired, &binding);
    let (laid_out, sandbox) = (binding.clone(), desired.id.clone());
    let missing = blocking(move || {
        if let Some(missing) = dir.lay_out(&laid_out, &json, parcel.as_deref())? {
            return Ok(Some(missing));
        }
        fault::point("claim.laid_out")?;
        if !new_files.is_empty() {
            inside::write_files(&of_files, owner.0, owner.1, &new_files)?;
            fault::point("claim.files")?;
        }
        if let Some(hostname) = &laid_out.hostname {
            namespaces::set_hostname(&dirs.namespaces(), hostname)?;
            files::rewrite(&dirs.etc().join("hostname"), format!("{hostname}\n").as_bytes())?;
            let hosts = format!("127.0.0.1 localhost {hostname} {sandbox}\n::1 localhost\n");
            files::rewrite(&dirs.etc().join("hosts"), hosts.as_bytes())?;
            fault::point("claim.hostname")?;
        }
        Ok(None)
    });
    if let Some(missing) = missing.await? {
        return Err(BindError::SecretMissing(missing));
    }
    let mut begun = bound.step("files", begun);
    if let Some(screen) = binding.screen {
        let dirs = node.layout.sandbox(&desired.id);
        let address = XAddress { socket: dirs.x11_socket(display_number), cookie: Cookie::read(&dirs.xauth())? };
        let size = Geometry { width_px: screen.width_px, height_px: screen.height_px };
        resize_screen(&address, size, begun + SCREEN_TIMEOUT).await?;
        begun = bound.step("display", begun);
    }
    if desired.spec.claim.hook {
        let timeout = Duration::from_millis(desired.spec.claim.hook_timeout_ms.into());
        bound.hook_exit_code = Some(call_hook(&claim_dir, &binding.claim_id, timeout).await?);
        fault::point("claim.hooked")?;
        bound.step("hook", begun);
    }
    note_bound(&claim_dir, &binding.claim_id, &process, &bound)?;
    fault::point("claim.noted")?;
    Ok(bound)
}
