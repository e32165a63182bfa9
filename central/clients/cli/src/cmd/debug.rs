//! `roost debug`: the daemon on this machine, and others through central.

mod bundle;
mod local;
pub(super) mod trace;

use roost_proto::convert::InvalidMessage;
use roost_proto::model::NodeStatus;
use roost_proto::node::{
    GetNodeRequest, ListSandboxesRequest, ListTasksRequest, SetLogLevelRequest, StateDumpRequest, TaskInfo,
};
use serde::Serialize;

use super::node::show::status_fields;
use super::{App, socket_path};
use crate::cli::{DebugArgs, DebugCommand};
use crate::error::CliError;
use crate::node_socket::{NodeSocket, NodeSocketError};
use crate::output::printer::Listing;
use crate::output::{Card, Column, ListArgs, OutputArgs, Printer, Text, human};
pub(super) use local::LocalSandbox;

/// Runs one verb.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: DebugArgs) -> Result<(), CliError> {
    let path = socket_path(app, args.node_socket);
    let command = match args.command {
        // These do not always ask the daemon on this machine.
        DebugCommand::Trace(args) => return trace::run(app, args, path).await,
        DebugCommand::Bundle(args) => return bundle::run(app, args, path).await,
        command => command,
    };
    let socket = NodeSocket::connect(path).await?;
    match command {
        DebugCommand::Sandboxes(list) => local::list(app, &sandboxes(&socket).await?, list),
        DebugCommand::Sandbox(arg) => local::show(app, &find_local(&socket, &arg.sandbox).await?, arg.output),
        DebugCommand::Trace(_) | DebugCommand::Bundle(_) => Ok(()),
        DebugCommand::Tasks(list) => tasks(app, &socket, list).await,
        DebugCommand::Dump => dump(app, &socket).await,
        DebugCommand::LogLevel { filter } => log_level(app, &socket, filter).await,
        DebugCommand::Node(output) => node(app, &socket, output).await,
    }
}

async fn sandboxes(socket: &NodeSocket) -> Result<Vec<LocalSandbox>, NodeSocketError> {
    let answer = socket.api().list_sandboxes(ListSandboxesRequest {}).await?.into_inner();
    Ok(answer.sandboxes.into_iter().map(LocalSandbox::try_from).collect::<Result<_, InvalidMessage>>()?)
}

/// One sandbox by name or id: the node itself knows ids only.
pub(super) async fn find_local(socket: &NodeSocket, name: &str) -> Result<LocalSandbox, NodeSocketError> {
    let is_meant = |sandbox: &LocalSandbox| {
        sandbox.id.as_str() == name || sandbox.name.as_ref().is_some_and(|own| own.as_str() == name)
    };
    let found = sandboxes(socket).await?.into_iter().find(is_meant);
    found.ok_or_else(|| NodeSocketError::NotFound(name.to_owned()))
}

/// A task of the daemon as JSON shows it.
#[derive(Debug, Serialize)]
struct Task {
    name: String,
    state: String,
    age_ms: u64,
    state_age_ms: u64,
}

impl From<TaskInfo> for Task {
    fn from(task: TaskInfo) -> Self {
        Self { name: task.name, state: task.state, age_ms: task.age_ms, state_age_ms: task.state_age_ms }
    }
}

async fn tasks(app: &App, socket: &NodeSocket, args: ListArgs) -> Result<(), CliError> {
    const COLUMNS: [Column; 4] = [Column::new("NAME"), Column::new("STATE"), Column::new("SINCE"), Column::new("AGE")];
    let answer = socket.debug().list_tasks(ListTasksRequest {}).await.map_err(NodeSocketError::from)?;
    let tasks: Vec<Task> = answer.into_inner().tasks.into_iter().map(Task::from).collect();
    let row = |task: &Task| -> Vec<Text> {
        let (since, age) = (human::age(0, task.state_age_ms), human::age(0, task.age_ms));
        vec![task.name.clone().into(), task.state.clone().into(), since.into(), age.into()]
    };
    let name = |task: &Task| task.name.clone();
    let listing = Listing { columns: &COLUMNS, row: &row, name: &name, empty: "the daemon runs no tasks" };
    Ok(Printer::list(&app.console, args).items(&tasks, &listing)?)
}

/// Indented, if it is JSON as promised; as it is otherwise.
async fn dump(app: &App, socket: &NodeSocket) -> Result<(), CliError> {
    let answer = socket.debug().state_dump(StateDumpRequest {}).await.map_err(NodeSocketError::from)?;
    let text = answer.into_inner().json;
    let value = serde_json::from_str::<serde_json::Value>(&text);
    let pretty = value.ok().and_then(|value| serde_json::to_string_pretty(&value).ok());
    Ok(app.console.line(pretty.as_deref().unwrap_or(&text))?)
}

async fn log_level(app: &App, socket: &NodeSocket, filter: String) -> Result<(), CliError> {
    let request = SetLogLevelRequest { filter: filter.clone() };
    let answer = socket.debug().set_log_level(request).await.map_err(NodeSocketError::from)?.into_inner();
    Ok(app.console.line(&format!("{filter} (before: {})", answer.previous))?)
}

async fn node(app: &App, socket: &NodeSocket, output: OutputArgs) -> Result<(), CliError> {
    let answer = socket.api().get_node(GetNodeRequest {}).await.map_err(NodeSocketError::from)?;
    let status = NodeStatus::try_from(answer.into_inner()).map_err(NodeSocketError::from)?;
    Ok(Printer::new(&app.console, output).one(&status, &status.facts.hostname, || {
        let mut card = Card::new();
        status_fields(&mut card, &status, &app.console);
        card.draw(&app.console)
    })?)
}
