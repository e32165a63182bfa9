//! The life of a sandbox.

pub mod desired;
pub mod manager;

pub use desired::{Desired, Origin, View};
pub use manager::{ApplyError, Manager, RequestError};
