//! `roost sandbox ls`.

use std::collections::BTreeMap;

use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{Node, Phase, Sandbox};

use super::super::{App, node};
use crate::cli::ListSandboxesArgs;
use crate::client::{Filter, Watch, WatchEvent};
use crate::error::CliError;
use crate::output::printer::{Format, Listing};
use crate::output::{Column, ListArgs, OutputArgs, Printer, Text, Tone, human};
use crate::wait::judge::status;
use crate::wait::progress::label;

const COLUMNS: [Column; 11] = [
    Column::new("NAME"),
    Column::new("STATUS"),
    Column::new("TEMPLATE"),
    Column::new("NODE"),
    Column::new("MEMORY"),
    Column::new("AGE"),
    Column::wide("STARTS"),
    Column::wide("SCREEN"),
    Column::wide("PIDS"),
    Column::wide("IMAGE"),
    Column::wide("ID"),
];

/// What is said of an empty list.
const EMPTY: &str = "no sandboxes; make one: roost sandbox create desktop --wait";

/// Lists sandboxes, and goes on with every change when asked to.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: ListSandboxesArgs) -> Result<(), CliError> {
    let client = app.client()?;
    let node = match &args.node {
        Some(name) => Some(node::find(client, name).await?.id),
        None => None,
    };
    let filter = Filter { phase: args.phase, template: args.template.clone(), node };
    let printer = Printer::list(&app.console, args.list);
    let names =
        if matches!(printer.format, Format::Table | Format::Wide) { node_names(app).await } else { Names::default() };
    if args.watch {
        return watch(app, &printer, &filter, &names).await;
    }
    let sandboxes = client.list_sandboxes(&filter).await?;
    let now = human::now_unix_ms();
    let row = |sandbox: &Sandbox| row(sandbox, &names, now);
    Ok(printer.items(&sandboxes, &Listing { columns: &COLUMNS, row: &row, name: &label, empty: EMPTY })?)
}

/// Shows sandboxes that a command has made, as a list of them.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn table(app: &App, output: OutputArgs, sandboxes: &[Sandbox]) -> Result<(), CliError> {
    let printer = Printer::list(&app.console, ListArgs { format: output, no_headers: false });
    let names =
        if matches!(printer.format, Format::Table | Format::Wide) { node_names(app).await } else { Names::default() };
    let now = human::now_unix_ms();
    let row = |sandbox: &Sandbox| row(sandbox, &names, now);
    Ok(printer.items(sandboxes, &Listing { columns: &COLUMNS, row: &row, name: &label, empty: EMPTY })?)
}

/// Names of nodes by id.
#[derive(Debug, Default)]
struct Names(BTreeMap<NodeId, String>);

/// Names are a nicety: who may not see nodes sees their ids.
async fn node_names(app: &App) -> Names {
    let Ok(client) = app.client() else { return Names::default() };
    let nodes = client.list_nodes().await.unwrap_or_default();
    Names(nodes.into_iter().map(|Node { id, name, .. }| (id, name)).collect())
}

fn row(sandbox: &Sandbox, names: &Names, now: u64) -> Vec<Text> {
    let observed = &sandbox.observed;
    let node = names.0.get(&sandbox.node_id).cloned().unwrap_or_else(|| sandbox.node_id.to_string());
    let usage = observed.usage.filter(|_| observed.phase != Phase::Stopped);
    let display = sandbox.spec.display;
    vec![
        label(sandbox).into(),
        Text::new(status(observed), tone(observed.phase)),
        sandbox.spec.template.to_string().into(),
        node.into(),
        usage.map(|usage| human::size(usage.memory_bytes)).unwrap_or_default().into(),
        human::age(sandbox.created_at_unix_ms, now).into(),
        observed.starts.to_string().into(),
        format!("{}x{}", display.width_px, display.height_px).into(),
        usage.map(|usage| usage.pids.to_string()).unwrap_or_default().into(),
        sandbox.spec.image.to_string().into(),
        sandbox.id.to_string().into(),
    ]
}

/// The colour of a phase.
pub(crate) fn tone(phase: Phase) -> Tone {
    match phase {
        Phase::Ready => Tone::Good,
        Phase::Pending | Phase::Starting | Phase::Stopping | Phase::Deleting => Tone::Busy,
        Phase::Failed => Tone::Bad,
        Phase::Paused | Phase::Stopped | Phase::Gone => Tone::Dim,
    }
}

