//! `roost-central backup` and `restore`: database and CA as one file.
//!
//! The file is a tar under zstd: `manifest.json` with the SHA-256 of every
//! other entry, the files of the CA, and the database as one consistent copy
//! that is taken while central writes on. It is not encrypted: `--out -` hands
//! it to whatever encrypts files at the site.

mod restore;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::moment;
use crate::ca::{Authorities, CaError};
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::secret::{Secret, sha256_hex};
use crate::store::{Database, StoreError, sqlite};

pub use restore::restore;

/// Version of the file's layout.
const VERSION: u32 = 1;
/// Entries of the file.
const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "central.db";
const CA_PREFIX: &str = "ca/";
/// The name that stands for standard output and input.
const STANDARD: &str = "-";
/// Effort of compression: as fast as a disk, half of the size.
const LEVEL: i32 = 3;

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
    #[error("cannot copy the database")]
    Store(#[from] StoreError),
    /// The configuration names no database that can be used.
    #[error("the database of the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The database is a server, which has tools of its own.
    #[error(
        "the database is PostgreSQL: keep it with pg_dump, bring it back with pg_restore, and keep the CA beside it \
         with `roost-central backup --ca-only`"
    )]
    Server,
    /// The files of the CA cannot be read or written.
    #[error("cannot use the files of the CA")]
    Ca(#[from] CaError),
    /// The target has state already.
    #[error("{} exists: a backup is restored into an empty state_dir only; move the old one away", path.display())]
    NotEmpty {
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
    Newer {
        /// Its layout.
        found: u32,
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
    /// When it was written, for people.
    #[must_use]
    pub fn moment(&self) -> String {
        moment(self.created_at_unix_ms)
    }
}

/// One file of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Their size before compression, in bytes.
    pub bytes: u64,
}

/// Writes the CA and, unless `ca_only`, the database into `out`, which must not
/// exist; `-` is standard output. Central may run and serve meanwhile. Blocks
/// for the disk.
///
/// # Errors
/// See [`BackupError`].
pub fn write(config: &Config, out: &Path, ca_only: bool) -> Result<Kept, BackupError> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, content) in Authorities::files(&config.ca_dir())? {
        files.push((format!("{CA_PREFIX}{name}"), content));
    }
    if !ca_only {
        files.push((DATABASE.into(), database(config)?));
    }
    if out == Path::new(STANDARD) {
        let written = archive(io::stdout().lock(), &files);
        return written.map_err(|source| file("write", Path::new("standard output"), source));
    }
    write_new(out, &files).map_err(|source| file("write", out, source))
}

/// The database as it is at one moment.
fn database(config: &Config) -> Result<Vec<u8>, BackupError> {
    let Database::Sqlite(database) = config.database()? else { return Err(BackupError::Server) };
    let copy = Temporary(config.state_dir.join(format!("{}.backup", Secret::random("copy").hash().as_str())));
    sqlite::copy(&database.path, &copy.0)?;
    std::fs::read(&copy.0).map_err(|source| file("read", &copy.0, source))
}

/// Writes a new file, or leaves none.
fn write_new(out: &Path, files: &[(String, Vec<u8>)]) -> io::Result<Kept> {
    use std::os::unix::fs::OpenOptionsExt;
    let target = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(out)?;
    let written = archive(&target, files).and_then(|kept| target.sync_all().map(|()| kept));
    if written.is_err() {
        // What is not whole must not be taken for a backup.
        std::fs::remove_file(out)?;
    }
    written
}

fn archive(out: impl Write, files: &[(String, Vec<u8>)]) -> io::Result<Kept> {
    let entry = |(name, content): &(String, Vec<u8>)| Entry {
        name: name.clone(),
        bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
        sha256: sha256_hex(content),
    };
    let manifest = Manifest {
        version: VERSION,
        release: format!("roost-central {}", env!("CARGO_PKG_VERSION")),
        created_at_unix_ms: clock::now_unix_ms(),
        files: files.iter().map(entry).collect(),
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
    let mut tar = tar::Builder::new(zstd::Encoder::new(out, LEVEL)?);
    append(&mut tar, MANIFEST, &text)?;
    for (name, content) in files {
        append(&mut tar, name, content)?;
    }
    tar.into_inner()?.finish()?.flush()?;
    Ok(Kept { files: files.len(), bytes: manifest.files.iter().map(|entry| entry.bytes).sum() })
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(u64::try_from(content.len()).map_err(io::Error::other)?);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, content)
}

/// A file that goes away with this.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "copy of the database stays: remove it");
            }
            _ => {}
        }
    }
}

fn file(operation: &'static str, path: &Path, source: io::Error) -> BackupError {
    BackupError::File { operation, path: path.to_owned(), source }
}

/// Opens what is to be restored.
fn open(input: &Path) -> Result<Box<dyn io::Read>, BackupError> {
    if input == Path::new(STANDARD) {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(File::open(input).map_err(|source| file("read", input, source))?))
}
