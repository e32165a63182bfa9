//! What API, link and metrics ask of the node, answered by the domain.

pub mod debug;
pub mod exec;
pub mod files;
pub mod images;
pub mod logs;
pub mod pressure;
pub mod samples;
pub mod screenshots;
pub mod status;
pub mod support;
pub mod usage;
