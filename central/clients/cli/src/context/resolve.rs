//! File, flags and environment become one target.

use std::path::PathBuf;

use super::file::permission_warning;
use super::{ConfigFile, Context, ContextError, Environment, ServerUrl, Token};

/// Where central listens unless told otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7700";

/// What the command line says about the target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    /// `--context`.
    pub(crate) context: Option<String>,
    /// `--server`.
    pub(crate) server: Option<ServerUrl>,
    /// `--token-file`.
    pub(crate) token_file: Option<PathBuf>,
}

/// A server and what is needed to call it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its address.
    pub(crate) server: ServerUrl,
    /// Where the address comes from, for people.
    pub(crate) server_origin: String,
    /// The token; absent = none was found.
    pub(crate) token: Option<Token>,
    /// Where the token comes from, or that there is none; a clause for people.
    pub(crate) token_origin: String,
    /// Certificates that may sign the server's, instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// What people should know, without being an error.
    pub(crate) warnings: Vec<String>,
}

struct Chosen {
    name: String,
    context: Context,
}

/// Finds the target: `--server`, `ROOST_SERVER`, then the context, then the
/// default on this machine. A context's token, certificates and `insecure`
/// count only for the context's own server.
///
/// # Errors
/// See [`ContextError`]; plain http to another machine is refused when a token
/// would go with it.
pub(crate) fn resolve(overrides: &Overrides, env: &Environment) -> Result<Target, ContextError> {
    let mut warnings = Vec::new();
    let chosen = choose_context(overrides, env, &mut warnings)?;
    let (server, server_origin) = choose_server(overrides, env, chosen.as_ref())?;
    let own = chosen.filter(|chosen| chosen.context.server.same_origin(&server));
    let (token, token_origin) = choose_token(overrides, env, own.as_ref(), &mut warnings)?;
    let is_insecure = own.as_ref().is_some_and(|chosen| chosen.context.insecure);
    if token.is_some() && !server.is_https() && !server.is_loopback() && !is_insecure {
        return Err(ContextError::PlainHttp { server: server.to_string() });
    }
    let ca_file = own.and_then(|chosen| chosen.context.ca_file);
    Ok(Target { server, server_origin, token, token_origin, ca_file, warnings })
}

