//! Volumes: homes that outlive sandboxes.
//!
//! ```text
//! <root>/volumes/<tenant>/<name>/
//!     volume.json        what it is: enough to know it again without a ledger
//!     disk/ disk.img     a bounded place (`crate::storage`)
//!     disk/home/         what sandboxes see; owners as they count inside
//! <root>/volumes/.new/       volumes that are being made
//! <root>/volumes/.removed/   volumes that are being removed
//! ```
//!
//! A volume is made whole beside its place and then moved there; it is moved
//! away before anything of it is removed. So a directory in its place is a
//! whole home at every moment, whatever is killed, and a directory that
//! nobody knows is never touched.
//!
//! [`VolumeTable`] says who has what (one writer at a time), [`Homes`] opens
//! and attaches, [`Volumes`] makes, resizes and removes.

mod adopt;
pub mod checkpoint;
mod dirs;
mod homes;
mod manager;
mod record;
mod save;
mod state;
mod table;

pub use dirs::VolumesDir;
pub use homes::{AttachError, Homes};
pub use manager::{VolumeError, Volumes};
pub use record::{VolumeKey, VolumeRecord};
pub use table::{HoldError, VolumeTable};
