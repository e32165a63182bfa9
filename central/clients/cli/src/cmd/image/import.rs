//! `roost image import`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use roost_proto::model::{ImageInfo, Node};

use super::super::{App, node};
use super::place::{self, Place};
use crate::cli::ImportArgs;
use crate::client::{Client, ImportEvent, Upload};
use crate::error::CliError;
use crate::output::{Console, human};

/// Time between two looks at the bytes that were sent.
const TICK: Duration = Duration::from_millis(100);

/// Sends an archive to a node.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: ImportArgs) -> Result<(), CliError> {
    // First, as a refusal in the middle of a large body is hard to tell.
    let place = match args.socket.node_socket {
        Some(path) => Place::Socket(place::socket(app, path).await?),
        None => {
            let client = app.client()?;
            Place::Central(client, Box::new(choose_node(client, args.node.as_deref()).await?))
        }
    };
    let upload = open(&args.file).await?;
    let sent = Arc::clone(&upload.sent);
    let bar = Bar::new(&app.console, upload.length);
    let import = place.import(args.reference.as_ref(), upload, |event| bar.event(event));
    // Both may be dropped: when the import ends, nothing is left to show.
    let outcome = tokio::select! {
        outcome = import => outcome,
        never = bar.follow(&sent) => match never {},
    };
    bar.clear();
    let image = outcome?;
    Ok(app.console.line(&done(&image, place.name()))?)
}

fn done(image: &ImageInfo, node: &str) -> String {
    let (digest, size) = (human::short_digest(&image.digest), human::size(image.size_bytes));
    format!("{} imported on {node} ({digest}, {size})", image.reference)
}

async fn choose_node(client: &Client, name: Option<&str>) -> Result<Node, CliError> {
    if let Some(name) = name {
        return node::find(client, name).await;
    }
    let mut nodes = client.list_nodes().await?;
    match (nodes.pop(), nodes.len()) {
        (Some(node), 0) => Ok(node),
        (Some(_), _) => Err(CliError::usage("there are several nodes", "say which with --node: roost node ls")),
        (None, _) => Err(CliError::usage("there is no node to send it to", "let one join: roost node join-token")),
    }
}

async fn open(path: &Path) -> Result<Upload, CliError> {
    let sent = Arc::new(AtomicU64::new(0));
    if path == Path::new("-") {
        return Ok(Upload { reader: Box::new(tokio::io::stdin()), length: None, sent });
    }
    let error = |source| CliError::File { operation: "read", path: path.into(), source };
    let file = tokio::fs::File::open(path).await.map_err(error)?;
    let facts = file.metadata().await.map_err(error)?;
    if facts.is_dir() {
        return Err(CliError::usage(
            format!("{} is a directory", path.display()),
            "give the archive itself, an OCI or docker tar",
        ));
    }
    Ok(Upload { reader: Box::new(file), length: facts.is_file().then_some(facts.len()), sent })
}

/// The progress of an import: a bar on a terminal, a line per step elsewhere.
struct Bar<'a> {
    console: &'a Console,
    bar: ProgressBar,
    step: std::cell::RefCell<String>,
}

impl<'a> Bar<'a> {
    fn new(console: &'a Console, length: Option<u64>) -> Self {
        let bar =
            if console.has_stderr_terminal { ProgressBar::new(length.unwrap_or(0)) } else { ProgressBar::hidden() };
        bar.set_style(style(length.is_some()));
        let step = std::cell::RefCell::new(String::new());
        let bar = Self { console, bar, step };
        bar.enter("send");
        bar
    }

    /// Shows the bytes that were sent, until the node says more.
    async fn follow(&self, sent: &AtomicU64) -> std::convert::Infallible {
        loop {
            if *self.step.borrow() == "send" {
                self.bar.set_position(sent.load(Ordering::Relaxed));
            }
            tokio::time::sleep(TICK).await;
        }
    }

    fn event(&self, event: &ImportEvent) {
        // What the node receives is what this command shows as sent.
        let ImportEvent::Step { name, done_bytes, total_bytes } = event else { return };
        if name == "receive" {
            return;
        }
        if *self.step.borrow() != *name {
            self.bar.set_style(style(*total_bytes > 0));
            self.enter(name);
        }
        self.bar.set_length(*total_bytes);
        self.bar.set_position(*done_bytes);
    }

    fn enter(&self, step: &str) {
        self.step.replace(step.into());
        self.bar.set_message(step.to_owned());
        if !self.console.has_stderr_terminal {
            self.console.note(step);
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(has_length: bool) -> ProgressStyle {
    let template = if has_length {
        "{msg:<8} {bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
    } else {
        "{msg:<8} {spinner} {binary_bytes}, {binary_bytes_per_sec}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}
