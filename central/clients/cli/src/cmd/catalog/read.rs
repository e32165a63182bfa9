//! Manifests in files.

use std::io::Read as _;
use std::path::Path;

use serde::Serialize;

use crate::client::Manifest;
use crate::error::CliError;
use crate::output::OutputError;

/// Largest file that is read, in bytes: a manifest is a page or two.
const MAX_BYTES: u64 = 1 << 20;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Toml,
    Json,
    Yaml,
}

/// Reads and checks a manifest; `-` is standard input.
///
/// # Errors
/// Unreadable files, unknown fields, and every field that breaks a rule.
pub(in super::super) fn manifest<M: Manifest>(path: &Path) -> Result<M, CliError> {
    let text = text(path).map_err(|source| CliError::File { operation: "read", path: path.into(), source })?;
    let wrong = |problem: String| {
        let shown = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
        CliError::usage(
            format!("{shown} is not a valid {}: {problem}", M::KIND.noun),
            format!("see one that is: roost {} get NAME", M::KIND.noun),
        )
    };
    let manifest: M = parse(&text, syntax(path, &text)).map_err(wrong)?;
    let check = |errors: Vec<roost_proto::model::FieldError>| {
        wrong(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    };
    manifest.validate().map_err(check)?;
    Ok(manifest)
}

/// The manifest as the file that [`manifest`] reads.
///
/// # Errors
/// The value has no TOML form, which is a mistake in this program.
pub(super) fn to_toml<M: Serialize>(manifest: &M) -> Result<String, CliError> {
    let text = toml::to_string_pretty(manifest);
    let text = text.map_err(|error| OutputError::Encode { format: "toml", problem: error.to_string() })?;
    Ok(text.trim_end().to_owned())
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn syntax(path: &Path, text: &str) -> Syntax {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => Syntax::Json,
        Some("yaml" | "yml") => Syntax::Yaml,
        Some("toml") => Syntax::Toml,
        _ if text.trim_start().starts_with('{') => Syntax::Json,
        _ if text.lines().any(|line| line.starts_with("name:")) => Syntax::Yaml,
        _ => Syntax::Toml,
    }
}

fn parse<M: Manifest>(text: &str, syntax: Syntax) -> Result<M, String> {
    let one_line = |text: String| text.trim().replace('\n', " ");
    match syntax {
        Syntax::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
        Syntax::Yaml => serde_saphyr::from_str(text).map_err(|error| one_line(error.to_string())),
        Syntax::Toml => toml::from_str(text).map_err(|error| {
            let line = error.span().and_then(|span| text.get(..span.start)).map(|head| head.matches('\n').count() + 1);
            let at = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{at}{}", one_line(error.message().to_owned()))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::{Profile, Template};

    fn read<M: Manifest>(name: &str, text: &str) -> Result<M, CliError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        manifest(&path)
    }

    const TOML: &str = "name = \"t\"\nimage = \"roost/desktop\"\nprofile = \"small\"\n";

    #[test]
    fn three_spellings_are_one_template() {
        let toml: Template = read("t.toml", TOML).unwrap();
        let json: Template = read("t.json", r#"{"name":"t","image":"roost/desktop","profile":"small"}"#).unwrap();
        let yaml: Template = read("t.yaml", "name: t\nimage: roost/desktop\nprofile: small\n").unwrap();
        let guessed: Template = read("t", "name: t\nimage: roost/desktop\nprofile: small\n").unwrap();
        assert_eq!((&toml, &toml, &toml), (&json, &yaml, &guessed));
    }

    #[test]
    fn what_get_prints_apply_takes() {
        let template: Template = read("t.toml", TOML).unwrap();
        assert_eq!(read::<Template>("again.toml", &to_toml(&template).unwrap()).unwrap(), template);
    }

    #[test]
    fn every_wrong_field_is_named_with_its_file() {
        let unknown = read::<Template>("t.toml", &format!("{TOML}colour = 1\n")).unwrap_err().to_string();
        assert!(unknown.contains("t.toml") && unknown.contains("line 4: unknown field `colour`"), "{unknown}");
        let small = read::<Profile>("p.toml", "name = \"p\"\n[resources]\nshm_bytes = 1\n").unwrap_err();
        assert!(small.to_string().contains("resources.shm_bytes"), "{small}");
        assert_eq!(small.exit() as u8, 2);
    }
}
