//! What a checkpoint says. Pure.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use roost_proto::id::{CheckpointId, TenantId, VolumeName};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::host::home::{Meta, Stamp};
use crate::volume::VolumeKey;

/// Format of trees and summaries that this build writes.
pub(super) const VERSION: u32 = 1;
/// End of the name of a summary.
pub(super) const SUMMARY: &str = ".json";
/// End of the name of a tree.
pub(super) const TREE: &str = ".tree";
/// Largest tree, in bytes: some ten million entries.
const TREE_MAX_BYTES: usize = 2 << 30;
/// zstd's own default is slower than a disk here.
pub(super) const ZSTD_LEVEL: i32 = 1;

/// What tells contents apart: SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const PROBLEM: &str = "a hash has 64 hexadecimal digits";
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(PROBLEM);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| PROBLEM)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| PROBLEM)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A path or the text of a link: text where it is UTF-8, else its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(pub(super) PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NameForm {
    Text(String),
    Bytes(Vec<u8>),
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => NameForm::Bytes(self.0.as_os_str().as_bytes().to_vec()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match NameForm::deserialize(deserializer)? {
            NameForm::Text(text) => text.into(),
            NameForm::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }))
    }
}

/// A piece of a file: its hash, where it begins and how long it is. What no
/// piece covers is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece(pub(super) Hash, pub(super) u64, pub(super) u32);

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Kind {
    Dir,
    Fifo,
    Link(Name),
    /// One more name of the file at this path, which comes before.
    Same(Name),
    File {
        size: u64,
        inode: u64,
        ctime_ns: i64,
        pieces: Vec<Piece>,
    },
}

/// One entry of a home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Below the home; empty for the home itself.
    pub(super) path: Name,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_ns: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) attributes: Vec<(String, Vec<u8>)>,
}

impl Entry {
    pub(super) fn new(path: PathBuf, kind: Kind, meta: Meta) -> Self {
        let Meta { mode, uid, gid, mtime_ns, attributes } = meta;
        Self { path: Name(path), kind, mode, uid, gid, mtime_ns, attributes }
    }

    pub(super) fn meta(&self) -> Meta {
        let Self { mode, uid, gid, mtime_ns, .. } = *self;
        Meta { mode, uid, gid, mtime_ns, attributes: self.attributes.clone() }
    }

    /// The pieces of a file that was not changed since, if that is certain.
    /// What was changed so shortly before `began_ns` that a later change could
    /// bear the same time is not.
    pub(super) fn pieces_if_unchanged(&self, stamp: &Stamp, began_ns: i64) -> Option<&[Piece]> {
        /// Two changes within it may bear one time: the kernel's clock for
        /// files ticks every 4 ms at most, and other clocks are worse.
        const RACY_NS: i64 = 1_000_000_000;
        match &self.kind {
            Kind::File { size, inode, ctime_ns, pieces }
                if (*size, *inode, *ctime_ns, self.mtime_ns)
                    == (stamp.size, stamp.inode, stamp.ctime_ns, stamp.mtime_ns)
                    && *ctime_ns < began_ns.saturating_sub(RACY_NS) =>
            {
                Some(pieces)
            }
            _ => None,
        }
    }
}

/// Every entry of a home.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) version: u32,
    /// When its reading began, in nanoseconds since 1970.
    pub(super) began_ns: i64,
    pub(super) entries: Vec<Entry>,
}

impl Manifest {
    /// The pieces of all files, in their order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.entries
            .iter()
            .flat_map(|entry| match &entry.kind {
                Kind::File { pieces, .. } => pieces.as_slice(),
                _ => &[],
            })
            .copied()
    }
}

/// What a checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    pub(super) version: u32,
    /// Which.
    pub id: CheckpointId,
    /// Owner of the volume.
    pub tenant: TenantId,
    /// The volume.
    pub volume: VolumeName,
    /// Unix time, in milliseconds.
    pub created_at_unix_ms: u64,
    /// What the volume was to hold at most, in bytes.
    pub size_bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Content of all files without their holes, in bytes.
    pub content_bytes: u64,
    /// Content that was not in the store before, in bytes.
    pub moved_bytes: u64,
    /// What that took in the store, in bytes, with the list of entries.
    pub stored_bytes: u64,
    /// How long a sandbox stood still, in microseconds; 0 if none wrote.
    pub frozen_us: u64,
    pub(super) tree: Hash,
}

