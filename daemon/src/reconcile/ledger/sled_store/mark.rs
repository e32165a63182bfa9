//! The number of the last durable commit, beside the log that may lose it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Its file, in sled's directory: it goes where the log goes.
const NAME: &str = "durable-commits";
/// Digits of the number, so that each content is as long as every other and
/// replaces it in one write within one block.
const DIGITS: usize = 20;

/// The number of the last durable commit. It is written after the commit and
/// not synced: after a power cut it may be an older one, never a newer one.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: Option<File>,
    durable: u64,
}

impl Mark {
    /// Reads the mark of a directory. One that is not there or cannot be read
    /// says nothing about the log, and stops nobody.
    pub(super) fn open(dir: &Path) -> Self {
        let path = dir.join(NAME);
        let mut text = String::new();
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let read = file.and_then(|mut file| file.read_to_string(&mut text).map(|_| file));
        let file = read.inspect_err(|error| warn(&path, error)).ok();
        let durable = text.trim_end().parse().unwrap_or_else(|_| {
            if !text.is_empty() {
                tracing::warn!(path = %path.display(), text, "no number of a commit: it is written anew");
            }
            0
        });
        Self { path, file, durable }
    }

    /// The number.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Notes a commit that is durable.
    pub(super) fn set(&mut self, durable: u64) {
        self.durable = durable;
        let text = format!("{durable:0DIGITS$}\n");
        let Some(file) = &self.file else { return };
        if let Err(error) = file.write_all_at(text.as_bytes(), 0) {
            warn(&self.path, &error);
            // A number that was cut off must not be read as another one.
            if let Err(error) = file.set_len(0) {
                warn(&self.path, &error);
            }
        }
    }
}

fn warn(path: &Path, error: &std::io::Error) {
    tracing::warn!(path = %path.display(), %error, "durable commits are not noted: a cut log would not be seen");
}
