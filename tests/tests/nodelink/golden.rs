//! Protocol version 1, as proto/golden/v1 has it.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, dead_code, clippy::all, clippy::pedantic)]
#![allow(clippy::too_many_lines, clippy::or_fun_call, clippy::needless_pass_by_value)]

/// The only version that a peer of that release speaks.
pub(crate) const VERSION: u32 = 1;

pub(crate) use roost::node::v1 as node;
pub(crate) use roost::types::v1 as types;

mod roost {
    pub mod node {
        pub mod v1 {
            tonic::include_proto!("roost.node.v1");
        }
    }
    pub mod types {
        pub mod v1 {
            tonic::include_proto!("roost.types.v1");
        }
    }
}
