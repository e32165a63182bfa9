//! Standard output and error, and what stands behind them.

use std::io::{self, IsTerminal as _, Write as _};

use super::{OutputError, Tone};

/// Where this process writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    /// Whether standard output is a terminal.
    pub(crate) has_stdout_terminal: bool,
    /// Whether standard error is a terminal.
    pub(crate) has_stderr_terminal: bool,
    /// Whether colour is wanted.
    has_colour: bool,
    /// Whether more than ASCII can be shown.
    pub(crate) has_unicode: bool,
    /// Columns of the terminal; absent = standard output is none.
    pub(crate) width: Option<u16>,
}

impl Console {
    /// Looks at the process's streams and at `NO_COLOR` and `TERM`.
    pub(crate) fn detect() -> Self {
        let has_stdout_terminal = io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let size = || crossterm::terminal::size().ok().map(|(columns, _)| columns).filter(|&columns| columns > 0);
        Self {
            has_stdout_terminal,
            has_stderr_terminal: io::stderr().is_terminal(),
            has_colour: !no_colour && !is_dumb,
            has_unicode: !is_dumb && shows_unicode(|name| std::env::var(name).ok()),
            width: if has_stdout_terminal { size() } else { None },
        }
    }

    /// Whether results may be coloured.
    pub(crate) fn colours_results(&self) -> bool {
        self.has_colour && self.has_stdout_terminal
    }

    /// Whether messages may be coloured.
    pub(crate) fn colours_messages(&self) -> bool {
        self.has_colour && self.has_stderr_terminal
    }

    /// Writes one line of the result.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub(crate) fn line(&self, text: &str) -> Result<(), OutputError> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(OutputError::Write)
    }

    /// Writes a part of the result as it is.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(OutputError::Write)
    }

    /// Writes one line that is no result: progress, the next step.
    pub(crate) fn note(&self, text: &str) {
        // There is no place left to report a failing standard error to.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Writes one line under a coloured head, as in `warning: …`.
    pub(crate) fn headed(&self, head: &str, tone: Tone, text: &str) {
        self.note(&format!("{} {text}", tone.paint(head, self.colours_messages())));
    }

    /// Writes a warning.
    pub(crate) fn warn(&self, text: &str) {
        self.headed("warning:", Tone::Busy, text);
    }
}

/// Whether the locale shows more than ASCII; without one, as in most
/// containers and services, terminals do.
fn shows_unicode(var: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(var).find(|value| !value.is_empty());
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_locale_that_is_set_decides() {
        let shows = |pairs: &[(&str, &str)]| {
            shows_unicode(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(shows(&[]) && shows(&[("LANG", "en_US.UTF-8")]) && shows(&[("LC_ALL", ""), ("LANG", "C.utf8")]));
        assert!(!shows(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]) && !shows(&[("LANG", "POSIX")]));
    }
}
