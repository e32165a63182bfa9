//! Takes secrets out of what is given to others.
//!
//! Three nets, one behind the other. What the types know to be secret is
//! replaced by them ([`redacted_spec`]). Values that the process knows to be
//! secret are replaced wherever they occur in a text, a log line say. What
//! looks like a secret (fields and assignments of such a name, tokens, keys,
//! passwords in URLs) is replaced as well: rather too much than too little.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::{Captures, Regex};
use serde_json::Value;

use crate::model::SandboxSpec;

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";
/// Shortest known value that is looked for in texts, in bytes: shorter ones,
/// such as `1` or `true`, are words of their own. They are still removed where
/// a type knows them.
const MIN_KNOWN_BYTES: usize = 8;
/// The same for values that are passwords and nothing else. What is shorter
/// still would tear every text to pieces, and keeps nobody out.
const MIN_PASSWORD_BYTES: usize = 4;

/// Why a redactor cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// There are too many known secrets, or they are too long.
    #[error("cannot look for the known secrets")]
    Known(#[source] aho_corasick::BuildError),
    /// A pattern is wrong, which is a mistake in this program.
    #[error("cannot look for what looks like a secret")]
    Pattern(#[source] regex::Error),
}

/// Patterns of texts that are secret wherever they stand; group 1, where there
/// is one, is kept.
const SHAPES: [&str; 5] = [
    // Private keys in PEM, also when the end is missing.
    r"(?s:-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z))",
    // User and password in a URL.
    r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#]*@",
    r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
    // Tokens of Roost: join, admin, and those to come.
    r"\br[a-z]{1,3}_[A-Za-z0-9]{16,}(?:\.[A-Za-z0-9]+)?",
    // Tokens and keys of others, by their prefixes, and JSON web tokens.
    concat!(
        r"\b(?:sk-[A-Za-z0-9_-]{16,}|gh[a-z]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{16,}",
        r"|npm_[A-Za-z0-9]{16,}|xox[a-z]-[\w-]{10,}|A(?:KIA|SIA)[A-Z0-9]{12,}|AIza[\w-]{20,}",
        r"|eyJ[\w-]{4,}\.[\w-]{4,}\.[\w-]*)"
    ),
];
/// An assignment: name, separator with its quotes, value.
const ASSIGNMENT: &str = r#"([A-Za-z0-9_.-]+)("?\s*[=:]\s*)("[^"\n]*"|'[^'\n]*'|[^\s"',;&\[][^\s"',;&]*)"#;
/// Parts of names whose values are secret.
const SECRET_WORDS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "private_key",
    "access_key",
    "authorization",
    "cookie",
    "auth",
];
/// Ends of names whose values only say where a secret lies, whose or until
/// when.
const HARMLESS_ENDS: [&str; 9] = ["_file", "_path", "_dir", "_id", "_ms", "_s", "_count", "_max", "_name"];

/// Takes secrets out of texts and values.
#[derive(Debug)]
pub struct Redactor {
    known: Option<AhoCorasick>,
    shapes: Vec<Regex>,
    assignment: Regex,
}

impl Redactor {
    /// Looks for these values, besides what looks like a secret.
    ///
    /// # Errors
    /// See [`RedactError`].
    pub fn new(known: impl IntoIterator<Item = String>) -> Result<Self, RedactError> {
        Self::with_passwords(known, [])
    }

    /// The same with values that are passwords for sure: these are looked for
    /// from four bytes on, others from eight.
    ///
    /// # Errors
    /// See [`RedactError`].
    pub fn with_passwords(
        known: impl IntoIterator<Item = String>,
        passwords: impl IntoIterator<Item = String>,
    ) -> Result<Self, RedactError> {
        let known = known.into_iter().filter(|value| value.len() >= MIN_KNOWN_BYTES);
        let passwords = passwords.into_iter().filter(|value| value.len() >= MIN_PASSWORD_BYTES);
        let mut all = BTreeSet::new();
        for value in known.chain(passwords) {
            // As JSON writes it inside a string, too.
            let encoded = Value::String(value.clone()).to_string();
            all.insert(encoded[1..encoded.len() - 1].to_owned());
            all.insert(value);
        }
        let build = || AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&all);
        let known = if all.is_empty() { None } else { Some(build().map_err(RedactError::Known)?) };
        let shapes = SHAPES.iter().map(|shape| Regex::new(shape)).collect::<Result<_, _>>();
        Ok(Self {
            known,
            shapes: shapes.map_err(RedactError::Pattern)?,
            assignment: Regex::new(ASSIGNMENT).map_err(RedactError::Pattern)?,
        })
    }

    /// A text without secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let known = match &self.known {
            Some(known) => Cow::Owned(known.replace_all_with_one(text)),
            None => Cow::Borrowed(text),
        };
        let shaped = self.shapes.iter().fold(known, |text, shape| {
            let kept = |found: &Captures<'_>| {
                let kept = found.get(1).map_or("", |group| group.as_str());
                let end = if found[0].ends_with('@') { "@" } else { "" };
                format!("{kept}{REDACTED}{end}")
            };
            Cow::Owned(shape.replace_all(&text, kept).into_owned())
        });
        let assigned = self.assignment.replace_all(&shaped, |found: &Captures<'_>| {
            let (name, value) = (&found[1], &found[3]);
            // A path says where a secret lies, and not what it is.
            if !is_secret_name(name) || value.trim_matches(['"', '\'']).starts_with('/') {
                return found[0].to_owned();
            }
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'')).map(String::from).unwrap_or_default();
            format!("{name}{}{quote}{REDACTED}{quote}", &found[2])
        });
        assigned.into_owned()
    }

    /// Takes the secrets out of a value: fields that are named like one, and
    /// texts as [`Self::text`] does.
    pub fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    if is_secret_name(name) { blank(field) } else { self.json(field) }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Replaces every text below a secret field; numbers and flags tell nothing.
fn blank(value: &mut Value) {
    match value {
        Value::String(text) if text.is_empty() || text.starts_with('/') => {}
        Value::String(text) => REDACTED.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(blank),
        Value::Object(fields) => fields.values_mut().for_each(blank),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_harmless = HARMLESS_ENDS.iter().any(|end| name.ends_with(end));
    !is_harmless && SECRET_WORDS.iter().any(|word| name.contains(word))
}

trait ReplaceAll {
    fn replace_all_with_one(&self, text: &str) -> String;
}

impl ReplaceAll for AhoCorasick {
    /// One replacement for all patterns, without a list of as many.
    fn replace_all_with_one(&self, text: &str) -> String {
        let mut result = String::with_capacity(text.len());
        self.replace_all_with(text, &mut result, |_, _, out| {
            out.push_str(REDACTED);
            true
        });
        result
    }
}

/// A spec without the values of its environment and the arguments of its
/// command: either may hold anything.
#[must_use]
pub fn redacted_spec(spec: &SandboxSpec) -> SandboxSpec {
    let mut spec = spec.clone();
    spec.env.values_mut().for_each(|value| REDACTED.clone_into(value));
    spec.command.iter_mut().skip(1).for_each(|argument| REDACTED.clone_into(argument));
    spec
}

#[cfg(test)]
mod tests;
