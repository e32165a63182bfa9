//! The line that shows a wait while it lasts.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::output::Console;

/// Time between two pictures of the line.
const TICK: Duration = Duration::from_millis(100);

/// One line on a terminal; plain lines, one per change, elsewhere.
#[derive(Debug)]
pub(crate) struct Live<'a> {
    console: &'a Console,
    bar: Option<ProgressBar>,
    last: String,
}

impl<'a> Live<'a> {
    /// Begins with an empty line on standard error.
    pub(crate) fn new(console: &'a Console) -> Self {
        Self { console, bar: console.has_stderr_terminal.then(spinner), last: String::new() }
    }

    /// Shows where things are now.
    pub(crate) fn show(&mut self, text: String) {
        if text.is_empty() || text == self.last {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(text.clone()),
            None => self.console.note(&text),
        }
        self.last = text;
    }

    /// Whether it is a line on a terminal, which may change often.
    pub(crate) fn is_on_terminal(&self) -> bool {
        self.bar.is_some()
    }

    /// Runs something that writes, with the line out of its way.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let elapsed = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let elapsed = state.elapsed();
        // A line that cannot be formatted is drawn again a tick later.
        let _ = write!(out, "{}.{} s", elapsed.as_secs(), elapsed.subsec_millis() / 100);
    };
    let style = ProgressStyle::with_template("{spinner} {msg}  {seconds}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key("seconds", elapsed);
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}
