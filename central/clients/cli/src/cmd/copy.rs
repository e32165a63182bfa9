//! `roost sandbox cp`.

mod bar;
mod end;
mod inward;
mod outward;
mod road;

use roost_proto::model::CopyReport;
use serde::Serialize;

use self::end::{End, Job};
use self::road::Road;
use super::{App, socket_path};
use crate::cli::CopyArgs;
use crate::error::{CliError, Exit};
use crate::output::{Printer, Tone, human};

/// What was copied.
#[derive(Debug, Serialize)]
struct Copied<'a> {
    sources: &'a [String],
    target: &'a str,
    #[serde(flatten)]
    report: CopyReport,
}

/// Copies files into a sandbox or out of it.
///
/// # Errors
/// See [`CliError`]. What was not copied as it should be is told, and makes
/// the command fail after the rest.
pub(super) async fn run(app: &App, args: CopyArgs) -> Result<(), CliError> {
    let printer = Printer::new(&app.console, args.output);
    let Some((target, sources)) = args.paths.split_last() else {
        return Err(CliError::usage("nothing to copy", "see roost sandbox cp --help"));
    };
    let job = Job::of(sources, target)?;
    let writes_archive = matches!(job, Job::Out { target: End::Stream, .. });
    if writes_archive && app.console.has_stdout_terminal {
        let hint = "send the output somewhere: roost sandbox cp SANDBOX:/PATH - > files.tar";
        return Err(CliError::usage("an archive on a terminal is noise", hint));
    }
    let socket = args.socket.node_socket.clone().map(|path| socket_path(app, path));
    let report = match job {
        Job::In { sources, sandbox, path } => {
            let sources = inward::open(sources, args.follow_link)?;
            let road = Road::find(app, socket, &sandbox).await?;
            inward::run(app, &road, sources, &path).await?
        }
        Job::Out { sources, target } => {
            let mut sum = CopyReport::default();
            let place = outward::place(target, sources.len())?;
            for (sandbox, path) in sources {
                let road = Road::find(app, socket.clone(), &sandbox).await?;
                add(&mut sum, outward::run(app, &road, &path, args.follow_link, &place).await?);
            }
            sum
        }
    };
    let copied = Copied { sources, target, report };
    if writes_archive {
        // Standard output is the archive's.
        app.console.note(&sentence(&copied));
    } else {
        printer.one(&copied, target, || sentence(&copied))?;
    }
    tell(app, &copied.report)
}

fn add(sum: &mut CopyReport, more: CopyReport) {
    sum.files += more.files;
    sum.directories += more.directories;
    sum.links += more.links;
    sum.bytes += more.bytes;
    sum.problems.extend(more.problems);
    sum.problem_count += more.problem_count;
}

/// Names what was not copied as it should be.
fn tell(app: &App, report: &CopyReport) -> Result<(), CliError> {
    for problem in &report.problems {
        app.console.headed("error:", Tone::Bad, &format!("{}: {}", problem.path, problem.reason));
    }
    let told = u64::try_from(report.problems.len()).unwrap_or(u64::MAX);
    match report.problem_count {
        0 => return Ok(()),
        all if all > told => app.console.headed("error:", Tone::Bad, &format!("and {} more", all - told)),
        _ => {}
    }
    Err(CliError::Told(Exit::Error))
}

fn sentence(copied: &Copied<'_>) -> String {
    let CopyReport { files, directories, links, bytes, .. } = copied.report;
    let count = |number: u64, one: &str, many: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{number} {many}")),
    };
    let parts =
        [count(files, "file", "files"), count(directories, "directory", "directories"), count(links, "link", "links")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let what = if parts.is_empty() { "nothing".into() } else { parts.join(", ") };
    format!("{what} copied to {} ({})", copied.target, human::size(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_in_words() {
        let sources = ["a".to_owned()];
        let report = CopyReport { files: 2, directories: 1, bytes: 2048, ..CopyReport::default() };
        let text = |report| sentence(&Copied { sources: &sources, target: "demo:/x", report });
        assert_eq!(text(report), "2 files, 1 directory copied to demo:/x (2 KiB)");
        assert_eq!(text(CopyReport::default()), "nothing copied to demo:/x (0 B)");
    }
}
