//! Lines of a file, their digests, and the file itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CopyError;
use crate::new_file::NewFile;

/// Version of this format.
const FORMAT: u32 = 1;
/// Longest line: a row holds documents of some hundred KiB at most.
const LINE_MAX_BYTES: u64 = 64 << 20;
/// zstd's own default: beyond it a file shrinks little and slowly.
const LEVEL: i32 = 3;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// Version of the format.
    roost_store: u32,
    /// Version of the schema.
    pub(super) schema: i64,
    /// Rows of all tables.
    pub(super) rows: u64,
    /// Release of central that wrote the file.
    central: String,
    /// Unix time of the export, in milliseconds.
    created_at_unix_ms: u64,
}

impl Header {
    pub(super) fn new(schema: i64, rows: u64) -> Self {
        let created_at_unix_ms = crate::clock::now_unix_ms();
        Self { roost_store: FORMAT, schema, rows, central: env!("CARGO_PKG_VERSION").into(), created_at_unix_ms }
    }
}

/// The begin of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

/// The last line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    /// Rows of each table.
    pub(super) end: BTreeMap<String, u64>,
    /// SHA-256 of all lines before this one, in hex.
    pub(super) sha256: String,
}

/// A value in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Text(String),
}

/// One line after the header.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Row(Vec<Cell>),
    Table(Table),
    End(End),
}

pub(super) fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line as it stands in the file.
pub(super) fn bytes_of<T: Serialize>(line: &T) -> Result<Vec<u8>, CopyError> {
    let problem =
        |error: serde_json::Error| CopyError::Line { number: 0, problem: format!("cannot be written ({error})") };
    let mut bytes = serde_json::to_vec(line).map_err(problem)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A file that is being written; it has its name when it is whole.
pub(super) struct Writer {
    path: PathBuf,
    out: zstd::Encoder<'static, BufWriter<NewFile>>,
    digest: Sha256,
}

impl Writer {
    pub(super) fn create(path: &Path) -> Result<Self, CopyError> {
        let create = || zstd::Encoder::new(BufWriter::new(NewFile::create(path)?), LEVEL);
        let fault = |source| CopyError::File { operation: "create", path: path.to_owned(), source };
        Ok(Self { path: path.to_owned(), out: create().map_err(fault)?, digest: Sha256::new() })
    }

    pub(super) fn line<T: Serialize>(&mut self, line: &T) -> Result<(), CopyError> {
        let bytes = bytes_of(line)?;
        self.digest.update(&bytes);
        let written = self.out.write_all(&bytes);
        written.map_err(|source| CopyError::File { operation: "write", path: self.path.clone(), source })
    }

    /// Writes the last line and gives the file its name.
    pub(super) fn finish(mut self, end: BTreeMap<String, u64>) -> Result<(), CopyError> {
        let sha256 = hex(std::mem::take(&mut self.digest));
        self.line(&End { end, sha256 })?;
        let path = self.path;
        let finish = |out: zstd::Encoder<'static, BufWriter<NewFile>>| {
            out.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()
        };
        finish(self.out).map_err(|source| CopyError::File { operation: "write", path: path.clone(), source })
    }
}

/// A file that is being read.
pub(super) struct Reader {
    path: PathBuf,
    input: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    number: u64,
    /// Of all lines so far, and of those after the header.
    digests: (Sha256, Sha256),
    /// What the present line adds to them.
    line: Vec<u8>,
}

impl Reader {
    /// Opens the file and reads its header.
    pub(super) fn open(path: &Path) -> Result<(Self, Header), CopyError> {
        let open = || Ok(BufReader::new(zstd::Decoder::new(File::open(path)?)?));
        let input = open().map_err(|source| CopyError::File { operation: "read", path: path.to_owned(), source })?;
        let digests = (Sha256::new(), Sha256::new());
        let mut reader = Self { path: path.to_owned(), input, number: 0, digests, line: Vec::new() };
        let header: Header = reader.parse()?;
        if header.roost_store != FORMAT {
            let problem = format!("has format {}, this central knows {FORMAT}", header.roost_store);
            return Err(reader.fault(problem));
        }
        reader.digests.0.update(&reader.line);
        Ok((reader, header))
    }

    /// The next table or row; none at the end, which is checked.
    pub(super) fn next(&mut self, rows: &BTreeMap<String, u64>) -> Result<Option<Line>, CopyError> {
        match self.parse()? {
            Line::End(end) => {
                if end.sha256 != hex(self.digests.0.clone()) {
                    return Err(CopyError::Damaged("has another SHA-256 than its end says"));
                }
                if end.end != *rows {
                    return Err(CopyError::Damaged("has another number of rows than its end says"));
                }
                if self.read_line()? {
                    return Err(CopyError::Damaged("goes on after its end"));
                }
                Ok(None)
            }
            line => {
                self.digests.0.update(&self.line);
                self.digests.1.update(&self.line);
                Ok(Some(line))
            }
        }
    }

    /// SHA-256 of all tables and rows so far.
    pub(super) fn content(&self) -> String {
        hex(self.digests.1.clone())
    }

    /// An error in the present line.
    pub(super) fn fault(&self, problem: impl Into<String>) -> CopyError {
        CopyError::Line { number: self.number, problem: problem.into() }
    }

    fn parse<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, CopyError> {
        if !self.read_line()? {
            return Err(CopyError::Damaged("ends before its last line"));
        }
        serde_json::from_slice(&self.line).map_err(|_| self.fault("cannot be read"))
    }

    /// Reads one line; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, CopyError> {
        self.number += 1;
        self.line.clear();
        let read = (&mut self.input).take(LINE_MAX_BYTES).read_until(b'\n', &mut self.line);
        match read {
            Ok(0) => Ok(false),
            Ok(_) if self.line.ends_with(b"\n") => Ok(true),
            Ok(_) => Err(CopyError::Damaged("ends in the middle of a line")),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(CopyError::Damaged("ends before its last line"))
            }
            Err(source) => Err(CopyError::File { operation: "read", path: self.path.clone(), source }),
        }
    }
}
