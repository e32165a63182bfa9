//! `roost-central backup` and `restore`: database and CA as one file.
//!
//! The file is a tar under zstd: `manifest.json` with the SHA-256 of every
//! other entry, the files of the CA, and an export of the database, of one
//! consistent state that is taken while central writes on. Either engine can be
//! kept, and restored into either. Nothing large is held in memory. It is not
//! encrypted: `--out -` hands it to whatever encrypts files at the site.

mod restore;
mod spool;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::moment;
use crate::ca::{Authorities, CaError};
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::new_file::NewFile;
use crate::secret::sha256_hex;
use crate::store::copy::{CopyError, OnProgress, Stage};

pub use restore::restore;
use spool::{Counted, Digested, Spool};

/// Version of the file's layout.
const VERSION: u32 = 2;
/// Entries of the file.
const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "store.roost";
const CA_PREFIX: &str = "ca/";
/// The name that stands for standard output and input.
const STANDARD: &str = "-";
/// Effort of compression: the database is compressed already.
const LEVEL: i32 = 1;

/// Why nothing is kept or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be used.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database cannot be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The configuration names no database that can be used.
    #[error("the database of the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The files of the CA cannot be read or written.
    #[error("cannot use the files of the CA")]
    Ca(#[from] CaError),
    /// The target has a CA of its own.
    #[error("{} exists and is another CA than that of the backup: move it away, or restore elsewhere", path.display())]
    OtherCa {
        /// What is in the way.
        path: PathBuf,
    },
    /// The file is no backup, or not whole.
    #[error("the backup is damaged: {problem}; use another one")]
    Damaged {
        /// What is wrong with it.
        problem: String,
    },
    /// A later release wrote it.
    #[error("the backup has layout {found}, this release knows {VERSION}: restore it with the release that wrote it")]
    OtherLayout {
        /// Its layout.
        found: u64,
    },
}

/// What a backup says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// Release of central that wrote it.
    pub release: String,
    /// Unix time of its begin, in milliseconds.
    pub created_at_unix_ms: u64,
    files: Vec<Entry>,
}

impl Manifest {
    /// Whether it holds the database, and not the CA alone.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.files.iter().any(|entry| entry.name == DATABASE)
    }

    /// When it was written, for people.
    #[must_use]
    pub fn moment(&self) -> String {
        moment(self.created_at_unix_ms)
    }
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    bytes: u64,
    sha256: String,
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Files in the backup.
    pub files: usize,
    /// Rows of the database; none without it.
    pub rows: Option<u64>,
}

/// Writes the CA and, unless `ca_only`, the database into `out`, which must not
/// exist; `-` is standard output. Central may run and serve meanwhile. The
/// export lies in `state_dir` meanwhile, mode 0600. Blocks for the disk.
///
/// # Errors
/// See [`BackupError`]; then there is no file.
pub async fn write(config: &Config, out: &Path, ca_only: bool, on_progress: OnProgress) -> Result<Kept, BackupError> {
    // Before the work, as it may take long.
    let is_standard = out == Path::new(STANDARD);
    let target =
        if is_standard { None } else { Some(NewFile::create(out).map_err(|source| file("create", out, source))?) };
    let created_at_unix_ms = clock::now_unix_ms();
    let ca = Authorities::files(&config.ca_dir())?;
    let mut store = None;
    if !ca_only {
        let spool = Spool::beside(&config.state_dir)?;
        let copied = config.database()?.export(spool.path(), on_progress.clone()).await?;
        store = Some((spool.open_and_forget()?, copied.rows));
    }
    let archive = Archive { created_at_unix_ms, ca, store: store.as_ref().map(|(export, _)| export), on_progress };
    let written = match target {
        None => archive.write(io::stdout().lock()).map(drop),
        Some(target) => archive.write(target).and_then(NewFile::finish),
    };
    written.map_err(|source| file("write", out, source))?;
    let files = archive.ca.len() + usize::from(store.is_some());
    Ok(Kept { files, rows: store.map(|(_, rows)| rows) })
}

/// What goes into a file.
struct Archive<'a> {
    created_at_unix_ms: u64,
    ca: Vec<(&'static str, Vec<u8>)>,
    /// The export of the database.
    store: Option<&'a File>,
    on_progress: OnProgress,
}

impl Archive<'_> {
    fn write<W: Write>(&self, out: W) -> io::Result<W> {
        let mut tar = tar::Builder::new(zstd::Encoder::new(BufWriter::new(out), LEVEL)?);
        let ca = || self.ca.iter().map(|(name, content)| (format!("{CA_PREFIX}{name}"), content));
        let mut files: Vec<Entry> = ca().map(|(name, content)| Entry::of(name, content)).collect();
        let store_entry = self.store.map(|store| Entry::read(DATABASE.into(), store)).transpose()?;
        files.extend(store_entry.clone());
        let release = format!("roost-central {}", env!("CARGO_PKG_VERSION"));
        let manifest = Manifest { version: VERSION, release, created_at_unix_ms: self.created_at_unix_ms, files };
        let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
        append(&mut tar, MANIFEST, text.len() as u64, text.as_slice())?;
        for (name, content) in ca() {
            append(&mut tar, &name, content.len() as u64, content.as_slice())?;
        }
        if let (Some(store), Some(Entry { bytes, .. })) = (self.store, store_entry) {
            let on_bytes = |done| (self.on_progress)(Stage::Pack, done, bytes);
            append(&mut tar, DATABASE, bytes, Counted::new(BufReader::new(store), on_bytes))?;
        }
        tar.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl Entry {
    fn of(name: String, content: &[u8]) -> Self {
        Self { name, bytes: content.len() as u64, sha256: sha256_hex(content) }
    }

    /// Reads a file to its end, and goes back to its begin.
    fn read(name: String, mut file: &File) -> io::Result<Self> {
        let mut digested = Digested::new(file);
        let bytes = io::copy(&mut digested, &mut io::sink())?;
        let sha256 = digested.sha256();
        file.rewind()?;
        Ok(Self { name, bytes, sha256 })
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, content)
}

fn file(operation: &'static str, path: &Path, source: io::Error) -> BackupError {
    BackupError::File { operation, path: path.to_owned(), source }
}
