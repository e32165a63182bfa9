//! How long a sandbox lives.

use std::time::Duration;

use clap::Args;
use roost_proto::model::{ExpiryAction, LifetimeChange};

use crate::values;

/// `--ttl` and `--idle…`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LifetimeArgs {
    /// Delete it after so long, from now on (30m, 8h, 7d); time in which it is
    /// stopped does not count; 0 = never
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    ttl: Option<Duration>,
    /// End it when nobody used it for so long: no input, no program or
    /// screenshot from outside, little CPU; 0 = never
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    idle: Option<Duration>,
    /// What --idle does: stop, pause or delete
    #[arg(long, value_name = "ACTION", value_parser = action)]
    idle_action: Option<ExpiryAction>,
    /// CPU from which on it counts as used, in cores or thousandths (0.1, 100m)
    #[arg(long, value_name = "CORES", value_parser = values::cores)]
    idle_cpu: Option<u32>,
}

impl From<LifetimeArgs> for LifetimeChange {
    fn from(args: LifetimeArgs) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            ttl_ms: args.ttl.map(ms),
            idle_timeout_ms: args.idle.map(ms),
            idle_action: args.idle_action,
            idle_cpu_millis: args.idle_cpu,
        }
    }
}

fn action(text: &str) -> Result<ExpiryAction, String> {
    let all = [ExpiryAction::Stop, ExpiryAction::Pause, ExpiryAction::Delete];
    all.into_iter().find(|action| action.as_str() == text).ok_or_else(|| "use stop, pause or delete".into())
}
