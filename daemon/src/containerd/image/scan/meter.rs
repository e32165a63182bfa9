//! A reader that stops at what it was allowed.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// How much may still be read: of the whole, and of the present part.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    total: Rc<Cell<u64>>,
    part: Rc<Cell<u64>>,
}

impl Meter {
    /// `total_bytes`: most bytes of the whole, headers and padding not
    /// counted twice: they get as much again.
    pub(super) fn new(total_bytes: u64) -> Self {
        let total = total_bytes.saturating_mul(2).saturating_add(1 << 20);
        Self { total: Rc::new(Cell::new(total)), part: Rc::new(Cell::new(0)) }
    }

    /// Begins a part of at most so many bytes.
    pub(super) fn allow(&self, bytes: u64) {
        // A block of padding, or two that end the archive, come on top.
        self.part.set(bytes.saturating_add(1024));
    }

    /// Whether the whole was too large.
    pub(super) fn is_exhausted(&self) -> bool {
        self.total.get() == 0
    }
}

/// Reads through a meter.
#[derive(Debug)]
pub(super) struct Metered<R> {
    inner: R,
    meter: Meter,
}

impl<R: Read> Metered<R> {
    pub(super) fn new(inner: R, meter: Meter) -> Self {
        Self { inner, meter }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.meter.total.get().min(self.meter.part.get());
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("a part of the tar is larger than any that is accepted"));
        }
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..length])?;
        for cell in [&self.meter.total, &self.meter.part] {
            cell.set(cell.get().saturating_sub(count as u64));
        }
        Ok(count)
    }
}
