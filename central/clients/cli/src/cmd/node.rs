//! `roost node`.

mod orphan;
mod rotate;
pub(super) mod show;
mod token;

use roost_proto::id::NodeId;
use roost_proto::model::{Node, NodePhase};

use super::{App, Several, confirm};
use crate::cli::{NodeCommand, RemoveNodeArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::printer::Listing;
use crate::output::{Column, ListArgs, Printer, Text, Tone, human};

const COLUMNS: [Column; 12] = [
    Column::new("NAME"),
    Column::new("STATUS"),
    Column::new("SANDBOXES"),
    Column::new("CPU"),
    Column::new("MEMORY"),
    Column::new("VERSION"),
    Column::new("AGE"),
    Column::wide("HEARTBEAT"),
    Column::wide("DISK FREE"),
    Column::wide("KERNEL"),
    Column::wide("CONTAINERD"),
    Column::wide("ID"),
];

/// What is said of an empty list.
const EMPTY: &str = "no nodes; let one join: roost node join-token";

/// Runs one verb.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, command: NodeCommand) -> Result<(), CliError> {
    match command {
        NodeCommand::Ls(args) => list(app, args).await,
        NodeCommand::Get(args) => show::run(app, &args.nodes, args.output).await,
        NodeCommand::Rm(args) => remove(app, &args).await,
        NodeCommand::Rotate(args) => rotate::run(app, &args).await,
        NodeCommand::Orphans(args) => orphan::run(app, args).await,
        NodeCommand::Readmit(args) => orphan::readmit(app, &args).await,
        NodeCommand::JoinToken(args) => token::run(app, args).await,
    }
}

/// A node by name or id.
///
/// # Errors
/// There is none, or there are two of that name.
pub(super) async fn find(client: &Client, name: &str) -> Result<Node, CliError> {
    if let Ok(id) = name.parse::<NodeId>() {
        return Ok(client.get_node(&id).await?);
    }
    pick(client.list_nodes().await?, name)
}

fn pick(nodes: Vec<Node>, name: &str) -> Result<Node, CliError> {
    let all = nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>().join(", ");
    let mut named = nodes.into_iter().filter(|node| node.name == name);
    match (named.next(), named.next()) {
        (Some(node), None) => Ok(node),
        (Some(first), Some(second)) => Err(CliError::usage(
            format!("several nodes are called \"{name}\""),
            format!("use an id, e.g. {} or {}", first.id, second.id),
        )),
        (None, _) => Err(not_found(name, &all)),
    }
}

fn not_found(name: &str, all: &str) -> CliError {
    let detail = match all {
        "" => format!("there is no node \"{name}\": no node has joined yet"),
        all => format!("there is no node \"{name}\": use one of {all}"),
    };
    let problem = roost_proto::model::Problem {
        kind: "/problems/node-not-found".into(),
        title: "There is no such node".into(),
        status: 404,
        code: "node-not-found".into(),
        detail,
        errors: Vec::new(),
        request_id: None,
    };
    crate::client::ClientError::Problem { problem: Box::new(problem), token_origin: String::new() }.into()
}

async fn list(app: &App, args: ListArgs) -> Result<(), CliError> {
    let nodes = app.client()?.list_nodes().await?;
    let now = human::now_unix_ms();
    let row = |node: &Node| row(node, now);
    let name = |node: &Node| node.name.clone();
    let listing = Listing { columns: &COLUMNS, row: &row, name: &name, empty: EMPTY };
    Ok(Printer::list(&app.console, args).items(&nodes, &listing)?)
}

fn row(node: &Node, now: u64) -> Vec<Text> {
    let (capacity, facts, load) = (node.status.capacity, &node.status.facts, node.status.load);
    let of = |used: String, all: String| format!("{used} / {all}");
    vec![
        node.name.clone().into(),
        status(node),
        of(node.sandboxes.to_string(), capacity.sandboxes_max.to_string()).into(),
        of(human::cores(node.cpu_requested_millis), human::cores(capacity.cpu_allocatable_millis)).into(),
        of(human::size(node.memory_requested_bytes), human::size(capacity.memory_allocatable_bytes)).into(),
        facts.daemon_version.clone().into(),
        human::age(node.enrolled_at_unix_ms, now).into(),
        node.last_heartbeat_unix_ms.map(|at| format!("{} ago", human::age(at, now))).unwrap_or_default().into(),
        human::size(load.disk_free_bytes).into(),
        facts.kernel.clone().into(),
        facts.containerd_version.clone().into(),
        node.id.to_string().into(),
    ]
}

