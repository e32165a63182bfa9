//! Takes note when `roost-central ca` or a restore changed the files of the CA.

use std::sync::Arc;
use std::time::Duration;

use crate::app::Central;

/// How often: a rotation begins within this, on every replica that shares the
/// directory. A look costs a few directory entries.
const PERIOD: Duration = Duration::from_secs(2);

/// Runs until central shuts down.
pub async fn run(central: Arc<Central>) {
    let ending = central.tasks.ending().clone();
    let mut ticks = tokio::time::interval(PERIOD);
    let mut seen = central.ca.print();
    loop {
        // A tick is cancel-safe, and the duty itself is never cut.
        tokio::select! {
            _ = ticks.tick() => {}
            () = ending.cancelled() => return,
        }
        let print = central.ca.print();
        if print == seen {
            continue;
        }
        let keeper = central.ca.clone();
        match tokio::task::spawn_blocking(move || keeper.reload()).await {
            Ok(Ok(())) => {
                // What a retirement finished meanwhile is seen by the next tick.
                seen = print;
                let present = central.ca.present();
                let (serving, next) = (present.serving().key_id(), present.next().map(|next| next.key_id()));
                tracing::info!(serving, next, "certificate authorities changed");
            }
            Ok(Err(error)) => tracing::error!(error = crate::log::chain(&error), "the files of the CA cannot be used"),
            Err(error) => tracing::error!(%error, "the files of the CA could not be read"),
        }
    }
}
