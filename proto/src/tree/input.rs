//! What archives are read from.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::rc::Rc;

use super::{PIECE_BYTES, TreeError};

/// The end of an archive: two blocks of zeros.
const END_BYTES: u64 = 1024;
/// Most that may follow: writers fill a record up with zeros.
const PADDING_MAX_BYTES: u64 = 1 << 20;

/// What is known of an input.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Zeros at the end of what was read since it was set to 0.
    zeros: Cell<u64>,
    /// Why it broke off.
    fault: RefCell<Option<io::Error>>,
}

impl Seen {
    /// Called before the next header is read.
    pub(super) fn at_header(&self) {
        self.zeros.set(0);
    }

    /// What an error of the library means.
    pub(super) fn explain(&self, error: io::Error) -> TreeError {
        match self.fault.take() {
            Some(fault) => TreeError::Input(fault),
            None => TreeError::Archive(error),
        }
    }
}

/// An input that notes how it ended.
#[derive(Debug)]
pub(super) struct Input<R> {
    from: R,
    seen: Rc<Seen>,
}

impl<R: Read> Input<R> {
    pub(super) fn new(from: R) -> (Self, Rc<Seen>) {
        let seen = Rc::new(Seen::default());
        (Self { from, seen: seen.clone() }, seen)
    }

    /// Reads what follows the last entry: the rest of the end mark and of its
    /// record. Without an end mark the archive is not known to be whole.
    pub(super) fn finish(mut self) -> Result<(), TreeError> {
        let mut buffer = vec![0; PIECE_BYTES];
        let mut left = PADDING_MAX_BYTES;
        loop {
            let bytes = self.read(&mut buffer).map_err(|e| self.seen.explain(e))? as u64;
            if bytes == 0 {
                break;
            }
            left = left.checked_sub(bytes).ok_or_else(|| damaged("something follows the archive"))?;
        }
        if self.seen.zeros.get() < END_BYTES {
            return Err(damaged("it has no end: a part is missing"));
        }
        Ok(())
    }
}

fn damaged(text: &'static str) -> TreeError {
    TreeError::Archive(io::Error::new(io::ErrorKind::UnexpectedEof, text))
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = match self.from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let text = error.to_string();
                let kind = error.kind();
                self.seen.fault.replace(Some(error));
                return Err(io::Error::new(kind, text));
            }
            Ok(bytes) => bytes,
        };
        let zeros = buffer.iter().take(bytes).rev().take_while(|byte| **byte == 0).count();
        let before = if zeros == bytes { self.seen.zeros.get() } else { 0 };
        self.seen.zeros.set(before.saturating_add(zeros as u64));
        Ok(bytes)
    }
}
