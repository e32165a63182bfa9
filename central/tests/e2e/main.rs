//! Central end to end: real HTTP, real TLS, real databases, and a node that
//! speaks NodeLink as roostd does.

// A test that panics has failed, which is what these are for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod claim;
mod command;
mod desks;
mod files;
mod harness;
mod keys;
mod lifecycle;
mod node;
mod node_api;
#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "shared with the tests inside the crate")]
mod postgres;
mod pull;
mod replicas;
mod rest;
mod restore;
mod session;
mod start;
mod timing;
mod tunnel;
mod update;
