//! The file: a tar below one directory, packed with zstd.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use roost_proto::model::{LeftOut, SupportPart};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::error::CliError;

/// Most bytes of all files together, before packing.
const MAX_BYTES: usize = 256 << 20;
/// Most files of one source.
const MAX_FILES: usize = 1000;
/// zstd's own default: quick, and texts shrink to a tenth.
const LEVEL: i32 = 3;

/// What the bundle is and holds, `manifest.json`.
#[derive(Debug, Default, Serialize)]
struct Manifest {
    /// Unix time, in milliseconds.
    created_at_unix_ms: u64,
    /// Version of the command that packed it.
    roost_version: &'static str,
    /// Bytes of each file, by its path.
    files: BTreeMap<String, usize>,
    /// What is not there and why, by source.
    left_out: BTreeMap<String, Vec<LeftOut>>,
}

/// A bundle that is being written; nothing of it stays unless it is finished.
pub(super) struct Archive {
    path: PathBuf,
    tar: tar::Builder<zstd::Encoder<'static, NamedTempFile>>,
    root: String,
    manifest: Manifest,
    bytes: usize,
    /// The file whose pieces are coming.
    open: Option<(String, String)>,
}

/// A time as a part of a file name: `20260131T235959Z`.
pub(super) fn stamp(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

impl Archive {
    /// Begins a file beside its later place, readable by its owner alone.
    ///
    /// # Errors
    /// There cannot be one.
    pub(super) fn create(path: &Path, now_unix_ms: u64) -> Result<Self, CliError> {
        let error = |source| CliError::File { operation: "write", path: path.into(), source };
        let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let file = NamedTempFile::new_in(directory).map_err(error)?;
        let encoder = zstd::Encoder::new(file, LEVEL).map_err(error)?;
        Ok(Self {
            path: path.to_owned(),
            tar: tar::Builder::new(encoder),
            root: format!("roost-bundle-{}", stamp(now_unix_ms)),
            manifest: Manifest {
                created_at_unix_ms: now_unix_ms,
                roost_version: env!("CARGO_PKG_VERSION"),
                ..Manifest::default()
            },
            bytes: 0,
            open: None,
        })
    }

    /// Takes a part of a source.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn add(&mut self, directory: &str, part: SupportPart) -> Result<(), CliError> {
        match part {
            SupportPart::Begin { .. } => Ok(()),
            SupportPart::LeftOut(left) => {
                self.leave_out(directory, left);
                Ok(())
            }
            SupportPart::Chunk { path, text } => self.chunk(directory, path, &text),
        }
    }

    fn chunk(&mut self, directory: &str, path: String, text: &str) -> Result<(), CliError> {
        let refuse = |why: &str| LeftOut { what: path.clone(), why: why.to_owned() };
        // What a node names must not leave the bundle when it is unpacked.
        if !is_plain(&path) {
            self.leave_out(directory, refuse("its name is not a plain path"));
            return Ok(());
        }
        if self.bytes.saturating_add(text.len()) > MAX_BYTES || self.manifest.files.len() >= MAX_FILES {
            self.leave_out(directory, refuse("the bundle is full"));
            return Ok(());
        }
        self.bytes += text.len();
        match &mut self.open {
            Some((open, content)) if *open == path => {
                content.push_str(text);
                Ok(())
            }
            _ => {
                self.end_source(directory)?;
                self.open = Some((path, text.to_owned()));
                Ok(())
            }
        }
    }

    /// Writes the file whose pieces were coming.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn end_source(&mut self, directory: &str) -> Result<(), CliError> {
        let Some((path, content)) = self.open.take() else { return Ok(()) };
        self.write(&format!("{directory}/{path}"), content.as_bytes())
    }

    /// Notes what is not there.
    pub(super) fn leave_out(&mut self, directory: &str, left: LeftOut) {
        let list = self.manifest.left_out.entry(directory.to_owned()).or_default();
        if !list.contains(&left) {
            list.push(left);
        }
    }

    fn write(&mut self, name: &str, content: &[u8]) -> Result<(), CliError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_mtime(self.manifest.created_at_unix_ms / 1000);
        let written = self.tar.append_data(&mut header, format!("{}/{name}", self.root), content);
        written.map_err(|source| CliError::File { operation: "write", path: self.path.clone(), source })?;
        self.manifest.files.insert(name.to_owned(), content.len());
        Ok(())
    }

    /// Writes the manifest and puts the file in its place; returns its size in
    /// bytes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn finish(mut self) -> Result<u64, CliError> {
        let path = self.path.clone();
        let error = |source: io::Error| CliError::File { operation: "write", path: path.clone(), source };
        let manifest = serde_json::to_vec_pretty(&self.manifest).map_err(|e| error(e.into()))?;
        self.write("manifest.json", &manifest)?;
        let mut file = self.tar.into_inner().and_then(zstd::Encoder::finish).map_err(error)?;
        file.flush().map_err(error)?;
        let file: File = file.persist(&path).map_err(|e| error(e.error))?;
        Ok(file.metadata().map_err(error)?.len())
    }
}

/// Whether every part of a path is a plain name.
fn is_plain(path: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    path.len() <= 200 && path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn chunk(path: &str, text: &str) -> SupportPart {
        SupportPart::Chunk { path: path.into(), text: text.into() }
    }

    #[test]
    fn pieces_become_files_and_strange_names_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.tar.zst");
        let mut archive = Archive::create(&path, 0).unwrap();
        for part in [chunk("a.txt", "one "), chunk("a.txt", "two"), chunk("../../etc/cron.d/x", "bad"), chunk("b", "")]
        {
            archive.add("local", part).unwrap();
        }
        archive.end_source("local").unwrap();
        archive.finish().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut files = BTreeMap::new();
        let mut tar = tar::Archive::new(zstd::Decoder::new(File::open(&path).unwrap()).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(name, text);
        }
        let root = "roost-bundle-19700101T000000Z";
        assert_eq!(files[&format!("{root}/local/a.txt")], "one two");
        assert_eq!(files[&format!("{root}/local/b")], "");
        assert_eq!(files.len(), 3);
        assert!(files[&format!("{root}/manifest.json")].contains("../../etc/cron.d/x"));
    }

    #[test]
    fn an_unfinished_bundle_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Archive::create(&dir.path().join("b.tar.zst"), 0).unwrap();
        archive.add("local", chunk("a", "x")).unwrap();
        drop(archive);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
