//! `roost image`.

mod import;
mod manage;
mod place;
mod pull;

use std::collections::BTreeMap;

use roost_proto::id::NodeId;
use roost_proto::model::ImageInfo;

use self::place::Place;
use super::{App, Several, node};
use crate::cli::{ImageCommand, ListImagesArgs, RemoveImageArgs};
use crate::client::HeldImage;
use crate::error::CliError;
use crate::output::printer::{Format, Listing};
use crate::output::{Column, ListArgs, Printer, Text, human};

const COLUMNS: [Column; 4] =
    [Column::new("REFERENCE"), Column::new("DIGEST"), Column::new("SIZE"), Column::new("NODES")];

const NODE_COLUMNS: [Column; 7] = [
    Column::new("REFERENCE"),
    Column::new("DIGEST"),
    Column::new("SIZE"),
    Column::new("ON DISK"),
    Column::new("USED BY"),
    Column::new("PINNED"),
    Column::new("LAST USED"),
];

/// Runs one verb.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, command: ImageCommand) -> Result<(), CliError> {
    match command {
        ImageCommand::Ls(args) if args.node.is_some() || args.socket.node_socket.is_some() => {
            list_of_node(app, args).await
        }
        ImageCommand::Ls(args) => list(app, args.list).await,
        ImageCommand::Pull(args) => pull::run(app, args).await,
        ImageCommand::Import(args) => import::run(app, args).await,
        ImageCommand::Rm(args) => remove(app, args).await,
        ImageCommand::Prune(args) => manage::prune(app, args).await,
        ImageCommand::Export(args) => manage::export(app, args).await,
        ImageCommand::Pin(args) => manage::pin(app, args, true).await,
        ImageCommand::Unpin(args) => manage::pin(app, args, false).await,
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
    let empty = "no images; fetch one (roost image pull) or send one to a node (roost image import)";
    Ok(printer.items(&images, &Listing { columns: &COLUMNS, row: &row, name: &name, empty })?)
}

/// The images of one node, with what only the node knows.
async fn list_of_node(app: &App, args: ListImagesArgs) -> Result<(), CliError> {
    let place = match (args.socket.node_socket, args.node) {
        (Some(path), _) => Place::Socket(place::socket(app, path).await?),
        (None, name) => {
            let client = app.client()?;
            Place::Central(client, Box::new(node::find(client, &name.unwrap_or_default()).await?))
        }
    };
    let images = place.images().await?;
    let printer = Printer::list(&app.console, args.list);
    let (is_wide, now) = (printer.format == Format::Wide, human::now_unix_ms());
    let row = |image: &ImageInfo| {
        let digest = if is_wide { &image.digest } else { human::short_digest(&image.digest) };
        let cells: Vec<Text> = vec![
            image.reference.to_string().into(),
            digest.into(),
            human::size(image.size_bytes).into(),
            human::size(image.unpacked_bytes).into(),
            image.in_use_by.to_string().into(),
            (if image.pinned { "yes" } else { "no" }).into(),
            format!("{} ago", human::age(image.last_used_at_unix_ms, now)).into(),
        ];
        cells
    };
    let name = |image: &ImageInfo| image.reference.to_string();
    let empty = "no images; fetch one: roost image pull REFERENCE --node NODE";
    Ok(printer.items(&images, &Listing { columns: &NODE_COLUMNS, row: &row, name: &name, empty })?)
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
    let mut several = Several::new(app);
    for place in holders(app, &args).await? {
        if several.take(place.remove(&args.reference).await)?.is_some() {
            app.console.line(&format!("{} removed from {}", args.reference, place.name()))?;
        }
    }
    several.finish()
}

/// The nodes that it goes from: with `--all-nodes` those that hold it.
async fn holders<'a>(app: &'a App, args: &RemoveImageArgs) -> Result<Vec<Place<'a>>, CliError> {
    if !args.nodes.all_nodes {
        return place::places(app, &args.nodes).await;
    }
    let client = app.client()?;
    let images = client.list_images().await?;
    let held = images.into_iter().filter(|image| image.reference == args.reference);
    let ids: Vec<_> = held.flat_map(|image| image.nodes).collect();
    if ids.is_empty() {
        app.console.note(&format!("no node holds {}", args.reference));
    }
    let mut places = Vec::new();
    for id in ids {
        places.push(Place::Central(client, Box::new(node::find(client, id.as_str()).await?)));
    }
    Ok(places)
}
