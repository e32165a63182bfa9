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
