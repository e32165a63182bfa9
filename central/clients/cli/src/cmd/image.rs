//! `roost image`.

mod import;

use std::collections::BTreeMap;

use roost_proto::id::NodeId;

use super::{App, Several, node};
use crate::cli::{ImageCommand, RemoveImageArgs};
use crate::client::HeldImage;
use crate::error::CliError;
use crate::output::printer::{Format, Listing};
use crate::output::{Column, ListArgs, Printer, Text, human};

const COLUMNS: [Column; 4] =
    [Column::new("REFERENCE"), Column::new("DIGEST"), Column::new("SIZE"), Column::new("NODES")];

/// Runs one verb.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, command: ImageCommand) -> Result<(), CliError> {
    match command {
        ImageCommand::Ls(args) => list(app, args).await,
        ImageCommand::Import(args) => import::run(app, args).await,
        ImageCommand::Rm(args) => remove(app, args).await,
    }
}

async fn list(app: &App, args: ListArgs) -> Result<(), CliError> {
    let client = app.client()?;
    let images = client.list_images().await?;
    let printer = Printer::list(&app.console, args);
    // Names of nodes are a nicety: without them ids are shown.
    let nodes = if printer.is_data() { Vec::new() } else { client.list_nodes().await.unwrap_or_default() };
    let names: BTreeMap<_, _> = nodes.into_iter().map(|node| (node.id, node.name)).collect();
    let is_wide = printer.format == Format::Wide;
    let row = |image: &HeldImage| row(image, &names, is_wide);
    let name = |image: &HeldImage| image.reference.to_string();
    let empty = "no images; send one to a node: roost image import FILE --node NODE";
    Ok(printer.items(&images, &Listing { columns: &COLUMNS, row: &row, name: &name, empty })?)
}

fn row(image: &HeldImage, names: &BTreeMap<NodeId, String>, is_wide: bool) -> Vec<Text> {
    let digest = if is_wide { &image.digest } else { human::short_digest(&image.digest) };
    let node = |id: &NodeId| names.get(id).cloned().unwrap_or_else(|| id.to_string());
    vec![
        image.reference.to_string().into(),
        digest.into(),
        human::size(image.size_bytes).into(),
        image.nodes.iter().map(node).collect::<Vec<_>>().join(", ").into(),
    ]
}

async fn remove(app: &App, args: RemoveImageArgs) -> Result<(), CliError> {
    let client = app.client()?;
    let nodes = if args.all_nodes { holders(app, &args).await? } else { args.nodes };
    let mut several = Several::new(app);
    for name in &nodes {
        let removed = async {
            let node = node::find(client, name).await?;
            client.remove_image(&node.id, &args.reference).await?;
            Ok(node)
        };
        if let Some(node) = several.take(removed.await)? {
            app.console.line(&format!("{} removed from {}", args.reference, node.name))?;
        }
    }
    several.finish()
}

async fn holders(app: &App, args: &RemoveImageArgs) -> Result<Vec<String>, CliError> {
    let images = app.client()?.list_images().await?;
    let held = images.into_iter().filter(|image| image.reference == args.reference);
    let nodes: Vec<_> = held.flat_map(|image| image.nodes).map(String::from).collect();
    if nodes.is_empty() {
        app.console.note(&format!("no node holds {}", args.reference));
    }
    Ok(nodes)
}