/// The present state first, then one row per change, without end.
async fn watch(app: &App, printer: &Printer<'_>, filter: &Filter, names: &Names) -> Result<(), CliError> {
    let client = app.client()?;
    let mut watch = Watch::new(client.clone(), None);
    let mut view = View { printer, names, shown: BTreeMap::new(), widths: None };
    let mut is_lost = false;
    loop {
        match watch.next().await? {
            WatchEvent::Connected => {
                is_lost = false;
                view.all(client.list_sandboxes(filter).await?)?;
            }
            WatchEvent::Sandbox(sandbox) => view.change(&sandbox, filter)?,
            WatchEvent::Gone(id) => view.gone(&id)?,
            WatchEvent::Lost(error) => {
                if !is_lost {
                    app.console.warn(&format!("{error}; connecting again"));
                }
                is_lost = true;
            }
        }
    }
}

/// What a watching list has shown.
struct View<'a> {
    printer: &'a Printer<'a>,
    names: &'a Names,
    shown: BTreeMap<SandboxId, Sandbox>,
    /// Widths of the columns, once there is a table.
    widths: Option<Vec<u16>>,
}

impl View<'_> {
    /// Shows what differs from what was shown; all of it at first.
    fn all(&mut self, sandboxes: Vec<Sandbox>) -> Result<(), CliError> {
        let now: BTreeMap<_, _> = sandboxes.into_iter().map(|sandbox| (sandbox.id.clone(), sandbox)).collect();
        let gone: Vec<_> = self.shown.keys().filter(|id| !now.contains_key(*id)).cloned().collect();
        for id in gone {
            self.gone(&id)?;
        }
        let new: Vec<_> = now.into_values().filter(|sandbox| self.differs(sandbox)).collect();
        self.rows(&new)
    }

    fn change(&mut self, sandbox: &Sandbox, filter: &Filter) -> Result<(), CliError> {
        // One that leaves the filter is shown a last time.
        if (filter.matches(sandbox) || self.shown.contains_key(&sandbox.id)) && self.differs(sandbox) {
            self.rows(std::slice::from_ref(sandbox))?;
        }
        if !filter.matches(sandbox) {
            self.shown.remove(&sandbox.id);
        }
        Ok(())
    }

    fn gone(&mut self, id: &SandboxId) -> Result<(), CliError> {
        let Some(mut sandbox) = self.shown.remove(id) else { return Ok(()) };
        if sandbox.observed.phase != Phase::Gone {
            sandbox.observed.phase = Phase::Gone;
            self.rows(std::slice::from_ref(&sandbox))?;
            self.shown.remove(id);
        }
        Ok(())
    }

    /// Whether anything but the use of memory and time changed.
    fn differs(&self, sandbox: &Sandbox) -> bool {
        self.shown.get(&sandbox.id).is_none_or(|shown| {
            status(&shown.observed) != status(&sandbox.observed) || shown.generation != sandbox.generation
        })
    }

    fn rows(&mut self, sandboxes: &[Sandbox]) -> Result<(), CliError> {
        for sandbox in sandboxes {
            self.shown.insert(sandbox.id.clone(), sandbox.clone());
        }
        match self.printer.format {
            Format::Json | Format::Yaml => Ok(sandboxes.iter().try_for_each(|item| self.printer.stream_item(item))?),
            Format::Name => Ok(sandboxes.iter().try_for_each(|item| self.printer.console.line(&label(item)))?),
            Format::Table | Format::Wide => self.table(sandboxes),
        }
    }

    fn table(&mut self, sandboxes: &[Sandbox]) -> Result<(), CliError> {
        if sandboxes.is_empty() {
            return Ok(());
        }
        let now = human::now_unix_ms();
        let rows = sandboxes.iter().map(|sandbox| row(sandbox, self.names, now)).collect();
        let drawing = match self.widths.take() {
            Some(widths) => self.printer.drawing().continued(widths),
            None => self.printer.drawing(),
        };
        let (text, widths) = drawing.draw(&COLUMNS, rows);
        self.widths = Some(widths);
        Ok(self.printer.console.line(&text)?)
    }
}
