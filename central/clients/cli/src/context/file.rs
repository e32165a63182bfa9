//! The contexts on disk: one TOML file that only its owner can read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ContextError, ServerUrl, Token};

/// The whole file. Unknown fields are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// The context that is used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current_context: Option<String>,
    /// By name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// One server with what is needed to call it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Its address.
    pub(crate) server: ServerUrl,
    /// The token itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Token>,
    /// Or the file that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates that may sign the server's, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allows the token over plain http to another machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure: bool,
}

impl Context {
    /// A context that only knows its server.
    pub(crate) fn new(server: ServerUrl) -> Self {
        Self { server, token: None, token_file: None, ca_file: None, insecure: false }
    }
}

impl ConfigFile {
    /// Reads the file; a missing file is an empty one.
    ///
    /// # Errors
    /// Unreadable files, and content that is not exactly a configuration.
    pub(crate) fn load(path: &Path) -> Result<Self, ContextError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|problem| ContextError::Parse { path: path.into(), problem }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ContextError::File { operation: "read", path: path.into(), source }),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| describe(text, &error))?;
        for (name, context) in &file.contexts {
            if context.token.is_some() && context.token_file.is_some() {
                return Err(format!("contexts.{name}: give token or token_file, not both"));
            }
        }
        if let Some(name) = file.current_context.as_ref().filter(|name| !file.contexts.contains_key(*name)) {
            return Err(format!("current_context: there is no context \"{name}\""));
        }
        Ok(file)
    }

    /// Writes the file in one step, readable by its owner only.
    ///
    /// # Errors
    /// The directory cannot be made or the file not be written.
    pub(crate) fn save(&self, path: &Path) -> Result<(), ContextError> {
        let text = toml::to_string_pretty(self)
            .map_err(|error| ContextError::Parse { path: path.into(), problem: error.to_string() })?;
        // A link is followed, so that a file kept elsewhere stays there.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        replace(&path, text.as_bytes()).map_err(|source| ContextError::File { operation: "write", path, source })
    }

    /// The named context.
    ///
    /// # Errors
    /// [`ContextError::Unknown`], with the contexts that exist.
    pub(crate) fn get(&self, name: &str, path: &Path) -> Result<&Context, ContextError> {
        self.contexts.get(name).ok_or_else(|| ContextError::Unknown {
            name: name.into(),
            path: path.into(),
            known: self.contexts.keys().cloned().collect(),
        })
    }
}

/// Line and reason of a TOML error. The parser's own rendering quotes the
/// line, which may be the one with the token.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {}", error.message().replace('\n', " ")),
        None => error.message().replace('\n', " "),
    }
}

/// Replaces a file without a moment in which it is half-written or readable by
/// others.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A warning for a file with a secret that others can read; `None` when all
/// is well or there is no such file.
pub(crate) fn permission_warning(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let path = path.display();
    (mode & 0o077 != 0).then(|| format!("{path} can be read by others (mode {mode:04o}): run chmod 600 {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "current_context = \"lab\"\n\n[contexts.lab]\nserver = \"https://roost.lab\"\ntoken = \"s3cret\"\n";

    #[test]
    fn a_file_survives_saving_and_loading_with_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/config.toml");
        let file = ConfigFile::parse(GOOD).unwrap();
        file.save(&path).unwrap();
        assert_eq!(ConfigFile::load(&path).unwrap(), file);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(permission_warning(&path), None);
    }

    #[test]
    fn saving_tightens_a_file_that_others_could_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, GOOD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(permission_warning(&path).unwrap().contains("mode 0644"));
        ConfigFile::load(&path).unwrap().save(&path).unwrap();
        assert_eq!(permission_warning(&path), None);
    }

    #[test]
    fn a_missing_file_is_an_empty_one() {
        assert_eq!(ConfigFile::load(Path::new("/nonexistent/config.toml")).unwrap(), ConfigFile::default());
    }

    #[test]
    fn whatever_is_not_understood_is_refused_with_its_line() {
        for (bad, expected) in [
            ("tokn = 1", "line 1: unknown field `tokn`"),
            ("[contexts.a]\nserver = \"http://a\"\npassword = \"x\"", "line 3: unknown field `password`"),
            ("[contexts.a]\ntoken = \"x\"", "missing field `server`"),
            ("[contexts.a]\nserver = \"a\"", "line 2: "),
            ("[contexts.a]\nserver = \"http://a\"\ntoken = \"x\"\ntoken_file = \"/x\"", "not both"),
            ("current_context = \"b\"", "there is no context \"b\""),
        ] {
            let error = ConfigFile::parse(bad).unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn a_syntax_error_does_not_quote_the_token() {
        let error = ConfigFile::parse(&GOOD.replace("\"s3cret\"", "\"s3cret")).unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
