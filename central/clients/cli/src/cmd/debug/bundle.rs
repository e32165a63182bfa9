//! `roost debug bundle`: everything a report needs, in one file.
//!
//! Daemon and central take their secrets out before they answer; this command
//! only packs what it is given.

mod archive;

use std::path::PathBuf;

use roost_proto::model::{LeftOut, SupportPart};
use roost_proto::node::CollectSupportRequest;

use super::super::{App, Several, node};
use crate::cli::BundleArgs;
use crate::error::CliError;
use crate::node_socket::{NodeSocket, NodeSocketError};
use crate::output::{Console, human};
use crate::wait::Live;
use archive::Archive;

/// Who is asked.
enum Source {
    /// The daemon on this machine.
    Socket(PathBuf),
    /// Central itself.
    Central,
    /// A node, through central.
    Node(String),
}

impl Source {
    /// Its directory in the bundle.
    fn directory(&self) -> String {
        match self {
            Self::Socket(_) => "local".into(),
            Self::Central => "central".into(),
            Self::Node(name) => format!("node-{name}"),
        }
    }
}

/// Collects and packs; what cannot be reached is told and left out.
///
/// # Errors
/// Nothing could be collected, or the file cannot be written; else how the
/// first source failed.
pub(super) async fn run(app: &App, args: BundleArgs, socket: PathBuf) -> Result<(), CliError> {
    let mut sources = Vec::new();
    if args.central {
        sources.push(Source::Central);
    }
    sources.extend(args.nodes.iter().cloned().map(Source::Node));
    if args.local || sources.is_empty() {
        sources.push(Source::Socket(socket));
    }
    let now = human::now_unix_ms();
    let path = args.out.unwrap_or_else(|| format!("roost-bundle-{}.tar.zst", archive::stamp(now)).into());
    let mut archive = Archive::create(&path, now)?;
    let mut several = Several::new(app);
    let mut failed = 0;
    for source in &sources {
        let directory = source.directory();
        let collected = collect(app, source, args.log_lines, &mut archive).await;
        if let Err(error) = &collected {
            failed += 1;
            archive.leave_out(&directory, LeftOut { what: "what was still to come".into(), why: error.to_string() });
        }
        several.take(collected)?;
    }
    if failed < sources.len() {
        let size = archive.finish()?;
        app.console.line(&format!("{} ({})", path.display(), human::size(size)))?;
        app.console.note("secrets were taken out where they are known; look through it before you give it away");
    }
    several.finish()
}

async fn collect(app: &App, source: &Source, lines: Option<u32>, archive: &mut Archive) -> Result<(), CliError> {
    let directory = source.directory();
    let mut progress = Collecting::new(&app.console, &directory);
    let mut problem = None;
    let mut take = |part: SupportPart| {
        progress.see(&part);
        let added = archive.add(&directory, part);
        // The first failure counts; the rest of the stream is passed over.
        problem = problem.take().or_else(|| added.err());
    };
    match source {
        Source::Central => app.client()?.support(None, lines, take).await?,
        Source::Node(name) => {
            let client = app.client()?;
            let node = node::find(client, name).await?;
            client.support(Some(&node.id), lines, take).await?;
        }
        Source::Socket(path) => {
            let socket = NodeSocket::connect(path.clone()).await?;
            let request = CollectSupportRequest { log_lines: lines.unwrap_or_default() };
            let answer = socket.support().collect_support(request).await.map_err(NodeSocketError::from)?;
            let mut parts = answer.into_inner();
            while let Some(part) = parts.message().await.map_err(NodeSocketError::from)? {
                take(SupportPart::try_from(part).map_err(NodeSocketError::from)?);
            }
        }
    }
    archive.end_source(&directory)?;
    problem.map_or(Ok(()), Err)
}

/// The line that shows how far a source is.
struct Collecting<'a> {
    live: Live<'a>,
    directory: String,
    files: u32,
    seen: u32,
    last: String,
}

impl<'a> Collecting<'a> {
    fn new(console: &'a Console, directory: &str) -> Self {
        let mut live = Live::new(console);
        live.show(format!("{directory}: collecting"));
        Self { live, directory: directory.to_owned(), files: 0, seen: 0, last: String::new() }
    }

    fn see(&mut self, part: &SupportPart) {
        match part {
            SupportPart::Begin { files } => self.files = *files,
            SupportPart::Chunk { path, .. } if *path != self.last => {
                self.seen += 1;
                self.last.clone_from(path);
                // A line per file would be noise where there is no terminal.
                if self.live.is_on_terminal() {
                    self.live.show(format!("{}: {} of {} {path}", self.directory, self.seen, self.files));
                }
            }
            SupportPart::Chunk { .. } | SupportPart::LeftOut(_) => {}
        }
    }
}
