//! `roost sandbox start|stop|restart|pause|resume`.

use super::super::{App, Several};
use super::{find, wait_for};
use crate::cli::VerbArgs;
use crate::client::Verb;
use crate::error::CliError;
use crate::wait::{Goal, Subject};

/// Asks each sandbox, and waits for all of them when asked to.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, verb: Verb, args: VerbArgs) -> Result<(), CliError> {
    let client = app.client()?;
    let mut several = Several::new(app);
    let mut subjects = Vec::new();
    for name in &args.sandboxes {
        let asked = client.ask_sandbox(name, verb).await;
        if several.take(asked.map_err(CliError::from))?.is_none() {
            continue;
        }
        if args.waiting.wait {
            subjects.extend(several.take(find(app, name).await)?.map(|sandbox| Subject::of(&sandbox)));
        } else {
            app.console.line(&format!("{name} {}", accepted(verb)))?;
        }
    }
    wait_for(app, &mut several, goal(verb), subjects, args.waiting.limit.timeout).await?;
    several.finish()
}

fn accepted(verb: Verb) -> &'static str {
    match verb {
        Verb::Start => "starting",
        Verb::Stop => "stopping",
        Verb::Restart => "restarting",
        Verb::Pause => "pausing",
        Verb::Resume => "resuming",
    }
}

fn goal(verb: Verb) -> Goal {
    match verb {
        Verb::Start | Verb::Restart | Verb::Resume => Goal::Ready,
        Verb::Pause => Goal::Paused,
        Verb::Stop => Goal::Stopped,
    }
}
