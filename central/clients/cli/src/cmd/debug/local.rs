//! A sandbox as its node sees it.

use roost_proto::convert::{InvalidMessage, WireEnum as _, parse, require};
use roost_proto::id::{SandboxId, SandboxName};
use roost_proto::model::{Observed, Resources, RunState, SandboxSpec};
use roost_proto::node;
use serde::Serialize;

use super::super::App;
use super::super::sandbox::{spec_fields, tone};
use crate::error::CliError;
use crate::output::printer::Listing;
use crate::output::{Card, Column, ListArgs, OutputArgs, Printer, Text, human};
use crate::wait::judge::status;

/// Wish and observation of one sandbox on its node.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct LocalSandbox {
    /// Which.
    pub(in super::super) id: SandboxId,
    /// What people call it.
    pub(super) name: Option<SandboxName>,
    /// Who owns it.
    tenant: String,
    /// Whether central made it.
    from_central: bool,
    /// Rises with every change of the wish.
    generation: u64,
    /// What is wanted.
    run_state: RunState,
    /// Asked restarts so far.
    restart_count: u64,
    /// What it is to be.
    spec: SandboxSpec,
    /// Requests and limits in place of those of the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    /// What was seen.
    pub(in super::super) observed: Observed,
    /// Unix time of its creation on this node, in milliseconds.
    created_at_unix_ms: u64,
}

impl LocalSandbox {
    /// Its name, or its id when it has none.
    pub(in super::super) fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| self.id.to_string(), ToString::to_string)
    }
}

impl TryFrom<node::Sandbox> for LocalSandbox {
    type Error = InvalidMessage;

    fn try_from(message: node::Sandbox) -> Result<Self, InvalidMessage> {
        let desired = require("desired", message.desired)?;
        let name = Some(desired.name.as_str()).filter(|name| !name.is_empty());
        Ok(Self {
            id: parse("desired.sandbox_id", &desired.sandbox_id)?,
            name: name.map(|name| parse("desired.name", name)).transpose()?,
            tenant: desired.tenant,
            from_central: message.from_central,
            generation: desired.generation,
            run_state: RunState::from_wire(desired.run_state)?,
            restart_count: desired.restart_count,
            spec: require("desired.spec", desired.spec)?.try_into()?,
            resources: desired.resources.map(Into::into),
            observed: require("observed", message.observed)?.try_into()?,
            created_at_unix_ms: message.created_at_unix_ms,
        })
    }
}

const COLUMNS: [Column; 8] = [
    Column::new("NAME"),
    Column::new("STATUS"),
    Column::new("WANTED"),
    Column::new("OWNER"),
    Column::new("GENERATION"),
    Column::new("MEMORY"),
    Column::new("AGE"),
    Column::wide("ID"),
];

/// Lists the node's sandboxes.
pub(super) fn list(app: &App, sandboxes: &[LocalSandbox], args: ListArgs) -> Result<(), CliError> {
    let now = human::now_unix_ms();
    let row = |sandbox: &LocalSandbox| row(sandbox, now);
    let listing = Listing { columns: &COLUMNS, row: &row, name: &LocalSandbox::label, empty: "no sandboxes here" };
    Ok(Printer::list(&app.console, args).items(sandboxes, &listing)?)
}

fn row(sandbox: &LocalSandbox, now: u64) -> Vec<Text> {
    let observed = &sandbox.observed;
    vec![
        sandbox.label().into(),
        Text::new(status(observed), tone(observed.phase)),
        format!("{:?}", sandbox.run_state).into(),
        owner(sandbox).into(),
        format!("{} / {}", observed.observed_generation, sandbox.generation).into(),
        observed.usage.map(|usage| human::size(usage.memory_bytes)).unwrap_or_default().into(),
        human::age(sandbox.created_at_unix_ms, now).into(),
        sandbox.id.to_string().into(),
    ]
}

fn owner(sandbox: &LocalSandbox) -> &'static str {
    if sandbox.from_central { "central" } else { "local" }
}

/// Shows everything about one sandbox.
pub(super) fn show(app: &App, sandbox: &LocalSandbox, output: OutputArgs) -> Result<(), CliError> {
    let card = || {
        let (now, observed) = (human::now_unix_ms(), &sandbox.observed);
        let mut card = Card::new();
        card.field("Name", sandbox.name.as_ref().map(ToString::to_string).unwrap_or_default())
            .field("Id", sandbox.id.to_string())
            .field("Tenant", sandbox.tenant.clone())
            .field("Owner", owner(sandbox))
            .field("Status", Text::new(status(observed), tone(observed.phase)))
            .field("Message", observed.message.clone().unwrap_or_default())
            .field("Wanted", format!("{:?}", sandbox.run_state))
            .field("Generation", format!("{}, observed {}", sandbox.generation, observed.observed_generation))
            .field("Revision", observed.revision.to_string())
            .field("Restarts asked", sandbox.restart_count.to_string())
            .field("Starts", observed.starts.to_string())
            .field("X display", observed.display.map(|display| format!(":{}", display.number)).unwrap_or_default())
            .field("Created", human::moment(sandbox.created_at_unix_ms, now));
        spec_fields(&mut card, &sandbox.spec, sandbox.resources.as_ref().unwrap_or(&sandbox.spec.resources));
        card.draw(&app.console)
    };
    Ok(Printer::new(&app.console, output).one(sandbox, &sandbox.label(), card)?)
}
