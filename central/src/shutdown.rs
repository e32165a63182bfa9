//! How central ends: a signal, a drain, a deadline.

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn signalled() -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Both arms only read a signal counter: cancel-safe.
    let name = tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    info!(signal = name, "shutdown begins");
    Ok(())
}
