//! Templates and profiles that ship as files: created once, never changed.

use std::path::{Path, PathBuf};

use roost_proto::model::{FieldError, Profile, Template, Validate};
use serde::de::DeserializeOwned;

use super::{RequestError, Scope};

/// Why the seed directory stops the start.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A directory or file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is no TOML, or has an unknown or mistyped field.
    #[error("cannot parse {}: {detail}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, field and reason, as the parser words them.
        detail: String,
    },
    /// A field breaks a rule.
    #[error("{}: {}", path.display(), list(errors))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every field at fault.
        errors: Vec<FieldError>,
    },
    /// It cannot be stored.
    #[error("cannot create what {} describes", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: RequestError,
    },
}

fn list(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Scope {
    /// Creates what `dir/profiles/*.toml` and `dir/templates/*.toml` describe
    /// and what does not exist yet.
    ///
    /// # Errors
    /// See [`SeedError`].
    pub async fn seed(&self, dir: &Path) -> Result<(), SeedError> {
        // Profiles first: templates name them.
        for (path, profile) in files::<Profile>(&dir.join("profiles"))? {
            let store_error = |source: RequestError| SeedError::Store { path: path.clone(), source };
            if self.store().profile(profile.name.clone()).await.map_err(|e| store_error(e.into()))?.is_none() {
                tracing::info!(profile = %profile.name, "profile created from its file");
                self.put_profile(profile).await.map_err(|error| refused(&path, error))?;
            }
        }
        for (path, template) in files::<Template>(&dir.join("templates"))? {
            let store_error = |source: RequestError| SeedError::Store { path: path.clone(), source };
            if self.store().template(template.name.clone()).await.map_err(|e| store_error(e.into()))?.is_none() {
                tracing::info!(template = %template.name, "template created from its file");
                self.put_template(template).await.map_err(|error| refused(&path, error))?;
            }
        }
        Ok(())
    }
}

fn refused(path: &Path, error: RequestError) -> SeedError {
    match error {
        RequestError::Invalid(errors) => SeedError::Invalid { path: path.to_owned(), errors },
        source => SeedError::Store { path: path.to_owned(), source },
    }
}

/// All documents of a directory by file name; none where there is no directory.
fn files<T: DeserializeOwned + Validate>(dir: &Path) -> Result<Vec<(PathBuf, T)>, SeedError> {
    let read_error = |source| SeedError::Read { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(read_error)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(read_error)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| read(&path).map(|document| (path, document))).collect()
}

fn read<T: DeserializeOwned + Validate>(path: &Path) -> Result<T, SeedError> {
    let text = std::fs::read_to_string(path).map_err(|source| SeedError::Read { path: path.to_owned(), source })?;
    let document: T =
        toml::from_str(&text).map_err(|error| SeedError::Parse { path: path.to_owned(), detail: error.to_string() })?;
    document.validate().map_err(|errors| SeedError::Invalid { path: path.to_owned(), errors })?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_file_is_valid_and_its_profile_ships_too() {
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config"));
        let profiles = files::<Profile>(&dir.join("profiles")).unwrap();
        let templates = files::<Template>(&dir.join("templates")).unwrap();
        assert!(!templates.is_empty());
        for (path, template) in templates {
            assert!(profiles.iter().any(|(_, p)| p.name == template.profile), "{}", path.display());
        }
    }

    #[test]
    fn a_bad_file_is_named_with_its_field() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "name = \"a\"\n[resources]\nshm_bytes = 1\n").unwrap();
        let error = files::<Profile>(dir.path()).unwrap_err().to_string();
        assert!(error.contains("a.toml") && error.contains("resources.shm_bytes"), "{error}");
        std::fs::write(dir.path().join("a.toml"), "name = \"a\"\ncolour = 1\n").unwrap();
        let error = files::<Profile>(dir.path()).unwrap_err().to_string();
        assert!(error.contains("colour"), "{error}");
    }
}
