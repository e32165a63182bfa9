//! What is desired, kept in the ledger, against what exists.

pub mod events;
pub mod kills;
pub mod ledger;
pub mod plan;
pub mod startup;