/// Phase, with the conditions that somebody must look after.
fn status(node: &Node) -> Text {
    let bad: Vec<_> = node.status.conditions.iter().filter(|c| !c.is_healthy()).collect();
    let tone = if bad.iter().any(|c| c.stops_placement()) { Tone::Bad } else { Tone::Busy };
    let bad: Vec<_> =
        bad.into_iter().map(|c| if c.is_true { c.kind.clone() } else { format!("not {}", c.kind) }).collect();
    match node.phase {
        NodePhase::Online if bad.is_empty() => Text::new("Online", Tone::Good),
        NodePhase::Online => Text::new(format!("Online, {}", bad.join(", ")), tone),
        NodePhase::Enrolled => Text::new("Enrolled", Tone::Busy),
        NodePhase::Stale => Text::new("Stale", Tone::Busy),
        NodePhase::Offline => Text::new("Offline", Tone::Bad),
    }
}

async fn remove(app: &App, args: &RemoveNodeArgs) -> Result<(), CliError> {
    let client = app.client()?;
    let mut several = Several::new(app);
    for name in &args.nodes {
        let removed = async {
            let node = find(client, name).await?;
            if args.force && node.sandboxes > 0 && !args.yes {
                let what = human::count(usize::try_from(node.sandboxes).unwrap_or(usize::MAX), "sandbox", "sandboxes");
                confirm(&format!("Remove {} and give up {what} on it?", node.name))?;
            }
            client.delete_node(&node.id, args.force).await?;
            Ok(node)
        };
        if let Some(node) = several.take(removed.await)? {
            app.console.line(&format!("{} removed", node.name))?;
        }
    }
    several.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::{NodeCondition, NodeStatus};

    fn node(name: &str) -> Node {
        Node {
            id: NodeId::random(),
            name: name.into(),
            phase: NodePhase::Online,
            status: NodeStatus::default(),
            cpu_requested_millis: 500,
            memory_requested_bytes: 1 << 30,
            sandboxes: 3,
            last_heartbeat_unix_ms: None,
            enrolled_at_unix_ms: 0,
            protocol_version: None,
            certificate: None,
        }
    }

    #[test]
    fn a_node_is_found_by_its_name_if_only_one_has_it() {
        assert_eq!(pick(vec![node("a"), node("b")], "b").unwrap().name, "b");
        assert_eq!(pick(vec![node("a"), node("a")], "a").unwrap_err().exit() as u8, 2);
        let missing = pick(vec![node("a")], "c").unwrap_err();
        assert_eq!((missing.exit() as u8, missing.to_string().contains("use one of a")), (3, true));
    }

    #[test]
    fn a_condition_that_does_not_hold_is_in_the_status() {
        let mut node = node("a");
        assert_eq!(status(&node).text, "Online");
        node.status.conditions = vec![NodeCondition {
            kind: "ContainerdReady".into(),
            is_true: false,
            reason: "down".into(),
            message: String::new(),
        }];
        assert_eq!(status(&node).text, "Online, not ContainerdReady");
        let pressure = |is_true| NodeCondition {
            kind: "DiskPressure".into(),
            is_true,
            reason: String::new(),
            message: String::new(),
        };
        node.status.conditions.push(pressure(false));
        assert_eq!(status(&node).text, "Online, not ContainerdReady");
        node.status.conditions[1] = pressure(true);
        assert_eq!(status(&node).text, "Online, not ContainerdReady, DiskPressure");
        node.status.conditions = vec![NodeCondition { kind: NodeCondition::CLOCK_SKEW.into(), ..pressure(true) }];
        let warned = status(&node);
        assert_eq!((warned.text.as_str(), warned.tone), ("Online, ClockSkew", Tone::Busy));
    }
}
