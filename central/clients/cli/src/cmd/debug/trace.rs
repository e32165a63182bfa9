//! `roost debug trace`: where the time of starts went.

pub(crate) mod chart;
mod summary;

use roost_proto::convert::InvalidMessage;
use roost_proto::id::{SandboxId, SandboxName};
use roost_proto::model::{Observed, StartRecord};
use roost_proto::node::ListStartsRequest;

use super::super::{App, node};
use super::find_local;
use crate::cli::TraceArgs;
use crate::error::CliError;
use crate::node_socket::{NodeSocket, NodeSocketError};
use crate::output::{OutputArgs, Printer, human};
use crate::wait::judge::{start_us, status};
use crate::wait::progress::label;
use chart::{Look, chart};
use summary::Summary;

/// Starts of a node that are summed up unless told otherwise.
const DEFAULT_LAST: u32 = 100;

/// Shows the last start of a sandbox, or many starts summed up.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: TraceArgs, socket: std::path::PathBuf) -> Result<(), CliError> {
    match (&args.node, &args.sandbox) {
        (Some(name), sandbox) => {
            let client = app.client()?;
            let node = node::find(client, name).await?;
            let sandbox = match sandbox {
                Some(name) => Some(client.get_sandbox(&parse_name(name)?).await?),
                None => None,
            };
            if let (Some(sandbox), None) = (&sandbox, args.last) {
                return last_start(app, &label(sandbox), &sandbox.observed, args.output);
            }
            let id = sandbox.as_ref().map(|sandbox| &sandbox.id);
            let last = Some(args.last.unwrap_or(DEFAULT_LAST));
            let starts = client.node_starts(&node.id, id, last).await?;
            many(app, args.sandbox.as_deref().unwrap_or(name), &starts, args.output)
        }
        (None, Some(name)) => {
            let socket = NodeSocket::connect(socket).await?;
            let sandbox = find_local(&socket, name).await?;
            match args.last {
                None => last_start(app, &sandbox.label(), &sandbox.observed, args.output),
                Some(last) => many(app, name, &local(&socket, Some(&sandbox.id), last).await?, args.output),
            }
        }
        (None, None) => {
            let socket = NodeSocket::connect(socket).await?;
            let starts = local(&socket, None, args.last.unwrap_or(DEFAULT_LAST)).await?;
            many(app, "this node", &starts, args.output)
        }
    }
}

fn parse_name(name: &str) -> Result<SandboxName, CliError> {
    name.parse().map_err(|error| CliError::usage(format!("{name}: {error}"), "see what there is: roost sandbox ls"))
}

/// The starts that the daemon on this machine remembers.
async fn local(socket: &NodeSocket, id: Option<&SandboxId>, last: u32) -> Result<Vec<StartRecord>, NodeSocketError> {
    let request = ListStartsRequest { sandbox_id: id.map(ToString::to_string).unwrap_or_default(), last };
    let answer = socket.support().list_starts(request).await?.into_inner();
    Ok(answer.starts.into_iter().map(StartRecord::try_from).collect::<Result<_, InvalidMessage>>()?)
}

fn last_start(app: &App, label: &str, observed: &Observed, output: OutputArgs) -> Result<(), CliError> {
    let printer = Printer::new(&app.console, output);
    Ok(printer.one(&observed.stages, label, || match start_us(observed) {
        None => format!("{label} has not been started yet ({})", status(observed)),
        Some(total) => format!(
            "{label} {}, last start {}\n\n{}",
            status(observed),
            human::duration_us(total),
            chart(&observed.stages, Look::of(&app.console))
        ),
    })?)
}

fn many(app: &App, of: &str, starts: &[StartRecord], output: OutputArgs) -> Result<(), CliError> {
    if starts.is_empty() && !Printer::new(&app.console, output).is_data() {
        app.console.note("no start since the daemon began: it remembers those that it made itself");
        return Ok(());
    }
    let summary = Summary::of(starts);
    Ok(Printer::new(&app.console, output).one(&summary, of, || summary.text(of, Look::of(&app.console)))?)
}
