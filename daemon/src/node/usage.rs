//! Samples what each running sandbox uses.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::Phase;

use crate::host::blocking;
use crate::sandbox::{Manager, Runtime};

/// Between two samples: four small files per sandbox, about 20 ms of CPU for
/// a thousand of them.
const PERIOD: Duration = Duration::from_secs(10);

/// Samples for ever.
pub async fn sample(runtime: Arc<dyn Runtime>, manager: Manager) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let ready = manager.changed_since(0).into_iter().filter(|view| view.observed.phase == Phase::Ready);
        let ids: Vec<SandboxId> = ready.map(|view| view.desired.id.clone()).collect();
        let (runtime, table) = (runtime.clone(), manager.table().clone());
        let sampled = blocking(move || {
            for id in ids {
                match runtime.usage(&id) {
                    Ok(usage) => table.set_usage(&id, usage),
                    // It ended since the list was made.
                    Err(error) => tracing::debug!(sandbox = %id, %error, "usage cannot be read"),
                }
            }
            Ok(())
        });
        if let Err(error) = sampled.await {
            tracing::debug!(%error, "usage was not sampled");
        }
    }
}
