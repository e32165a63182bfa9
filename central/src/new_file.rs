//! A file that gets its name when it is whole.
//!
//! It grows beside its place under a name that nobody can guess, made so that
//! no link is followed, and readable by its owner alone. A crash leaves that
//! name at most, never half a file under the right one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rand::RngExt;

use crate::secret::hex;

/// A file that is being written; dropped before its end, it is removed.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    partial: PathBuf,
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
        use std::os::unix::fs::OpenOptionsExt;
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let random: [u8; 8] = rand::rng().random();
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}.partial", hex(&random)));
        let partial = PathBuf::from(partial);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&partial)?;
        Ok(Self { path: path.to_owned(), partial, file, is_whole: false })
    }

    /// Brings the file to the disk and gives it its name. Blocks for the disk.
    ///
    /// # Errors
    /// What the system says; then there is no file. Never replaces one.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        // A link and no renaming, which would replace what came meanwhile.
        std::fs::hard_link(&self.partial, &self.path)?;
        self.is_whole = true;
        std::fs::remove_file(&self.partial)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
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
        if self.is_whole {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.partial) {
            tracing::warn!(path = %self.partial.display(), %error, "half a file stays: remove it");
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
        assert!(!path.exists());
        drop(file);
        assert!(names(dir.path()).is_empty());
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        file.finish().unwrap();
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), names(dir.path()).len()), (&b"whole"[..], 1));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
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
