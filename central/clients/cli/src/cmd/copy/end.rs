//! What SOURCE and TARGET mean.

use std::path::{Path, PathBuf};

use roost_proto::id::SandboxName;

use crate::error::CliError;

const HELP: &str = "see roost sandbox cp --help";

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// On this machine.
    Local(PathBuf),
    /// In a sandbox.
    Inside(SandboxName, String),
    /// An archive on standard input or output.
    Stream,
}

impl End {
    /// Reads one end. What begins with `/` or `.` is local, whatever colons it
    /// has.
    fn of(text: &str) -> Result<Self, CliError> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        if text.is_empty() {
            return Err(CliError::usage("a path is empty", HELP));
        }
        let split = text.split_once(':').filter(|_| !text.starts_with(['/', '.']));
        let Some((name, path)) = split else { return Ok(Self::Local(text.into())) };
        let local = format!("for a file of this machine write ./{text}");
        let name = name
            .parse()
            .map_err(|error| CliError::usage(format!("\"{name}\" names no sandbox: {error}"), local.clone()))?;
        if !path.starts_with('/') {
            return Err(CliError::usage(
                format!("\"{path}\" is not absolute"),
                format!("name the whole path inside, e.g. {name}:/home/agent/{path}"),
            ));
        }
        if Path::new(path).components().any(|part| part == std::path::Component::ParentDir) {
            return Err(CliError::usage(format!("\"{path}\" has `..`"), "name the place itself"));
        }
        Ok(Self::Inside(name, path.into()))
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Into a sandbox.
    In {
        /// Local ones, or one stream.
        sources: Vec<End>,
        /// Which sandbox.
        sandbox: SandboxName,
        /// Where in it.
        path: String,
    },
    /// Out of sandboxes.
    Out {
        /// Sandboxes and paths.
        sources: Vec<(SandboxName, String)>,
        /// Local, or a stream.
        target: End,
    },
}

impl Job {
    /// Finds the direction.
    ///
    /// # Errors
    /// What cannot be copied in one go.
    pub(super) fn of(sources: &[String], target: &str) -> Result<Self, CliError> {
        let sources = sources.iter().map(|text| End::of(text)).collect::<Result<Vec<_>, _>>()?;
        if sources.len() > 1 && (sources.contains(&End::Stream) || target == "-") {
            return Err(CliError::usage("an archive on a stream stands alone", "copy one thing at a time"));
        }
        match End::of(target)? {
            End::Inside(sandbox, path) => {
                if sources.iter().any(|source| matches!(source, End::Inside(..))) {
                    let hint = "copy to this machine first, or through a pipe: roost sandbox cp A:/PATH - | roost sandbox cp - B:/DIR";
                    return Err(CliError::usage("files are not copied from sandbox to sandbox", hint));
                }
                Ok(Self::In { sources, sandbox, path })
            }
            target => {
                let inside = |source| match source {
                    End::Inside(sandbox, path) => Ok((sandbox, path)),
                    _ => Err(CliError::usage("no sandbox is named", "write one end as SANDBOX:/PATH")),
                };
                Ok(Self::Out { sources: sources.into_iter().map(inside).collect::<Result<_, _>>()?, target })
            }
        }
    }
}

/// The name that a local source has in an archive; `.` means its content.
pub(super) fn name_in_archive(path: &Path) -> PathBuf {
    let is_content = path.as_os_str().as_encoded_bytes().ends_with(b"/.");
    path.file_name().filter(|_| !is_content).map_or_else(|| ".".into(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(words: &[&str]) -> Result<Job, String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let (target, sources) = words.split_last().unwrap();
        Job::of(sources, target).map_err(|error| error.to_string())
    }

    #[test]
    fn the_side_with_a_sandbox_decides_the_direction() {
        let demo: SandboxName = "demo".parse().unwrap();
        let local = |path: &str| End::Local(path.into());
        let into = |sources, path: &str| Ok(Job::In { sources, sandbox: demo.clone(), path: path.into() });
        assert_eq!(job(&["a", "./b:c", "demo:/x/"]), into(vec![local("a"), local("./b:c")], "/x/"));
        assert_eq!(job(&["-", "demo:/x"]), into(vec![End::Stream], "/x"));
        let out = |target| Ok(Job::Out { sources: vec![(demo.clone(), "/a:b".into())], target });
        assert_eq!(job(&["demo:/a:b", "."]), out(local(".")));
        assert_eq!(job(&["demo:/a:b", "-"]), out(End::Stream));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (words, text) in [
            (vec!["a", "b"], "no sandbox is named"),
            (vec!["a:/x", "b:/y"], "from sandbox to sandbox"),
            (vec!["-", "a", "b:/y"], "stands alone"),
            (vec!["a:/x", "b:/x", "-"], "stands alone"),
            (vec!["a", "demo:x"], "not absolute"),
            (vec!["a", "demo:/x/../y"], "has `..`"),
            (vec!["a", "no good:/x"], "names no sandbox"),
            (vec!["", "demo:/x"], "is empty"),
        ] {
            let error = job(&words).unwrap_err();
            assert!(error.contains(text), "{words:?}: {error}");
        }
    }

    #[test]
    fn a_source_is_called_by_its_last_part_and_its_content_by_a_dot() {
        for (path, name) in [("a/b", "b"), ("a/b/", "b"), ("a/b/.", "."), (".", "."), ("/", "."), ("..", ".")] {
            assert_eq!(name_in_archive(Path::new(path)), Path::new(name), "{path}");
        }
    }
}
