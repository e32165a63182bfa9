//! `roost image prune`, `export`, `pin` and `unpin`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use roost_proto::model::ImageInfo;
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::super::{App, Several, node};
use super::place::{self, Place, places};
use crate::cli::{ExportArgs, PinArgs, PruneArgs};
use crate::client::{Prune, PruneLine};
use crate::error::{CliError, Exit};
use crate::output::printer::Listing;
use crate::output::{Column, Printer, Text, Tone, human};

/// Time between two pictures of the line that moves.
const TICK: Duration = Duration::from_millis(100);

const PRUNED: [Column; 4] =
    [Column::new("NODE"), Column::new("REFERENCE"), Column::new("ON DISK"), Column::new("LAST USED")];

/// An image that went, and where.
#[derive(Debug, Serialize)]
struct Removed {
    node: String,
    image: ImageInfo,
}

/// Removes what no sandbox uses.
///
/// # Errors
/// See [`CliError`]; a node that fails does not stop the others.
pub(super) async fn prune(app: &App, args: PruneArgs) -> Result<(), CliError> {
    let (mut removed, mut freed_bytes, mut problems) = (Vec::new(), 0_u64, Vec::new());
    let bar = PruneBar::new(app);
    let take = |line: PruneLine| {
        bar.done(&line.node);
        match line.outcome {
            Ok(pruned) => {
                freed_bytes = freed_bytes.saturating_add(pruned.freed_bytes);
                let at = |image| Removed { node: line.node.clone(), image };
                removed.extend(pruned.removed.into_iter().map(at));
            }
            Err(problem) => problems.push((line.node, problem)),
        }
    };
    let pruned = prune_everywhere(app, &args, take).await;
    bar.finish();
    pruned?;
    let now = human::now_unix_ms();
    let row = |removed: &Removed| {
        let image = &removed.image;
        let cells: Vec<Text> = vec![
            removed.node.clone().into(),
            image.reference.to_string().into(),
            human::size(image.unpacked_bytes).into(),
            format!("{} ago", human::age(image.last_used_at_unix_ms, now)).into(),
        ];
        cells
    };
    let name = |removed: &Removed| removed.image.reference.to_string();
    let printer = Printer::list(&app.console, args.output);
    printer.items(&removed, &Listing { columns: &PRUNED, row: &row, name: &name, empty: "nothing to remove" })?;
    if !printer.is_data() && !removed.is_empty() {
        let note = if args.dry_run { "nothing was removed: this was a dry run".into() } else { freed(freed_bytes) };
        app.console.note(&note);
    }
    for (node, problem) in &problems {
        app.console.headed("error:", Tone::Bad, &format!("{node}: {}", problem.detail));
    }
    if problems.is_empty() { Ok(()) } else { Err(CliError::Told(Exit::Error)) }
}

/// All nodes at the same time, each when it is done.
async fn prune_everywhere(app: &App, args: &PruneArgs, mut take: impl FnMut(PruneLine)) -> Result<(), CliError> {
    if let Some(path) = &args.nodes.node_socket {
        let socket = place::socket(app, path.clone()).await?;
        take(place::prune_at(&socket, args.unused_for, args.dry_run).await?);
        return Ok(());
    }
    let (unused_for_s, nodes) = (args.unused_for.as_secs(), args.nodes.nodes.clone());
    let prune = Prune { unused_for_s, dry_run: args.dry_run, nodes };
    Ok(app.client()?.prune_images(&prune, take).await?)
}

/// A line on a terminal while nodes prune: containerd may delete for minutes.
struct PruneBar(indicatif::ProgressBar);

