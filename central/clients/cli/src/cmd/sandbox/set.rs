//! `roost sandbox set`.

use roost_proto::model::{ResourcesChange, Sandbox, UpdateSandbox};

use super::super::{App, Several};
use super::wait_for;
use crate::cli::SetArgs;
use crate::error::CliError;
use crate::output::Printer;
use crate::wait::progress::label;
use crate::wait::{Goal, Subject};

/// Changes what each sandbox may use, and waits until the kernel enforces it
/// when asked to.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: SetArgs) -> Result<(), CliError> {
    let client = app.client()?;
    let body = UpdateSandbox { resources: ResourcesChange::from(args.change) };
    let mut several = Several::new(app);
    let mut changed = Vec::new();
    for name in &args.sandboxes {
        let updated = client.update_sandbox(name, &body, args.if_generation).await;
        changed.extend(several.take(updated.map_err(CliError::from))?);
    }
    if args.waiting.wait {
        let subjects = changed.iter().map(Subject::of).collect();
        wait_for(app, &mut several, Goal::Updated, subjects, args.waiting.limit.timeout).await?;
    } else {
        show(app, &args, &changed)?;
    }
    several.finish()
}

fn show(app: &App, args: &SetArgs, changed: &[Sandbox]) -> Result<(), CliError> {
    let printer = Printer::new(&app.console, args.output);
    match changed {
        many if many.len() > 1 && printer.is_data() => printer.data(&many)?,
        all => {
            for sandbox in all {
                let name = label(sandbox);
                printer.one(sandbox, &name, || format!("{name} changed"))?;
            }
        }
    }
    Ok(())
}
