//! A file that gets its name when it is whole.
//!
//! Until then it has no name at all, so that a process that is killed leaves
//! nothing; only where the file system knows no nameless files (NFS, say) it
//! grows beside its place under a name that nobody can guess. It is made so
//! that no link is followed, and readable by its owner alone.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use rand::RngExt;

use crate::secret::hex;

/// Where a process finds its own open files by name.
const OPEN_FILES: &str = "/proc/self/fd";
/// What is said of a name that is taken.
const TAKEN: &str = "there is something of that name, and nothing is overwritten: name another file";
/// Who may read and write: the owner alone.
const MODE: u32 = 0o600;

/// A file that is being written; dropped before its end, it is gone.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    /// Its name meanwhile; none where it needs none.
    partial: Option<PathBuf>,
    file: File,
    is_whole: bool,
}

impl NewFile {
    /// Begins a file that is to be called `path`.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::AlreadyExists`] when there is
    /// something of that name, be it a link that leads nowhere.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, TAKEN));
        }
        match nameless(parent(path))? {
            Some(file) => Ok(Self { path: path.to_owned(), partial: None, file, is_whole: false }),
            None => Self::beside(path),
        }
    }

    /// Begins it under another name.
    fn beside(path: &Path) -> io::Result<Self> {
        let random: [u8; 8] = rand::rng().random();
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}.partial", hex(&random)));
        let partial = PathBuf::from(partial);
        let file = File::options().read(true).write(true).create_new(true).mode(MODE).open(&partial)?;
        Ok(Self { path: path.to_owned(), partial: Some(partial), file, is_whole: false })
    }

    /// Brings the file to the disk and gives it its name. Blocks for the disk.
    ///
    /// # Errors
    /// What the system says; then there is no file. Never replaces one.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        // A link and no renaming, which would replace what came meanwhile.
        match &self.partial {
            Some(partial) => {
                std::fs::hard_link(partial, &self.path)?;
                self.is_whole = true;
                std::fs::remove_file(partial)?;
            }
            None => {
                let open = Path::new(OPEN_FILES).join(self.file.as_raw_fd().to_string());
                nix::unistd::linkat(AT_FDCWD, &open, AT_FDCWD, &self.path, AtFlags::AT_SYMLINK_FOLLOW)?;
                self.is_whole = true;
            }
        }
        File::open(parent(&self.path))?.sync_all()
    }
}

/// The directory of a file.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// A file without a name in `dir`; none where there can be no such file, or
/// where it could get no name later.
fn nameless(dir: &Path) -> io::Result<Option<File>> {
    if !Path::new(OPEN_FILES).exists() {
        return Ok(None);
    }
    let flags = OFlag::O_TMPFILE.bits();
    match File::options().read(true).write(true).custom_flags(flags).mode(MODE).open(dir) {
        Ok(file) => Ok(Some(file)),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            // open(2): the file system, or the kernel, has none.
            Some(Errno::EOPNOTSUPP | Errno::EISDIR) => Ok(None),
            _ => Err(error),
        },
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let Some(partial) = self.partial.as_ref().filter(|_| !self.is_whole) else {
            return;
        };
        if let Err(error) = std::fs::remove_file(partial) {
            tracing::warn!(path = %partial.display(), %error, "half a file stays: remove it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert!(names(dir.path()).is_empty(), "a process that is killed here would leave something");
        drop(file);
        assert!(names(dir.path()).is_empty());
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        file.finish().unwrap();
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), names(dir.path()).len()), (&b"whole"[..], 1));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_system_without_nameless_files_gets_one_beside_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut file = NewFile::beside(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists() && names(dir.path()).len() == 1);
        drop(file);
        assert!(names(dir.path()).is_empty());
        let mut file = NewFile::beside(&path).unwrap();
        file.write_all(b"whole").unwrap();
        file.finish().unwrap();
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), names(dir.path()).len()), (&b"whole"[..], 1));
    }

    #[test]
    fn nothing_is_replaced_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("x"), dir.path().join("victim"));
        symlink(&victim, &path).unwrap();
        assert_eq!(NewFile::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::remove_file(&path).unwrap();
        let file = NewFile::create(&path).unwrap();
        symlink(&victim, &path).unwrap();
        assert_eq!(file.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!victim.exists());
        assert_eq!(names(dir.path()), ["x"]);
    }
}
