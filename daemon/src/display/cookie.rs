//! The secret that lets a client into the display server, and its file.
//!
//! One cookie per sandbox and start of its display. The Xauthority entry is of
//! the family "wild" and names no display: it holds for every host name, so
//! neither a changed host name nor a changed display number locks clients out.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rand::Rng;

/// The one authorization protocol that is used.
pub(crate) const PROTOCOL: &str = "MIT-MAGIC-COOKIE-1";
/// Bytes of a cookie: the 128 bits that the protocol asks for.
const COOKIE_BYTES: usize = 16;
/// `FamilyWild` (`X11/Xauth.h`): the entry holds for every address.
const FAMILY_WILD: u16 = 0xffff;
/// Readable by its owner only.
const FILE_MODE: u32 = 0o400;

/// Who owns a file: ids of the host, not of the sandbox's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The secret. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie([u8; COOKIE_BYTES]);

impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// Why an Xauthority file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CookieError {
    /// The file cannot be written.
    #[error("cannot write the X authority file {path}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the X authority file {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not the one entry that the daemon writes.
    #[error("the X authority file {path} is not one wild cookie entry: remove it and restart the sandbox", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl Cookie {
    /// Makes a new random cookie.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; COOKIE_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Makes a new cookie and writes it to `path`, in the place of any old
    /// file there; only `owner` can read it.
    ///
    /// # Errors
    /// [`CookieError::Write`]; nothing is left at `path` then but the old file.
    pub fn create(path: &Path, owner: Owner) -> Result<Self, CookieError> {
        let cookie = Self::random();
        match cookie.write(path, owner) {
            Ok(()) => Ok(cookie),
            Err(source) => Err(CookieError::Write { path: path.to_owned(), source }),
        }
    }

    /// Reads the cookie back, e.g. of a sandbox that outlived the daemon.
    ///
    /// # Errors
    /// [`CookieError::Read`], or [`CookieError::Malformed`] for anything but
    /// what [`Self::create`] writes.
    pub fn read(path: &Path) -> Result<Self, CookieError> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let mut content = Vec::new();
        file.and_then(|file| {
            // One byte more than a right file has, so that a longer one shows.
            io::Read::read_to_end(
                &mut io::Read::take(file, entry(&Self([0; COOKIE_BYTES])).len() as u64 + 1),
                &mut content,
            )
        })
        .map_err(|source| CookieError::Read { path: path.to_owned(), source })?;
        parse(&content).ok_or_else(|| CookieError::Malformed { path: path.to_owned() })
    }

    /// The secret, for the X handshake.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes beside the target and renames: a reader sees all or nothing.
    fn write(&self, path: &Path, owner: Owner) -> io::Result<()> {
        let new = path.with_extension("new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new)?;
        file.write_all(&entry(self))?;
        fchown(&file, Some(owner.uid), Some(owner.gid))?;
        std::fs::rename(&new, path)
    }
}

/// One Xauthority entry (`libXau`, `AuWrite.c`): family, address, display
/// number, protocol and secret; all but the first with a length before it,
/// every number big endian.
fn entry(cookie: &Cookie) -> Vec<u8> {
    let mut entry = FAMILY_WILD.to_be_bytes().to_vec();
    for field in [&[][..], &[][..], PROTOCOL.as_bytes(), &cookie.0] {
        entry.extend((field.len() as u16).to_be_bytes());
        entry.extend(field);
    }
    entry
}

/// Accepts exactly what [`entry`] makes.
fn parse(content: &[u8]) -> Option<Cookie> {
    let (_, secret) = content.split_last_chunk::<COOKIE_BYTES>()?;
    let cookie = Cookie(*secret);
    (entry(&cookie) == content).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn me() -> Owner {
        Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() }
    }

    #[test]
    fn a_cookie_reads_back_and_replaces_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("xauthority");
        let first = Cookie::create(&path, me()).unwrap();
        let second = Cookie::create(&path, me()).unwrap();
        assert_ne!(first, second);
        assert_eq!(Cookie::read(&path).unwrap(), second);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, FILE_MODE);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn the_entry_has_the_layout_of_libxau() {
        let bytes = entry(&Cookie([7; 16]));
        assert_eq!(bytes[..6], [0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(bytes[6..8], [0, 18]);
        assert_eq!(&bytes[8..26], b"MIT-MAGIC-COOKIE-1");
        assert_eq!(bytes[26..28], [0, 16]);
        assert_eq!(bytes[28..], [7; 16]);
    }

    #[test]
    fn anything_but_one_wild_entry_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("xauthority");
        let good = entry(&Cookie::random());
        let mut other_family = good.clone();
        other_family[1] = 0;
        for bad in [&[][..], &good[1..], &good[..43], &[&good[..], &good[..]].concat(), &other_family] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(Cookie::read(&path), Err(CookieError::Malformed { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_cookie_does_not_show_in_a_log() {
        assert_eq!(format!("{:?}", Cookie::random()), "Cookie(..)");
    }
}
