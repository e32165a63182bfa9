//! The Roost node daemon: owns the sandboxes of one node.
//!
//! - [`sandbox`]: the life of a sandbox; one driver task owns one sandbox.
//! - [`reconcile`]: what is desired, kept in the ledger, against what exists.
//! - [`containerd`]: the only room that names containerd types.
//! - [`host`]: the only room with syscalls.
//! - [`display`]: the X server's files, readiness and pixels.
//! - [`link`]: the connection to central.
//! - [`api`]: the unix-socket API, also served through tunnels.

pub mod sandbox;
