//! `roost node orphans` and `roost node readmit`.

use std::collections::HashMap;

use roost_proto::id::NodeId;
use roost_proto::model::{AdoptOrphan, Orphan, ReadmitNode};

use super::super::{App, Several, confirm};
use super::find;
use crate::cli::{ChooseOrphans, OrphanAction, OrphansArgs, ReadmitNodeArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::printer::Listing;
use crate::output::{Column, ListArgs, Printer, Text, human};

const COLUMNS: [Column; 6] = [
    Column::new("ID"),
    Column::new("NAME"),
    Column::new("NODE"),
    Column::new("PHASE"),
    Column::new("TEMPLATE"),
    Column::new("CREATED"),
];

/// Lists, adopts or removes orphans.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: OrphansArgs) -> Result<(), CliError> {
    match args.action {
        OrphanAction::Ls { node, list } => ls(app, node.as_deref(), list).await,
        OrphanAction::Adopt { chosen, name } => adopt(app, &chosen, name).await,
        OrphanAction::Rm { chosen, yes } => remove(app, &chosen, yes).await,
    }
}

/// Takes a node back that was enrolled after the backup.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn readmit(app: &App, args: &ReadmitNodeArgs) -> Result<(), CliError> {
    let node = app.client()?.readmit_node(&args.node, &ReadmitNode { name: args.name.clone() }).await?;
    Ok(app.console.line(&format!("{} readmitted: it connects within a minute", node.name))?)
}

async fn ls(app: &App, node: Option<&str>, list: ListArgs) -> Result<(), CliError> {
    let client = app.client()?;
    let orphans = of_node(client, node).await?;
    let names: HashMap<NodeId, String> =
        client.list_nodes().await?.into_iter().map(|node| (node.id, node.name)).collect();
    let now = human::now_unix_ms();
    let row = |orphan: &Orphan| -> Vec<Text> {
        let sandbox = &orphan.sandbox;
        vec![
            sandbox.id.to_string().into(),
            sandbox.name.as_ref().map(ToString::to_string).unwrap_or_default().into(),
            names.get(&sandbox.node_id).cloned().unwrap_or_else(|| sandbox.node_id.to_string()).into(),
            sandbox.observed.phase.to_string().into(),
            sandbox.spec.template.to_string().into(),
            human::moment(sandbox.created_at_unix_ms, now).into(),
        ]
    };
    let name = |orphan: &Orphan| orphan.sandbox.id.to_string();
    let listing = Listing { columns: &COLUMNS, row: &row, name: &name, empty: "no orphans" };
    Ok(Printer::list(&app.console, list).items(&orphans, &listing)?)
}

async fn of_node(client: &Client, node: Option<&str>) -> Result<Vec<Orphan>, CliError> {
    let node = match node {
        Some(name) => Some(find(client, name).await?.id),
        None => None,
    };
    Ok(client.list_orphans(node.as_ref()).await?)
}

/// The orphans that are meant: by id or name, or all (of a node).
async fn choose(client: &Client, chosen: &ChooseOrphans) -> Result<Vec<Orphan>, CliError> {
    let orphans = of_node(client, chosen.node.as_deref()).await?;
    if chosen.all {
        return Ok(orphans);
    }
    let pick = |wanted: &String| {
        let is_it = |orphan: &&Orphan| {
            orphan.sandbox.id.as_str() == wanted || orphan.sandbox.name.as_ref().is_some_and(|n| n.as_str() == wanted)
        };
        let mut found = orphans.iter().filter(is_it);
        match (found.next(), found.next()) {
            (Some(orphan), None) => Ok(orphan.clone()),
            (Some(_), Some(_)) => Err(CliError::usage(format!("several orphans are called \"{wanted}\""), "use an id")),
            (None, _) => {
                Err(CliError::usage(format!("there is no orphan \"{wanted}\""), "see `roost node orphans ls`"))
            }
        }
    };
    chosen.orphans.iter().map(pick).collect()
}

async fn adopt(app: &App, chosen: &ChooseOrphans, name: Option<roost_proto::id::SandboxName>) -> Result<(), CliError> {
    let client = app.client()?;
    let orphans = choose(client, chosen).await?;
    if name.is_some() && orphans.len() != 1 {
        return Err(CliError::usage("--name is for one orphan", "adopt them one after the other"));
    }
    let mut several = Several::new(app);
    for orphan in orphans {
        let adopted = client.adopt_orphan(&orphan.sandbox.id, &AdoptOrphan { name: name.clone() }).await;
        if let Some(sandbox) = several.take(adopted.map_err(CliError::from))? {
            let shown = sandbox.name.map_or_else(|| sandbox.id.to_string(), |name| format!("{} ({name})", sandbox.id));
            app.console.line(&format!("{shown} adopted"))?;
        }
    }
    several.finish()
}

async fn remove(app: &App, chosen: &ChooseOrphans, yes: bool) -> Result<(), CliError> {
    let client = app.client()?;
    let orphans = choose(client, chosen).await?;
    if !yes && !orphans.is_empty() {
        confirm(&format!("Delete {} and all they hold?", human::count(orphans.len(), "orphan", "orphans")))?;
    }
    let mut several = Several::new(app);
    for orphan in orphans {
        let removed = client.remove_orphan(&orphan.sandbox.id).await;
        if let Some(sandbox) = several.take(removed.map_err(CliError::from))? {
            app.console.line(&format!("{} is being deleted", sandbox.id))?;
        }
    }
    several.finish()
}
