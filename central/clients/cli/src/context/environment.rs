//! The environment variables that `roost` reads.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::ContextError;

/// Every variable that is read, anywhere in this program.
const NAMES: [&str; 8] = [
    "HOME",
    "ROOST_CONFIG",
    "ROOST_CONTEXT",
    "ROOST_NODE_SOCKET",
    "ROOST_SERVER",
    "ROOST_TOKEN",
    "ROOST_TOKEN_FILE",
    "XDG_CONFIG_HOME",
];

/// A snapshot of the environment; an empty variable counts as unset.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<&'static str, OsString>);

impl Environment {
    /// Reads the process environment.
    pub(crate) fn read() -> Self {
        let read = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| (name, value));
        Self(NAMES.into_iter().filter_map(read).collect())
    }

    /// A variable that holds a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(name).map(PathBuf::from)
    }

    /// A variable that holds text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, ContextError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let error = || ContextError::Value { origin: name.into(), problem: "is not UTF-8 text".into() };
        value.clone().into_string().map(Some).map_err(|_| error())
    }

    /// Where the contexts are kept.
    ///
    /// # Errors
    /// [`ContextError::NoHome`].
    pub(crate) fn config_path(&self) -> Result<PathBuf, ContextError> {
        if let Some(path) = self.path("ROOST_CONFIG") {
            return Ok(path);
        }
        // The XDG rules say that a relative path there is to be ignored.
        let xdg = self.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let base = xdg.or_else(|| self.path("HOME").map(|home| home.join(".config")));
        base.map(|base| base.join("roost").join("config.toml")).ok_or(ContextError::NoHome)
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: a token may be among the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&'static str, &str); N]> for Environment {
    fn from(pairs: [(&'static str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name, value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_path_follows_roost_config_then_xdg_then_home() {
        let path = |env: Environment| env.config_path().unwrap().display().to_string();
        assert_eq!(path([("HOME", "/h")].into()), "/h/.config/roost/config.toml");
        assert_eq!(path([("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")].into()), "/x/roost/config.toml");
        assert_eq!(path([("HOME", "/h"), ("XDG_CONFIG_HOME", "relative")].into()), "/h/.config/roost/config.toml");
        assert_eq!(path([("HOME", "/h"), ("ROOST_CONFIG", "/c.toml")].into()), "/c.toml");
        assert!(matches!(Environment::default().config_path(), Err(ContextError::NoHome)));
    }
}
