//! The last lines of a log, in memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes that are kept: some thousand lines, an hour of an ordinary day.
const MAX_BYTES: usize = 1 << 20;
/// Longest line that is kept whole, in bytes.
const MAX_LINE_BYTES: usize = 16 << 10;

/// A ring of log lines; cheap to clone. Writing drops the oldest lines.
#[derive(Debug, Clone, Default)]
pub struct LogRing {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    /// What was written since the last end of a line.
    partial: Vec<u8>,
    bytes: usize,
    dropped: u64,
}

impl LogRing {
    /// The last `count` lines, or all, the oldest first, and how many were
    /// dropped before them since the start of the process.
    #[must_use]
    pub fn last(&self, count: Option<usize>) -> (Vec<String>, u64) {
        let kept = self.kept();
        let skip = kept.lines.len().saturating_sub(count.unwrap_or(usize::MAX));
        let skipped = u64::try_from(skip).unwrap_or(u64::MAX);
        (kept.lines.iter().skip(skip).cloned().collect(), kept.dropped.saturating_add(skipped))
    }

    /// A panic while the lock is held leaves the lines whole.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = MAX_LINE_BYTES.saturating_sub(self.partial.len()) + 1;
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).trim_end().to_owned();
                self.push(line);
            }
        }
    }

    fn push(&mut self, mut line: String) {
        if line.len() > MAX_LINE_BYTES {
            line.truncate(line.floor_char_boundary(MAX_LINE_BYTES));
            line.push('…');
        }
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > MAX_BYTES {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }
}

impl io::Write for LogRing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept().write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_last_lines_are_given_with_the_number_of_those_before() {
        let mut ring = LogRing::default();
        for number in 0..5 {
            writeln!(ring, "line {number}").unwrap();
        }
        assert_eq!(ring.last(None).0.len(), 5);
        assert_eq!(ring.last(Some(2)), (vec!["line 3".to_owned(), "line 4".to_owned()], 3));
    }

    #[test]
    fn the_ring_stays_within_its_bytes_and_drops_the_oldest() {
        let mut ring = LogRing::default();
        let line = "x".repeat(1000);
        for number in 0..3000 {
            ring.write_all(format!("{number} {line}\n").as_bytes()).unwrap();
        }
        let (lines, dropped) = ring.last(None);
        assert!(lines.iter().map(String::len).sum::<usize>() <= MAX_BYTES);
        assert!(lines.last().unwrap().starts_with("2999 "));
        assert_eq!(u64::try_from(lines.len()).unwrap() + dropped, 3000);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let mut ring = LogRing::default();
        writeln!(ring, "{}", "ä".repeat(MAX_LINE_BYTES)).unwrap();
        writeln!(ring, "next").unwrap();
        let (lines, _) = ring.last(None);
        assert!(lines[0].len() <= MAX_LINE_BYTES + 3 && lines[1] == "next", "{}", lines[0].len());
    }
}
