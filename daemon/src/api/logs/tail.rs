//! Where the last lines of a file begin, found from its end in bounded memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes looked at in one step.
const BLOCK_BYTES: u64 = 64 << 10;

/// Where the last lines begin, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// Offset of the first byte that belongs to them.
    pub(super) offset: u64,
    /// Lines from there on, at most as many as were asked.
    pub(super) lines: u32,
}

/// Finds the last `lines` lines among the first `len` bytes of `file`. A last
/// line without newline counts.
pub(super) fn tail(file: &File, len: u64, lines: u32) -> io::Result<Tail> {
    if lines == 0 {
        return Ok(Tail { offset: len, lines: 0 });
    }
    let mut found = 0;
    let mut end = len;
    let mut buffer = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        buffer.resize(usize::try_from(end - start).map_err(io::Error::other)?, 0);
        file.read_exact_at(&mut buffer, start)?;
        for (at, _) in (start..end).rev().zip(buffer.iter().rev()).filter(|(_, byte)| **byte == b'\n') {
            // The newline at the very end closes the last line, it opens none.
            if at + 1 == len {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(Tail { offset: at + 1, lines });
            }
        }
        end = start;
    }
    Ok(Tail { offset: 0, lines: found + u32::from(len > 0) })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn tail_of(text: &[u8], lines: u32) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let tail = tail(&file, text.len() as u64, lines).unwrap();
        text[usize::try_from(tail.offset).unwrap()..].to_vec()
    }

    #[test]
    fn a_last_line_without_newline_counts() {
        assert_eq!(tail_of(b"a\nb\nc", 2), b"b\nc");
        assert_eq!(tail_of(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(tail_of(b"a\n", 0), b"");
        assert_eq!(tail_of(b"\n\n\n", 2), b"\n\n");
    }

    #[test]
    fn lines_longer_than_a_block_are_found() {
        let long = vec![b'x'; 200_000];
        let text = [b"first\n", long.as_slice(), b"\nlast\n"].concat();
        assert_eq!(tail_of(&text, 2), text[6..]);
    }

    proptest! {
        #[test]
        fn it_agrees_with_splitting_the_whole_text(text in "[a\n]{0,200}", lines in 0_u32..20) {
            let all: Vec<&str> = text.split_inclusive('\n').collect();
            let want = all[all.len().saturating_sub(lines as usize)..].concat();
            prop_assert_eq!(tail_of(text.as_bytes(), lines), want.into_bytes());
        }
    }
}
