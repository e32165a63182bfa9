//! The terminal that this program runs in: raw mode and size.

use std::io;

use crossterm::terminal;

/// Raw mode for as long as this lives; every way out restores it.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Switches the terminal to raw mode.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal is gone (SIGHUP) when this fails: nothing to restore.
        let _ = terminal::disable_raw_mode();
    }
}

/// Columns and rows of the terminal; `None` when there is none.
pub(crate) fn size() -> Option<(u16, u16)> {
    terminal::size().ok().filter(|&(columns, rows)| columns > 0 && rows > 0)
}
