//! The progress of a copy: a bar on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

use super::super::App;

/// A bar of bytes.
#[derive(Debug, Clone)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar; without a length it only counts.
    pub(super) fn new(app: &App, what: &'static str, length: Option<u64>) -> Self {
        if !app.console.has_stderr_terminal {
            return Self(ProgressBar::hidden());
        }
        let template = match length {
            Some(_) => "{msg} {bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
            None => "{msg} {spinner} {binary_bytes}, {binary_bytes_per_sec}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(length.unwrap_or(0)).with_style(style.progress_chars("━╸─"));
        bar.set_message(what);
        Self(bar)
    }

    /// Shows how many bytes are done.
    pub(super) fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
