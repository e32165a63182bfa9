//! The wire format of Roost and the vocabulary that its parts share.
//!
//! - [`types`], [`node`], [`central`]: generated messages and services, one
//!   module per protobuf package.
//! - [`id`]: typed ids and names; never pass one as a bare string.
//! - [`model`]: the same nouns as strict Rust types, as JSON and TOML show
//!   them, with their validation.
//! - [`protocol`]: which versions of NodeLink there are and how two peers agree.
//! - [`convert`]: between messages and model; every message from outside goes
//!   through it once, at the edge.
//! - [`support`]: what support bundles are made with, feature `support`.
//! - [`tree`]: directory trees as tar archives, feature `tree`.

pub mod convert;
pub mod id;
pub mod model;
pub mod protocol;
#[cfg(feature = "support")]
pub mod support;
#[cfg(feature = "tree")]
pub mod tree;

pub use protocol::PROTOCOL_VERSION;

/// Name under which every node finds central in its server certificate,
/// whatever address it dials.
pub const CENTRAL_TLS_NAME: &str = "central.roost.internal";

/// Encoded descriptors of all services, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("roost");

pub use generated::roost::central::v1 as central;
pub use generated::roost::node::v1 as node;
pub use generated::roost::types::v1 as types;

/// Nested like the protobuf packages, as generated code refers to itself.
#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]
#[allow(clippy::too_many_lines, clippy::or_fun_call, clippy::needless_pass_by_value)]
#[rustfmt::skip]
mod generated {
    pub mod roost {
        pub mod central { pub mod v1 { tonic::include_proto!("roost.central.v1"); } }
        pub mod node { pub mod v1 { tonic::include_proto!("roost.node.v1"); } }
        pub mod types { pub mod v1 { tonic::include_proto!("roost.types.v1"); } }
    }
}