impl Summary {
    pub(super) fn volume_key(&self) -> VolumeKey {
        VolumeKey { tenant: self.tenant.clone(), name: self.volume.clone() }
    }

    fn stem(&self) -> String {
        // So that names in their order are checkpoints in theirs.
        format!("{}{:014}-{}", prefix(&self.volume_key()), self.created_at_unix_ms, self.id)
    }

    pub(super) fn key(&self) -> String {
        format!("{}{SUMMARY}", self.stem())
    }

    pub(super) fn tree_key(&self) -> String {
        format!("{}{TREE}", self.stem())
    }
}

/// Where the manifests of a volume are.
pub(super) fn prefix(key: &VolumeKey) -> String {
    format!("manifests/{}/{}/", key.tenant, key.name)
}

pub(super) fn encode_tree(tree: &Manifest) -> Result<Vec<u8>, String> {
    let text = serde_json::to_vec(tree).map_err(|error| error.to_string())?;
    zstd::bulk::compress(&text, ZSTD_LEVEL).map_err(|error| error.to_string())
}

pub(super) fn decode_tree(bytes: &[u8]) -> Result<Manifest, String> {
    let reader = zstd::stream::read::Decoder::new(bytes).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(reader, TREE_MAX_BYTES as u64), &mut text)
        .map_err(|error| error.to_string())?;
    let tree: Manifest = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if tree.version != VERSION {
        return Err(format!("its format {} is not known here: use the newer roostd", tree.version));
    }
    Ok(tree)
}

/// Whether a path of a manifest stays in its home by its names alone.
pub(super) fn check_path(path: &Path) -> Result<(), String> {
    if crate::host::home::is_plain(path) { Ok(()) } else { Err(format!("{} leads out of the home", path.display())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(ctime_ns: i64) -> Entry {
        let kind = Kind::File { size: 3, inode: 7, ctime_ns, pieces: vec![Piece(Hash::of(b"abc"), 0, 3)] };
        let path = PathBuf::from(OsString::from_vec(vec![b'a', 0xff]));
        Entry::new(path, kind, Meta { mode: 0o644, uid: 1000, gid: 1000, mtime_ns: 5, attributes: vec![] })
    }

    #[test]
    fn a_tree_survives_its_encoding_with_names_that_are_no_text() {
        let tree = Manifest { version: VERSION, began_ns: 9, entries: vec![file(5)] };
        assert_eq!(decode_tree(&encode_tree(&tree).unwrap()), Ok(tree.clone()));
        let newer = Manifest { version: 2, ..tree };
        assert!(decode_tree(&encode_tree(&newer).unwrap()).unwrap_err().contains("newer roostd"));
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_and_nothing_else_is() {
        let hash = Hash::of(b"abc");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!(hash.to_string().starts_with("ba7816bf"));
        for bad in ["", "zz", &"0".repeat(63), &"é".repeat(32)] {
            assert!(bad.parse::<Hash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_unchanged_only_if_a_change_would_show() {
        let stamp = Stamp { inode: 7, size: 3, mtime_ns: 5, ctime_ns: 5 };
        let later = 5 + 2_000_000_000;
        assert!(file(5).pieces_if_unchanged(&stamp, later).is_some());
        assert!(file(5).pieces_if_unchanged(&stamp, 6).is_none(), "it was changed while it was read");
        for other in [
            Stamp { inode: 8, ..stamp },
            Stamp { size: 4, ..stamp },
            Stamp { mtime_ns: 6, ..stamp },
            Stamp { ctime_ns: 6, ..stamp },
        ] {
            assert!(file(5).pieces_if_unchanged(&other, later).is_none(), "{other:?}");
        }
    }
}
