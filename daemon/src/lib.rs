//! The Roost node daemon: owns the sandboxes of one node.
//!
//! - [`app`]: builds all of it and starts its tasks.
//! - [`sandbox`]: the life of a sandbox; one driver task owns one sandbox.
//! - [`reconcile`]: what is desired, kept in the ledger, against what exists.
//! - [`containerd`]: the only room that names containerd types.
//! - [`registry`]: registries as a source of images.
//! - [`pull`]: each image pulled once, however many ask.
//! - [`storage`]: directories of a bounded size.
//! - [`host`]: the only room with syscalls.
//! - [`display`]: the X server's files, readiness and pixels.
//! - [`link`]: the connection to central.
//! - [`api`]: the unix-socket API, also served through tunnels.
//! - [`node`]: what API, link and metrics ask, answered by the rooms above.
//! - [`doctor`]: whether a host is fit, and what it can and cannot do.
//! - [`facts`]: what the node is and how loaded, from procfs.
//! - [`admin`]: `/metrics`, `/live`, `/ready`.
//! - [`metrics`]: what Prometheus scrapes.
//! - [`sim`]: nodes that only play their part.
//! - [`tasks`]: the table of named asynchronous tasks.
//! - [`logging`]: one line per event; filter changeable at run time.

pub mod admin;
pub mod api;
pub mod app;
pub mod config;
pub mod containerd;
pub mod display;
pub mod doctor;
pub mod facts;
pub mod host;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod pool;
pub mod pull;
pub mod reconcile;
pub mod registry;
pub mod sandbox;
pub mod sim;
pub mod storage;
pub mod tasks;
pub mod volume;
