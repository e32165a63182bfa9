//! The real `roost` against a server that plays the API's contract.

// A test that meets the unexpected is to fail, here as in the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod batch;
mod catalog;
mod central;
mod config;
mod copy;
mod debug;
mod exec;
mod fakes;
mod image;
mod node;
mod pool;
mod run;
mod sandbox;
mod server;
