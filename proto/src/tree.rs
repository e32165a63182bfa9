//! Directory trees as tar archives: both ends of a copy.
//!
//! Neither side trusts the other, nor who works in the tree meanwhile. Every
//! step is one name relative to an open directory, and no link below the top
//! is followed: a directory that is swapped for a link leads nowhere. Memory
//! does not grow with the tree or its files.
//!
//! - [`Packer`] reads a tree. What cannot be read as it should be is named in
//!   the report, and the rest goes on.
//! - [`unpack`] writes one. Names with `..`, absolute names, a name below a
//!   link, links to files outside, devices, sockets and FIFOs end it. A file
//!   appears whole: it is written under another name and then renamed.
//! - [`Target`] says where: the rules of `cp` for what exists and what does not.

mod error;
mod file;
mod input;
mod level;
mod local;
mod name;
mod pack;
mod target;
#[cfg(test)]
mod tests;
mod unpack;

pub use error::TreeError;
pub use local::open_top;
pub use pack::Packer;
pub use target::Target;
pub use unpack::{Rules, unpack};

/// Deepest tree that is copied: far beyond what programs make, and one or two
/// descriptors a level.
const MAX_DEPTH: usize = 128;

/// Bytes moved at once: few system calls, little memory.
pub const PIECE_BYTES: usize = 256 << 10;
