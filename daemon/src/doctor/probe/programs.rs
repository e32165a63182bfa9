//! Installed programs and their versions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::super::facts::{Program, RuntimeFacts, Trial};

/// Programs that are looked for, each with what makes it tell its version.
const PROGRAMS: [(&str, &str); 7] = [
    ("containerd", "--version"),
    ("crun", "--version"),
    ("kata-runtime", "--version"),
    ("mkfs.ext4", "-V"),
    ("nft", "--version"),
    ("runc", "--version"),
    ("runsc", "--version"),
];
/// Places of programs that the path of a service may lack.
const EXTRA_DIRS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/opt/kata/bin"];
/// Longest time that a program may take to tell its version.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Every program that is there.
pub(super) async fn all() -> BTreeMap<&'static str, Program> {
    let each = PROGRAMS.map(|(name, flag)| async move {
        let path = find(name)?;
        let version = output(&path, &[flag]).await.map(|text| version_of(&text)).unwrap_or_default();
        Some((name, Program { path, version }))
    });
    futures::future::join_all(each).await.into_iter().flatten().collect()
}

/// The OCI runtime of the configuration, a name or an absolute path.
pub(super) async fn runtime(binary: &str) -> RuntimeFacts {
    let binary = binary.to_owned();
    // Joined to a directory, an absolute path stays what it is.
    let Some(path) = find(&binary) else { return RuntimeFacts { binary, ..RuntimeFacts::default() } };
    let told = output(&path, &["--version"]).await.unwrap_or_default();
    let kind = told.split_whitespace().next().unwrap_or_default().to_owned();
    RuntimeFacts { binary, kind, program: Some(Program { path, version: version_of(&told) }) }
}

/// Whether the packet filter answers.
pub(super) async fn nftables() -> Trial {
    let Some(nft) = find("nft") else { return Trial::Skipped("nft is not installed") };
    match output(&nft, &["list", "tables"]).await {
        Ok(_) => Trial::Works,
        Err(problem) => Trial::Fails(problem),
    }
}

/// Where a program is.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(EXTRA_DIRS.iter().map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

/// What a program prints, or the last line of why not.
async fn output(program: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let error = text(&output.stderr);
    Err(error.lines().last().map_or_else(|| output.status.to_string(), str::to_owned))
}

/// The version in what a program prints: the first word that begins with a
/// digit, after a `v` perhaps.
fn version_of(text: &str) -> String {
    let is_version = |word: &&str| {
        let number = word.strip_prefix('v').unwrap_or(word);
        number.starts_with(|c: char| c.is_ascii_digit()) && number.contains('.')
    };
    let words = text.split(|c: char| c.is_whitespace() || c == ':').filter(|word| !word.is_empty());
    let version = words.clone().find(is_version).or_else(|| words.clone().find(|word| word.starts_with("release-")));
    version.unwrap_or_default().trim_end_matches(',').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (text, version) in [
            ("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev", "1.1.5+ds1"),
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1", "1.6.20~ds1"),
            ("crun version 1.8.1\ncommit: f8a096be", "1.8.1"),
            ("runsc version release-20240729.0\nspec: 1.1.0-rc.1", "1.1.0-rc.1"),
            ("kata-runtime  : 3.2.0\n   commit   : 1", "3.2.0"),
            ("nftables v1.0.6 (Lester Gooch #5)", "v1.0.6"),
            ("nothing to see", ""),
        ] {
            assert_eq!(version_of(text), version, "{text}");
        }
    }

    #[tokio::test]
    async fn a_runtime_is_what_it_says_it_is_whatever_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wrapped");
        std::fs::write(&path, "#!/bin/sh\necho crun version 1.8.1\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let facts = runtime(&path.display().to_string()).await;
        assert_eq!((facts.kind.as_str(), facts.program.unwrap().version.as_str()), ("crun", "1.8.1"));
        assert_eq!(runtime("no-such-program-anywhere").await.program, None);
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_by_its_last_line() {
        let shell = find("sh").unwrap();
        assert_eq!(output(&shell, &["-c", "echo a; echo b >&2; exit 3"]).await, Err("b".into()));
        assert_eq!(output(&shell, &["-c", "echo a"]).await, Ok("a".into()));
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
