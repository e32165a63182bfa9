//! Values that people type: durations, variables, environment files.

use std::collections::BTreeMap;
use std::time::Duration;

/// Why a typed value is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    /// Not a span of time.
    #[error("\"{0}\" is not a duration: use for example 500ms, 30s, 5m, 2h or 7d")]
    Duration(String),
    /// No time at all.
    #[error("must be longer than zero")]
    Zero,
    /// Not `KEY=VALUE`.
    #[error("\"{0}\" is not a variable: use KEY=VALUE")]
    Variable(String),
    /// One line of an environment file.
    #[error("line {line}: {problem}")]
    EnvLine {
        /// Line number, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
}

/// Parses a span of time: `500ms`, `30s`, `1h30m`, `7d`; a bare number means
/// seconds.
///
/// # Errors
/// Anything else, and negative spans.
pub(crate) fn duration(text: &str) -> Result<Duration, ValueError> {
    let error = || ValueError::Duration(text.into());
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let span: jiff::Span = text.parse().map_err(|_| error())?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| error())?;
    Duration::try_from(signed).map_err(|_| error())
}

/// Parses a span of time that is not zero.
///
/// # Errors
/// As [`duration`], and zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, ValueError> {
    duration(text).and_then(|span| if span.is_zero() { Err(ValueError::Zero) } else { Ok(span) })
}

/// Splits `KEY=VALUE` at the first `=`.
///
/// # Errors
/// No `=`, or nothing before it.
pub(crate) fn variable(text: &str) -> Result<(String, String), ValueError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(ValueError::Variable(text.into())),
    }
}

/// Reads an environment file as docker does: one `KEY=VALUE` a line, taken
/// literally; empty lines and lines that begin with `#` are skipped.
///
/// # Errors
/// The first line that is no variable, and a variable that occurs twice.
pub(crate) fn env_file(text: &str) -> Result<BTreeMap<String, String>, ValueError> {
    let mut env = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let at = |problem: String| ValueError::EnvLine { line: index + 1, problem };
        let (key, value) = variable(line).map_err(|error| at(error.to_string()))?;
        if key.contains(char::is_whitespace) {
            return Err(at(format!("\"{key}\" is not a variable name: remove the space")));
        }
        if env.insert(key.clone(), value).is_some() {
            return Err(at(format!("{key} occurs twice: keep one")));
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_what_people_type() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("15", 15_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_examples() {
        assert_eq!(positive_duration("0s"), Err(ValueError::Zero));
        for bad in ["", "-5s", "soon", "1 fortnight", "5x"] {
            let error = duration(bad).unwrap_err();
            assert!(error.to_string().contains("30s"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_variable_keeps_every_equals_sign_but_the_first() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(variable("A="), Ok(("A".into(), String::new())));
        assert!(variable("A").is_err());
        assert!(variable("=b").is_err());
    }

    #[test]
    fn an_env_file_skips_comments_and_names_the_bad_line() {
        let env = env_file("# a comment\n\nA=1\nB=two words # kept\n").unwrap();
        assert_eq!(env, BTreeMap::from([("A".into(), "1".into()), ("B".into(), "two words # kept".into())]));
        assert_eq!(env_file("A=1\nB\n").unwrap_err().to_string(), "line 2: \"B\" is not a variable: use KEY=VALUE");
        assert_eq!(env_file("A=1\nA=2\n").unwrap_err().to_string(), "line 2: A occurs twice: keep one");
    }
}
