//! NodeLink between the real ends and peers that tests play: releases of the
//! protocol before this one, and many nodes at once.

// A test fails by a panic, in its helpers as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod central;
mod golden;
mod machine;
mod old_central;
mod old_node;
mod pipe;
mod rotation;
mod storm;

#[path = "../../../daemon/tests/support/fakes.rs"]
mod fakes;

use std::time::Duration;

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what must happen.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
