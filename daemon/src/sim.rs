//! A fleet of nodes that only play their part: for central's tests, benches
//! and anybody who wants to see ten thousand nodes on one machine.
//!
//! A simulated node is a real one above the seam [`crate::sandbox::Runtime`]:
//! the same states, drivers, manager, ledger records and connection to
//! central, with an identity of its own from a real enrolment. Below the seam
//! [`host::SimHost`] plays containers: a start takes as long as the script
//! says, fails as often, and ends when it is told to.
//!
//! - [`config`]: what is played.
//! - [`spread`]: times that vary.
//! - [`fault`]: why a simulated start fails.
//! - [`host`]: the simulated containers of one node.
//! - [`memory`]: the ledger of a node that has no disk.
//! - [`parts`]: what a simulated node answers through a tunnel.
//! - [`node`]: one simulated node.
//! - [`fleet`]: all of them.
//! - [`command`]: what an operator can have the fleet do.

pub mod command;
pub mod config;
pub mod fault;
pub mod fleet;
pub mod host;
pub mod memory;
pub mod node;
pub mod parts;
pub mod spread;

pub use config::SimConfig;
pub use fleet::Fleet;
