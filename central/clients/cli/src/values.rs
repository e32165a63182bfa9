//! Values that people type: durations, variables, environment files.

use std::collections::BTreeMap;
use std::time::Duration;

use roost_proto::model::ScreenSize;

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
    /// Not a file with both its ends.
    #[error(
        "\"{0}\" is not a file to bring: use LOCAL:/PATH/INSIDE or LOCAL:/PATH/INSIDE:MODE, e.g. a.txt:/home/agent/a.txt:0640"
    )]
    BoundFile(String),
    /// Not a volume with its path.
    #[error("\"{0}\" is not a volume: use NAME:/PATH/INSIDE or NAME:/PATH/INSIDE:ro, e.g. home:/home/agent")]
    Volume(String),
    /// Not a place of a secret; the text may be the secret, and is not repeated.
    #[error("a secret is given by where it is: NAME=@FILE, NAME=- for standard input, NAME=env:VARIABLE, or NAME")]
    Secret,
    /// Not a size of a screen.
    #[error("\"{0}\" is not the size of a screen: use for example 1280x800")]
    Screen(String),
    /// Not a number of cores.
    #[error("\"{0}\" is not a number of cores: use for example 2, 0.5 or 500m")]
    Cores(String),
    /// Not a number of bytes.
    #[error("\"{0}\" is not a size: use for example 4Gi, 512Mi or a number of bytes")]
    Bytes(String),
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

/// Parses a number of cores, as Kubernetes writes it: `2`, `0.5`, `500m`. The
/// result is in thousandths of a core.
///
/// # Errors
/// Anything else, and what is finer than a thousandth.
pub(crate) fn cores(text: &str) -> Result<u32, ValueError> {
    let error = || ValueError::Cores(text.into());
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if let Some(millis) = text.strip_suffix('m') {
        return if digits(millis) { millis.parse().map_err(|_| error()) } else { Err(error()) };
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 3 || !digits(whole) || !digits(fraction) {
        return Err(error());
    }
    let whole = whole.parse::<u32>().ok().and_then(|whole| whole.checked_mul(1000));
    let fraction = format!("{fraction:0<3}").parse::<u32>().ok();
    whole.zip(fraction).and_then(|(whole, fraction)| whole.checked_add(fraction)).ok_or_else(error)
}

/// Parses a size, as Kubernetes and docker write it: `4Gi`, `512Mi`, `64M`, or
/// a number of bytes.
///
/// # Errors
/// Anything else.
pub(crate) fn bytes(text: &str) -> Result<u64, ValueError> {
    const UNITS: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let error = || ValueError::Bytes(text.into());
    let plain = text.strip_suffix('B').filter(|rest| rest.ends_with('i')).unwrap_or(text);
    let unit = UNITS.into_iter().find_map(|(unit, factor)| Some((plain.strip_suffix(unit)?, factor)));
    let (number, factor) = unit.unwrap_or((plain, 1));
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error());
    }
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(error)
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

/// Reads `WIDTHxHEIGHT` in pixels.
///
/// # Errors
/// Anything else.
pub(crate) fn screen(text: &str) -> Result<ScreenSize, ValueError> {
    let edges = text.split_once('x').and_then(|(width, height)| {
        Some(ScreenSize { width_px: width.parse().ok()?, height_px: height.parse().ok()? })
    });
    edges.ok_or_else(|| ValueError::Screen(text.into()))
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
    fn cores_and_sizes_are_what_kubernetes_and_docker_take() {
        for (text, millis) in [("2", 2000), ("0.5", 500), ("500m", 500), ("1.25", 1250), ("0", 0), ("0.001", 1)] {
            assert_eq!(cores(text), Ok(millis), "{text}");
        }
        for (text, size) in [("4Gi", 4 << 30), ("512Mi", 512 << 20), ("64M", 64_000_000), ("4GiB", 4 << 30), ("7", 7)] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn cores_and_sizes_that_mean_nothing_are_refused_with_examples() {
        for bad in ["", "m", "-1", "1.0001", ".5", "5.", "1e3", "+1", "9999999999"] {
            assert!(cores(bad).unwrap_err().to_string().contains("500m"), "{bad}");
        }
        for bad in ["", "Gi", "-1", "1.5Gi", "4gb", "4B", "99999999999999999999", "20000000Ti"] {
            assert!(bytes(bad).unwrap_err().to_string().contains("512Mi"), "{bad}");
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
