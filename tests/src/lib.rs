//! Harness of the integration tests and benches: a private containerd, the
//! real daemons, real images, all under one temporary root.
//!
//! Everything is ended by its process id and nothing is left behind, also
//! when a test panics: the values here clean up when they are dropped.

pub mod cgroup;
pub mod client;
pub mod containerd;
pub mod counters;
pub mod fleet;
pub mod inside;
pub mod node;
pub mod process;
pub mod rest;
pub mod root;
pub mod seed;
pub mod system;
pub mod traces;
pub mod wait;

pub use client::NodeClient;
pub use containerd::Containerd;
pub use counters::Cgroup;
pub use node::TestNode;
pub use rest::Rest;
pub use root::Root;
pub use wait::{eventually, within};

/// Result of harness and tests: any error ends the test with its text.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