impl PruneBar {
    fn new(app: &App) -> Self {
        let bar = if app.console.has_stderr_terminal {
            indicatif::ProgressBar::new_spinner()
        } else {
            indicatif::ProgressBar::hidden()
        };
        let style = indicatif::ProgressStyle::with_template("{spinner} pruning{msg}  {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_spinner()));
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    fn done(&self, node: &str) {
        self.0.inc(1);
        self.0.set_message(format!(": {} done, the last one {node}", self.0.position()));
    }

    fn finish(self) {
        self.0.finish_and_clear();
    }
}

fn freed(bytes: u64) -> String {
    match bytes {
        0 => "no more is free than before: what they held is in use elsewhere".into(),
        bytes => format!("{} more are free", human::size(bytes)),
    }
}

/// Writes an image into an archive.
///
/// # Errors
/// See [`CliError`]; an archive is not written to a terminal.
pub(super) async fn export(app: &App, args: ExportArgs) -> Result<(), CliError> {
    let is_stdout = args.output == Path::new("-");
    if is_stdout && app.console.has_stdout_terminal {
        let hint = "name a file with -o, or send the output somewhere: … -o - > image.tar";
        return Err(CliError::usage("an archive on a terminal is noise", hint));
    }
    let place = holder(app, &args).await?;
    let archive = place.export(&args.reference).await?;
    if is_stdout {
        write_all(app, archive, tokio::io::stdout(), &args.output).await?;
        return Ok(());
    }
    let beside = beside(&args.output);
    let path = beside.as_deref().unwrap_or(&args.output);
    let failed = |source| CliError::File { operation: "write", path: args.output.clone(), source };
    let file = tokio::fs::File::create(path).await.map_err(failed)?;
    let written = write_all(app, archive, file, &args.output).await;
    if let Some(beside) = &beside {
        match &written {
            Ok(_) => tokio::fs::rename(beside, &args.output).await.map_err(failed)?,
            // What is said is why the archive is not whole.
            Err(_) => drop(tokio::fs::remove_file(beside).await),
        }
    }
    let line = format!("{} ({})", args.output.display(), human::size(written?));
    Ok(app.console.line(&line)?)
}

/// Where an archive grows, so that half a one never has the name of a whole;
/// none where the name is that of a device or a pipe.
fn beside(output: &Path) -> Option<PathBuf> {
    if output.exists() && !output.is_file() {
        return None;
    }
    let mut name = output.as_os_str().to_owned();
    name.push(".partial");
    Some(name.into())
}

/// Writes an archive to its end; returns its size in bytes.
async fn write_all(
    app: &App,
    mut archive: place::Archive<'_>,
    mut out: impl AsyncWrite + Unpin,
    path: &Path,
) -> Result<u64, CliError> {
    let failed = |source| CliError::File { operation: "write", path: path.to_owned(), source };
    let bar = bar(app);
    let mut written_bytes = 0_u64;
    while let Some(piece) = archive.next().await {
        let piece = piece?;
        out.write_all(&piece).await.map_err(failed)?;
        written_bytes += piece.len() as u64;
        bar.set_position(written_bytes);
    }
    out.flush().await.map_err(failed)?;
    bar.finish_and_clear();
    Ok(written_bytes)
}

fn bar(app: &App) -> indicatif::ProgressBar {
    if !app.console.has_stderr_terminal {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("export {spinner} {binary_bytes}, {binary_bytes_per_sec}");
    indicatif::ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_spinner()))
}

/// The node that an image is taken from.
async fn holder<'a>(app: &'a App, args: &ExportArgs) -> Result<Place<'a>, CliError> {
    if let Some(path) = &args.socket.node_socket {
        return Ok(Place::Socket(place::socket(app, path.clone()).await?));
    }
    let client = app.client()?;
    let name = match &args.node {
        Some(name) => name.clone(),
        None => {
            let images = client.list_images().await?;
            let held = images.into_iter().find(|image| image.reference == args.reference);
            let first = held.and_then(|image| image.nodes.into_iter().next());
            let missing = || CliError::usage(format!("no node holds {}", args.reference), "see roost image ls");
            first.ok_or_else(missing)?.to_string()
        }
    };
    Ok(Place::Central(client, Box::new(node::find(client, &name).await?)))
}

/// Pins an image on nodes, or lets it go.
///
/// # Errors
/// See [`CliError`]; a node that fails does not stop the others.
pub(super) async fn pin(app: &App, args: PinArgs, pinned: bool) -> Result<(), CliError> {
    let mut several = Several::new(app);
    for place in places(app, &args.nodes).await? {
        if let Some(image) = several.take(place.pin(&args.reference, pinned).await)? {
            let word = match (pinned, image.pinned) {
                (true, _) => "pinned",
                (false, false) => "no longer pinned",
                (false, true) => "still kept by the node's configuration",
            };
            app.console.line(&format!("{} is {word} on {}", image.reference, place.name()))?;
        }
    }
    several.finish()
}
