//! The central API of Roost: registry, placement, and the door through which
//! nodes and people come in.
//!
//! ```text
//!  people ── REST, gRPC ──▶ api, grpc ──▶ app ──▶ store (SQLite) ──▶ changes ─┬─▶ watchers
//!                                          │        ▲                         │
//!                                       tunnels     │ heartbeats              │ desired state
//!                                          ▼        │                         ▼
//!  nodes ── NodeLink, mTLS ─────────────▶ link ─────┴───────────────────── sessions
//! ```
//!
//! - [`config`]: the one configuration file. [`app`]: builds and spawns
//!   everything, and the verbs that REST and gRPC share, one file per noun.
//! - [`api`] and [`grpc`]: thin ends; errors become problem documents in
//!   [`api::problem`] only.
//! - [`store`]: the truth. [`changes`]: its commits, in order, to watchers and
//!   sessions. [`live`]: what is too restless for a disk.
//! - [`place`]: pure placement. [`rooms`]: where it looks first. [`ca`]: certificates. [`link`]: the nodes.
//! - [`new_file`]: files that get their name when they are whole.
//! - [`background`]: periodic duties. [`admin`] and [`metrics`]: for operators.

pub mod admin;
pub mod api;
pub mod app;
pub mod background;
pub mod ca;
pub mod changes;
pub mod clock;
pub mod config;
pub mod grpc;
pub mod link;
pub mod live;
pub mod log;
pub mod metrics;
pub mod new_file;
pub mod place;
pub mod pools;
pub mod rooms;
pub mod secret;
pub mod serve;
pub mod shutdown;
pub mod store;
pub mod tasks;
pub mod upkeep;
