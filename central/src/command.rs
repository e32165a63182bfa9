//! `roost-central store`: a database as a whole.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clap::{Subcommand, ValueEnum};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use roost_central::config::Config;
use roost_central::store::Database;
use roost_central::store::check::Report;
use roost_central::store::copy::{OnProgress, Stage};

use crate::Failure;

/// What is done with the database.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Writes everything to a new file, beside a running central.
    Export {
        /// The file; it must not exist.
        #[arg(long)]
        out: PathBuf,
    },
    /// Fills an empty database from an export; no central may run on it.
    Import {
        /// The file.
        #[arg(long = "in")]
        file: PathBuf,
        /// Replaces the tokens, templates and profiles that a first start of
        /// central has made. Nodes and sandboxes are never replaced.
        #[arg(long)]
        force: bool,
    },
    /// Says that other tools (a copied file, pg_restore) have brought the
    /// database back to an earlier moment: sandboxes that it does not know are
    /// then kept on their nodes. `restore` and `import` do it themselves.
    MarkRestored,
    /// Looks whether the database is sound; ends with 1 where it is not.
    Check {
        /// How the result is printed.
        #[arg(long, short, default_value = "text")]
        output: Output,
    },
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A line for each rule.
    Text,
    /// One document.
    Json,
}

impl StoreCommand {
    /// Does it.
    pub(crate) async fn run(&self, config: &Config) -> Result<(), Failure> {
        let database = config.database()?;
        match self {
            Self::Export { out } => {
                let (bar, on_progress) = progress();
                let copied = database.export(out, on_progress).await?;
                bar.finish_and_clear();
                let size = HumanBytes(std::fs::metadata(out)?.len());
                let rows = HumanCount(copied.rows);
                println!("{}: {rows} rows of schema {} from {database}, {size}", out.display(), copied.schema);
                Ok(())
            }
            Self::Import { file, force } => {
                let (bar, on_progress) = progress();
                let copied = database.import(file, *force, on_progress).await?;
                bar.finish_and_clear();
                println!(
                    "{database}: {} rows from {}, read back and compared",
                    HumanCount(copied.rows),
                    file.display()
                );
                Ok(())
            }
            Self::MarkRestored => {
                let nodes = database.mark_restored().await?;
                println!("{database}: {nodes} nodes are compared with it at their next connection");
                Ok(())
            }
            Self::Check { output } => check(&database, *output).await,
        }
    }
}

/// A bar on a terminal, and nothing in a pipe.
pub(crate) fn progress() -> (ProgressBar, OnProgress) {
    let bar = ProgressBar::new(0);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = |counted: &str| {
        let template = format!("{{msg:9}} {{bar:30}} {counted}  {{eta}}");
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    let (rows, bytes) = (style("{human_pos}/{human_len} rows"), style("{bytes}/{total_bytes}"));
    let shown = bar.clone();
    let last = Mutex::new(None);
    let on_progress = Arc::new(move |stage, done, total| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.replace(stage) != Some(stage) {
            let (message, style) = match stage {
                Stage::Copy => ("copying", &rows),
                Stage::Verify => ("comparing", &rows),
                Stage::Pack => ("packing", &bytes),
                Stage::Unpack => ("unpacking", &bytes),
            };
            shown.set_style(style.clone());
            shown.set_message(message);
            shown.set_length(total);
        }
        shown.set_position(done);
    });
    (bar, on_progress)
}

async fn check(database: &Database, output: Output) -> Result<(), Failure> {
    let report = database.check().await?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => print(database, &report),
    }
    if report.is_good() {
        Ok(())
    } else {
        Err("the database breaks rules: restore a backup, or report what is listed".into())
    }
}

fn print(database: &Database, report: &Report) {
    println!("{database}: {}", schema(report));
    for rule in &report.rules {
        println!("{} {}", if rule.faults.is_empty() { "ok  " } else { "FAIL" }, rule.rule);
        for fault in &rule.faults {
            println!("       {fault}");
        }
    }
}

fn schema(report: &Report) -> String {
    match report.schema {
        0 => "no schema yet: the first start of central makes it".into(),
        version if version < report.newest => {
            format!("schema {version}, the next start of central brings it to {}", report.newest)
        }
        version => format!("schema {version}, the newest"),
    }
}
