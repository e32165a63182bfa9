//! Progress on stderr: a bar on a terminal, plain lines in a pipe.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use roost_tests::Result;

/// Plain lines of one step, at most.
const PLAIN_LINES: u64 = 5;

/// Progress of one step of a bench; the bar goes with its owner.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    label: String,
    is_plain: bool,
}

/// Whether the `done`-th of `total` is worth a line.
fn is_milestone(done: u64, total: u64) -> bool {
    let part = |count: u64| count * PLAIN_LINES / total.max(1);
    part(done) > part(done.saturating_sub(1))
}

impl Progress {
    /// Begins a step of `total` parts.
    ///
    /// # Errors
    /// When `total` does not fit a bar.
    pub(crate) fn new(bench: &str, step: &str, total: usize) -> Result<Self> {
        let label = format!("{bench}: {step}");
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}")?;
        let bar = ProgressBar::with_draw_target(Some(u64::try_from(total)?), ProgressDrawTarget::stderr());
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(label.clone());
        let is_plain = !std::io::stderr().is_terminal();
        if is_plain {
            eprintln!("{label}");
        }
        Ok(Self { bar, label, is_plain })
    }

    /// One part more is done.
    pub(crate) fn step(&self) {
        self.bar.inc(1);
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or_default());
        if self.is_plain && is_milestone(done, total) {
            eprintln!("{}: {done}/{total}", self.label);
        }
    }
}

impl Progress {
    /// So many parts are done by now.
    pub(crate) fn reach(&self, done: u64) {
        let before = self.bar.position();
        self.bar.set_position(done.max(before));
        let total = self.bar.length().unwrap_or_default();
        if self.is_plain && done * PLAIN_LINES / total.max(1) > before * PLAIN_LINES / total.max(1) {
            eprintln!("{}: {done}/{total}", self.label);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Says one thing about a bench.
pub(crate) fn say(bench: &str, text: &str) {
    eprintln!("{bench}: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_says_five_lines_and_ends_with_the_last_part() {
        let said: Vec<u64> = (1..=100).filter(|&done| is_milestone(done, 100)).collect();
        assert_eq!(said, [20, 40, 60, 80, 100]);
        let short: Vec<u64> = (1..=3).filter(|&done| is_milestone(done, 3)).collect();
        assert_eq!(short, [1, 2, 3]);
    }
}
