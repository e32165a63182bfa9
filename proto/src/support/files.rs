//! The texts of a support bundle, within bounds.

use serde::Serialize;

use super::Redactor;
use crate::model::{LeftOut, SupportPart};

/// Most bytes of one file: the state of a thousand sandboxes is a few MiB.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Most bytes of one part, as the protocol promises.
const MAX_CHUNK_BYTES: usize = 256 << 10;

/// Collects texts, each redacted as it is added.
#[derive(Debug)]
pub struct Files {
    redactor: Redactor,
    files: Vec<(String, String)>,
    left_out: Vec<LeftOut>,
    max_file_bytes: usize,
}

impl Files {
    /// No files yet.
    #[must_use]
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, files: Vec::new(), left_out: Vec::new(), max_file_bytes: MAX_FILE_BYTES }
    }

    /// Adds a text; what is beyond the bound is cut and said to be left out.
    pub fn text(&mut self, path: &str, text: &str) {
        let mut text = self.redactor.text(text);
        let max = self.max_file_bytes;
        if text.len() > max {
            let cut = text.floor_char_boundary(max);
            self.leave_out(
                &format!("the end of {path}"),
                &format!("the file has {} bytes, at most {max} are taken", text.len()),
            );
            text.truncate(cut);
        }
        self.files.push((path.to_owned(), text));
    }

    /// Adds a value as JSON; fields that are named like secrets lose their
    /// values.
    pub fn json<T: Serialize>(&mut self, path: &str, value: &T) {
        let text = serde_json::to_value(value).and_then(|mut value| {
            self.redactor.json(&mut value);
            serde_json::to_string_pretty(&value)
        });
        match text {
            Ok(text) => self.text(path, &text),
            Err(error) => self.leave_out(path, &format!("it cannot be written as JSON: {error}")),
        }
    }

    /// Adds what could be read, or says why not.
    pub fn try_text<E: std::fmt::Display>(&mut self, path: &str, text: Result<String, E>) {
        match text {
            Ok(text) => self.text(path, &text),
            Err(error) => self.leave_out(path, &error.to_string()),
        }
    }

    /// Notes something that is not there, and why.
    pub fn leave_out(&mut self, what: &str, why: &str) {
        self.left_out.push(LeftOut { what: what.to_owned(), why: self.redactor.text(why) });
    }

    /// The parts to send, in order.
    #[must_use]
    pub fn into_parts(self) -> Vec<SupportPart> {
        let mut parts = vec![SupportPart::Begin { files: u32::try_from(self.files.len()).unwrap_or(u32::MAX) }];
        for (path, text) in self.files {
            let mut rest = text.as_str();
            loop {
                let (piece, more) = rest.split_at(rest.floor_char_boundary(MAX_CHUNK_BYTES));
                parts.push(SupportPart::Chunk { path: path.clone(), text: piece.to_owned() });
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
        }
        parts.extend(self.left_out.into_iter().map(SupportPart::LeftOut));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files::new(Redactor::new(["planted-secret".to_owned()]).unwrap())
    }

    #[test]
    fn a_large_file_arrives_whole_in_small_pieces() {
        let text = "äö".repeat(200_000);
        let mut files = files();
        files.text("big.txt", &text);
        files.text("empty.txt", "");
        let parts = files.into_parts();
        assert_eq!(parts[0], SupportPart::Begin { files: 2 });
        let pieces: Vec<_> = parts
            .iter()
            .filter_map(|part| match part {
                SupportPart::Chunk { path, text } if path == "big.txt" => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_CHUNK_BYTES));
        assert_eq!(pieces.concat(), text);
        assert!(parts.contains(&SupportPart::Chunk { path: "empty.txt".into(), text: String::new() }));
    }

    #[test]
    fn what_is_beyond_the_bound_is_said_to_be_left_out() {
        let mut files = files();
        files.max_file_bytes = 10;
        files.text("big.txt", &"x".repeat(11));
        let parts = files.into_parts();
        assert!(matches!(parts.last(), Some(SupportPart::LeftOut(left)) if left.what == "the end of big.txt"));
    }

    #[test]
    fn every_way_in_redacts() {
        let mut files = files();
        files.text("a", "planted-secret");
        files.json("b", &serde_json::json!({"note": "planted-secret", "password": "short"}));
        files.try_text("c", Err::<String, _>("no planted-secret here"));
        let all = serde_json::to_string(&files.into_parts()).unwrap();
        assert!(!all.contains("planted-secret") && !all.contains("short"), "{all}");
    }
}
