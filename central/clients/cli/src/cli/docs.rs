//! The documentation against this command: every line that it shows parses,
//! and every path of the repository that it names is there.

use std::path::{Path, PathBuf};

use clap::Parser as _;

use super::Cli;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

/// README.md and every page of docs/.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = vec![repository().join("README.md"), repository().join("deploy/images/README.md")];
    let mut dirs = vec![repository().join("docs")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Pieces of code: lines of fenced blocks, and what stands in backticks.
fn code(page: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut is_fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced {
            pieces.push(line.trim().to_owned());
        } else {
            pieces.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    pieces
}

/// The words of a `roost …` line as a shell would give them; none for what is
/// no whole command line.
fn command(piece: &str) -> Option<Vec<String>> {
    let piece = piece.strip_prefix("sudo ").unwrap_or(piece);
    let rest = piece.strip_prefix("roost ")?;
    // Comments, redirections and what follows in the pipe are the shell's.
    let end = [" #", " <", " >", " |", " &&"].iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
    let words: Vec<String> = rest[..end].split_whitespace().map(str::to_owned).collect();
    // A family of commands, a placeholder with choices, or a part of one.
    let is_pattern = |word: &String| !word.is_ascii() || word.contains('|') || word.starts_with('[') || word == "debug";
    let is_family = words.len() < 2 && words.first().is_none_or(&is_pattern);
    (!is_family && !words.iter().any(|word| word != "debug" && is_pattern(word))).then_some(words)
}

/// Names in capitals stand for values.
fn is_placeholder(word: &str) -> bool {
    word.len() > 1
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
}

#[test]
fn every_command_line_of_the_documentation_parses() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, page) in pages() {
        for piece in code(&page) {
            let Some(words) = command(&piece) else { continue };
            seen += 1;
            // A name is lower case.
            let words = words.iter().map(|word| match word.as_str() {
                word if is_placeholder(word) => "name",
                word => word,
            });
            let parsed = Cli::try_parse_from(std::iter::once("roost").chain(words));
            if let Err(error) = parsed {
                use clap::error::ErrorKind::{DisplayHelp, DisplayVersion, MissingRequiredArgument};
                // A sentence may name a verb without its object.
                let is_prose = !page.lines().any(|line| line.trim() == piece);
                let is_fine = matches!(error.kind(), DisplayHelp | DisplayVersion)
                    || (is_prose && matches!(error.kind(), MissingRequiredArgument));
                if !is_fine {
                    wrong.push(format!("{}: `{piece}`: {error}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 40, "only {seen} command lines were found");
}

#[test]
fn every_path_that_the_documentation_names_exists() {
    const TOPS: [&str; 7] = ["benches/", "central/", "daemon/", "deploy/", "docs/", "proto/", "tests/"];
    let mut missing = Vec::new();
    for (path, page) in pages() {
        for piece in code(&page) {
            for word in piece.split([' ', '(', ')', ',', ';', '"', ':']) {
                let is_path = TOPS.iter().any(|top| word.starts_with(top)) && !word.contains(['*', '<', '{', '$', '…']);
                if is_path && !repository().join(word).exists() {
                    missing.push(format!("{}: {word}", path.display()));
                }
            }
        }
        let links = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let target = path.parent().unwrap().join(link.split('#').next().unwrap_or_default());
            if !target.exists() {
                missing.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// What begins with a bar in the middle of a page and has no heading row is
/// shown as text: an empty line has cut a table in two.
#[test]
fn every_table_of_the_documentation_has_its_heading() {
    let is_rule = |line: &str| line.starts_with('|') && line.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '));
    let mut broken = Vec::new();
    for (path, page) in pages() {
        let (mut is_fenced, mut before) = (false, "");
        let mut lines = page.lines().peekable();
        while let Some(line) = lines.next() {
            is_fenced ^= line.trim_start().starts_with("```");
            let begins = line.starts_with('|') && !before.starts_with('|');
            if begins && !is_fenced && !lines.peek().is_some_and(|next| is_rule(next)) {
                broken.push(format!("{}: {line}", path.display()));
            }
            before = line;
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
