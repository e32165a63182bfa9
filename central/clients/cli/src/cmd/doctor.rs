//! `roost doctor`: whether a machine is fit.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use roost_proto::model::{Check, HostReport, Verdict};
use roost_proto::node::ExamineRequest;

use super::{App, node, socket_path};
use crate::cli::DoctorArgs;
use crate::error::{CliError, Exit};
use crate::node_socket::{NodeSocket, NodeSocketError};
use crate::output::{Console, Printer, Tone};

/// Columns of a terminal that does not say.
const DEFAULT_COLUMNS: usize = 100;
/// Fewest columns of what was found: below it lines are left to the terminal.
const MIN_TEXT_COLUMNS: usize = 20;

/// Shows the report of this machine, of the daemon on it, or of a node.
///
/// # Errors
/// See [`CliError`]; a host that is not fit ends with [`Exit::Error`].
pub(super) async fn run(app: &App, args: DoctorArgs) -> Result<(), CliError> {
    let report = match (&args.node, &args.socket) {
        (Some(name), _) => {
            let client = app.client()?;
            client.examine_node(&node::find(client, name).await?.id, args.sandboxes).await?
        }
        (None, Some(path)) => running(app, path.clone(), args.sandboxes).await?,
        (None, None) => here(&args).await?,
    };
    let printer = Printer::new(&app.console, args.output);
    printer.one(&report, &report.hostname, || text(&report, &app.console))?;
    if report.verdict() == Verdict::Fail { Err(CliError::Told(Exit::Error)) } else { Ok(()) }
}

async fn running(app: &App, path: Option<PathBuf>, sandboxes: Option<u32>) -> Result<HostReport, CliError> {
    let socket = NodeSocket::connect(socket_path(app, path)).await?;
    let request = ExamineRequest { sandboxes: sandboxes.unwrap_or_default() };
    let answer = socket.support().examine(request).await.map_err(NodeSocketError::from)?;
    Ok(HostReport::try_from(answer.into_inner()).map_err(NodeSocketError::from)?)
}

/// Has `roostd` look at this machine.
async fn here(args: &DoctorArgs) -> Result<HostReport, CliError> {
    let program = match &args.roostd {
        Some(path) => path.clone(),
        None => find_roostd().ok_or_else(|| {
            CliError::usage(
                "roostd is not on this machine",
                "say where it is with --roostd FILE, or ask a node: roost doctor --node NODE",
            )
        })?,
    };
    let mut command = tokio::process::Command::new(&program);
    command.args(["doctor", "--output", "json"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(config) = &args.config {
        command.arg("--config").arg(config);
    }
    if let Some(sandboxes) = args.sandboxes {
        command.arg("--sandboxes").arg(sandboxes.to_string());
    }
    let file = |source| CliError::File { operation: "run", path: program.clone(), source };
    let output = command.output().await.map_err(file)?;
    // 0 and 1 are verdicts; of everything else it has said why.
    if !matches!(output.status.code(), Some(0 | 1)) || output.stdout.is_empty() {
        return Err(CliError::Told(Exit::Error));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| file(error.into()))
}

/// Beside this program, or in the path.
fn find_roostd() -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = beside.into_iter().chain(std::env::split_paths(&path)).chain(["/usr/local/bin".into()]);
    dirs.map(|dir| dir.join("roostd")).find(|path| path.is_file())
}

/// One line a check; what to change stands below those that need it.
fn text(report: &HostReport, console: &Console) -> String {
    let has_colour = console.colours_results();
    let columns = console.width.map_or(DEFAULT_COLUMNS, usize::from);
    let names = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let indent = names + 8;
    let lines = report.checks.iter().map(|check| line(check, names, columns.saturating_sub(indent), has_colour));
    let body: Vec<String> = lines.collect();
    format!("{}\n\n{}", body.join("\n"), summary(report, has_colour))
}

fn line(check: &Check, names: usize, columns: usize, has_colour: bool) -> String {
    let tone = tone(check.verdict);
    let verdict = tone.paint(&format!("{:<4}", check.verdict.as_str()), has_colour);
    let indent = " ".repeat(names + 8);
    let mut found = wrap(&check.found, columns).into_iter();
    let mut text = format!("{verdict}  {:<names$}  {}", check.name, found.next().unwrap_or_default());
    for more in found {
        text.push_str(&format!("\n{indent}{more}"));
    }
    if !check.advice.is_empty() {
        for (index, part) in wrap(&check.advice, columns.saturating_sub(2)).into_iter().enumerate() {
            let head = if index == 0 { "→ " } else { "  " };
            text.push_str(&format!("\n{indent}{}", tone.paint(&format!("{head}{part}"), has_colour)));
        }
    }
    text
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Ok => Tone::Good,
        Verdict::Warn => Tone::Busy,
        Verdict::Fail => Tone::Bad,
    }
}

fn summary(report: &HostReport, has_colour: bool) -> String {
    let (failed, warned) = (report.count(Verdict::Fail), report.count(Verdict::Warn));
    let verdict = match report.verdict() {
        Verdict::Ok => "fit".to_owned(),
        Verdict::Warn => format!("fit, {warned} to look at"),
        Verdict::Fail => format!("not fit: {failed} to mend, {warned} to look at"),
    };
    let verdict = tone(report.verdict()).paint(&verdict, has_colour);
    format!("{} (Linux {}) for {} sandboxes: {verdict}", report.hostname, report.kernel, report.sandboxes)
}

/// Breaks a text at spaces; a longer word stays whole, to be copied.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    if columns < MIN_TEXT_COLUMNS {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(last) = lines.last_mut() else { break };
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= columns {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_broken_at_spaces_and_long_words_stay_whole() {
        let lines = wrap("set kernel.pid_max to a much larger number than this", 22);
        assert_eq!(lines, ["set kernel.pid_max to", "a much larger number", "than this"]);
        assert_eq!(wrap(&"x".repeat(50), 22), ["x".repeat(50)]);
        assert_eq!(wrap("a b", 5), ["a b"]);
    }

    #[test]
    fn advice_stands_below_its_check() {
        let check = Check {
            area: "kernel".into(),
            name: "time".into(),
            verdict: Verdict::Warn,
            found: "not synchronised".into(),
            advice: "apt-get install chrony".into(),
        };
        let text = line(&check, 6, 60, false);
        assert_eq!(text, "warn  time    not synchronised\n              → apt-get install chrony");
    }
}
