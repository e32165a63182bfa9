//! What people and programs read.
//!
//! [`console`]: standard output and error, and what they are. [`table`],
//! [`card`]: lists and details. [`human`]: ages, sizes, durations. [`style`]:
//! colours. Results go to standard output, everything else to standard error.

pub(crate) mod card;
pub(crate) mod console;
pub(crate) mod human;
pub(crate) mod printer;
pub(crate) mod style;
pub(crate) mod table;

pub(crate) use card::Card;
pub(crate) use console::Console;
pub(crate) use printer::{ListArgs, OutputArgs, Printer};
pub(crate) use style::Tone;
pub(crate) use table::{Column, Text};

/// Why a result could not be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Write(#[source] std::io::Error),
    /// A value that the format cannot show.
    #[error("cannot show this as {format}: {problem}")]
    Encode {
        /// `json` or `yaml`.
        format: &'static str,
        /// What the encoder says.
        problem: String,
    },
}

impl OutputError {
    /// Whether the reader went away (`roost … | head`), which is no error.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}