fn choose_context(
    overrides: &Overrides,
    env: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Option<Chosen>, ContextError> {
    let asked = match &overrides.context {
        Some(name) => Some(name.clone()),
        None => env.text("ROOST_CONTEXT")?,
    };
    let path = match env.config_path() {
        Ok(path) => path,
        // Without a home and without a context asked for, none is needed.
        Err(_) if asked.is_none() => return Ok(None),
        Err(error) => return Err(error),
    };
    let file = ConfigFile::load(&path)?;
    warnings.extend(permission_warning(&path));
    let Some(name) = asked.or_else(|| file.current_context.clone()) else { return Ok(None) };
    let context = file.get(&name, &path)?.clone();
    Ok(Some(Chosen { name, context }))
}

fn choose_server(
    overrides: &Overrides,
    env: &Environment,
    chosen: Option<&Chosen>,
) -> Result<(ServerUrl, String), ContextError> {
    if let Some(server) = &overrides.server {
        return Ok((server.clone(), "--server".into()));
    }
    if let Some(text) = env.text("ROOST_SERVER")? {
        return Ok((parse_server(&text, "ROOST_SERVER")?, "ROOST_SERVER".into()));
    }
    match chosen {
        Some(chosen) => Ok((chosen.context.server.clone(), format!("context \"{}\"", chosen.name))),
        None => Ok((parse_server(DEFAULT_SERVER, "default")?, "the default, as no context is set".into())),
    }
}

fn parse_server(text: &str, origin: &str) -> Result<ServerUrl, ContextError> {
    text.parse().map_err(|error: super::server::ParseServerUrlError| ContextError::Value {
        origin: origin.into(),
        problem: error.to_string(),
    })
}

fn choose_token(
    overrides: &Overrides,
    env: &Environment,
    own: Option<&Chosen>,
    warnings: &mut Vec<String>,
) -> Result<(Option<Token>, String), ContextError> {
    let mut from_file = |path: PathBuf, origin: String| {
        warnings.extend(permission_warning(&path));
        Ok((Some(Token::from_file(&path)?), comes_from(&origin)))
    };
    if let Some(path) = &overrides.token_file {
        return from_file(path.clone(), "--token-file".into());
    }
    if let Some(text) = env.text("ROOST_TOKEN")? {
        return Ok((Some(Token::parse(&text, "ROOST_TOKEN")?), comes_from("ROOST_TOKEN")));
    }
    if let Some(path) = env.path("ROOST_TOKEN_FILE") {
        return from_file(path, "ROOST_TOKEN_FILE".into());
    }
    let Some(Chosen { name, context }) = own else { return Ok((None, "no token is set for this server".into())) };
    let origin = format!("context \"{name}\"");
    match (&context.token, &context.token_file) {
        (Some(token), _) => Ok((Some(token.clone()), comes_from(&origin))),
        (None, Some(path)) => from_file(path.clone(), origin),
        (None, None) => Ok((None, format!("context \"{name}\" has no token"))),
    }
}

fn comes_from(origin: &str) -> String {
    format!("the token comes from {origin}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "current_context = \"lab\"\n\
        [contexts.lab]\nserver = \"https://roost.lab\"\ntoken = \"lab-token\"\nca_file = \"/ca.pem\"\n\
        [contexts.open]\nserver = \"http://10.0.0.5:7070\"\ntoken = \"open-token\"\n\
        [contexts.trusted]\nserver = \"http://10.0.0.6:7070\"\ntoken = \"t\"\ninsecure = true\n";

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("config.toml"), FILE).unwrap();
            Self(dir)
        }

        fn resolve<const N: usize>(
            &self,
            overrides: &Overrides,
            extra: [(&'static str, &str); N],
        ) -> Result<Target, ContextError> {
            let path = self.0.path().join("config.toml");
            let mut pairs = vec![("ROOST_CONFIG", path.to_str().unwrap())];
            pairs.extend(extra);
            // Pairs are few: padding repeats the first, which changes nothing.
            let all: [(&'static str, &str); 4] = std::array::from_fn(|i| *pairs.get(i).unwrap_or(&pairs[0]));
            resolve(overrides, &all.into())
        }
    }

    fn secret(target: &Target) -> Option<&str> {
        target.token.as_ref().map(Token::secret)
    }

    #[test]
    fn the_current_context_is_used_unless_another_is_named() {
        let home = Home::new();
        let target = home.resolve(&Overrides::default(), []).unwrap();
        assert_eq!((target.server.to_string().as_str(), secret(&target)), ("https://roost.lab", Some("lab-token")));
        let target = home.resolve(&Overrides::default(), [("ROOST_CONTEXT", "trusted")]).unwrap();
        assert_eq!(target.server.to_string(), "http://10.0.0.6:7070");
        let asked = Overrides { context: Some("lab".into()), ..Overrides::default() };
        let target = home.resolve(&asked, [("ROOST_CONTEXT", "trusted")]).unwrap();
        assert_eq!(target.server.to_string(), "https://roost.lab");
    }

    #[test]
    fn a_contexts_token_does_not_go_to_another_server() {
        let home = Home::new();
        for elsewhere in ["https://evil.lab", "https://roost.lab:8443", "http://127.0.0.1:7700"] {
            let overrides = Overrides { server: Some(elsewhere.parse().unwrap()), ..Overrides::default() };
            let target = home.resolve(&overrides, []).unwrap();
            assert!(secret(&target).is_none() && target.ca_file.is_none(), "{elsewhere}");
        }
        let same = Overrides { server: Some("https://ROOST.lab/".parse().unwrap()), ..Overrides::default() };
        assert_eq!(secret(&home.resolve(&same, []).unwrap()), Some("lab-token"));
    }

    #[test]
    fn a_token_does_not_travel_in_clear_text_unless_the_context_says_so() {
        let home = Home::new();
        let open = Overrides { context: Some("open".into()), ..Overrides::default() };
        assert!(matches!(home.resolve(&open, []), Err(ContextError::PlainHttp { .. })));
        let trusted = Overrides { context: Some("trusted".into()), ..Overrides::default() };
        assert_eq!(secret(&home.resolve(&trusted, []).unwrap()), Some("t"));
        // The permission is the context's: another server is refused again.
        let elsewhere = Overrides { server: Some("http://10.0.0.7".parse().unwrap()), ..trusted };
        assert!(matches!(home.resolve(&elsewhere, [("ROOST_TOKEN", "x")]), Err(ContextError::PlainHttp { .. })));
    }

    #[test]
    fn the_environments_token_wins_over_the_contexts() {
        let home = Home::new();
        let target = home.resolve(&Overrides::default(), [("ROOST_TOKEN", "mine")]).unwrap();
        assert_eq!((secret(&target), target.token_origin.as_str()), (Some("mine"), "the token comes from ROOST_TOKEN"));
    }

    #[test]
    fn an_unknown_context_names_the_known_ones() {
        let overrides = Overrides { context: Some("prod".into()), ..Overrides::default() };
        match Home::new().resolve(&overrides, []) {
            Err(ContextError::Unknown { known, .. }) => assert_eq!(known, ["lab", "open", "trusted"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_anything_the_server_of_this_machine_is_meant() {
        let target = resolve(&Overrides::default(), &[("HOME", "/nonexistent")].into()).unwrap();
        assert_eq!((target.server.to_string().as_str(), target.token.is_none()), (DEFAULT_SERVER, true));
    }
}
