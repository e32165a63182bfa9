//! `roost sandbox claim`.

use std::path::PathBuf;

use clap::Args;
use roost_proto::id::{ClaimId, PoolName, SandboxName};
use roost_proto::model::{ResourcesChange, ScreenSize, VolumeMount};

use super::LifetimeArgs;
use crate::output::OutputArgs;
use crate::values::{self, ValueError};

/// `claim`.
#[derive(Debug, Args)]
pub(crate) struct ClaimArgs {
    /// Take a desktop of this pool; `roost pool ls` shows what there is
    pub(crate) pool: PoolName,
    /// A name to call it by [default: none, use its id]
    #[arg(long)]
    pub(crate) name: Option<SandboxName>,
    /// Give the hook a variable; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Bring a file: LOCAL:/PATH/INSIDE[:MODE]; may be repeated
    #[arg(long = "file", value_name = "FILE", value_parser = file)]
    pub(crate) files: Vec<FileArg>,
    /// Bring a secret: NAME=@FILE, NAME=- for standard input, or NAME and
    /// NAME=env:VARIABLE for a variable of this command; may be repeated
    #[arg(long = "secret", value_name = "SECRET", value_parser = secret)]
    pub(crate) secrets: Vec<SecretArg>,
    /// Tell the sandbox who has it; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::variable)]
    pub(crate) identity: Vec<(String, String)>,
    /// Host name inside [default: it stays]
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Size of the screen in pixels, at most the template's [default: it stays]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = values::screen)]
    pub(crate) screen: Option<ScreenSize>,
    #[command(flatten)]
    pub(crate) limits: ClaimLimits,
    /// Attach a volume: NAME:/PATH/INSIDE[:ro]; may be repeated
    #[arg(long = "volume", value_name = "VOLUME", value_parser = super::volume::mount)]
    pub(crate) volumes: Vec<VolumeMount>,
    #[command(flatten)]
    pub(crate) lifetime: LifetimeArgs,
    /// The same id again is the same claim [default: a new one]
    #[arg(long, value_name = "ID")]
    pub(crate) claim_id: Option<ClaimId>,
    /// Claim from a pool of this machine, without central
    /// [default path: /run/roost/roostd.sock]
    #[arg(long = "node-socket", alias = "socket", value_name = "PATH", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "absent, without a path, with one")]
    pub(crate) socket: Option<Option<PathBuf>>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Limits in place of the pool's.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ClaimLimits {
    /// Most CPU, in cores or thousandths (2, 0.5, 500m); 0 = no limit
    #[arg(long, value_name = "CORES", value_parser = values::cores)]
    cpu: Option<u32>,
    /// Most memory (4Gi, 512Mi, or bytes)
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    memory: Option<u64>,
    /// Most processes and threads
    #[arg(long, value_name = "COUNT")]
    pids: Option<u32>,
}

impl ClaimLimits {
    /// What changes; none = nothing does.
    pub(crate) fn change(self) -> Option<ResourcesChange> {
        let change = ResourcesChange {
            cpu_limit_millis: self.cpu,
            memory_limit_bytes: self.memory,
            pids_limit: self.pids,
            ..ResourcesChange::default()
        };
        (change != ResourcesChange::default()).then_some(change)
    }
}

/// A file to bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileArg {
    /// Where it is here.
    pub(crate) local: PathBuf,
    /// Where it is to be, absolute.
    pub(crate) inside: String,
    /// Permission bits in octal.
    pub(crate) mode: Option<String>,
}

/// A secret to bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretArg {
    /// Its name inside.
    pub(crate) name: String,
    /// Where its value is.
    pub(crate) source: SecretSource,
}

/// Where a secret is: never on the command line, which others can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// In a file, taken whole.
    File(PathBuf),
    /// On standard input, taken whole.
    Stdin,
    /// In a variable of this command's environment.
    Variable(String),
}

fn file(text: &str) -> Result<FileArg, ValueError> {
    let is_mode = |mode: &str| (3..=4).contains(&mode.len()) && mode.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let (rest, mode) = match text.rsplit_once(':') {
        Some((rest, mode)) if is_mode(mode) => (rest, Some(mode.to_owned())),
        _ => (text, None),
    };
    // A local path may hold colons as well.
    let at = rest.rfind(":/").filter(|at| *at > 0).ok_or_else(|| ValueError::BoundFile(text.into()))?;
    let (local, inside) = (rest[..at].into(), rest[at + 1..].to_owned());
    Ok(FileArg { local, inside, mode })
}

fn secret(text: &str) -> Result<SecretArg, ValueError> {
    let (name, source) = match text.split_once('=') {
        None => (text, SecretSource::Variable(text.into())),
        Some((name, "-")) => (name, SecretSource::Stdin),
        Some((name, value)) => match (value.strip_prefix('@'), value.strip_prefix("env:")) {
            (Some(path), _) if !path.is_empty() => (name, SecretSource::File(path.into())),
            (_, Some(variable)) if !variable.is_empty() => (name, SecretSource::Variable(variable.into())),
            _ => return Err(ValueError::Secret),
        },
    };
    if name.is_empty() { Err(ValueError::Secret) } else { Ok(SecretArg { name: name.into(), source }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_both_ends_and_perhaps_a_mode() {
        let file_of = |text| file(text).map(|f| (f.local.display().to_string(), f.inside, f.mode)).unwrap();
        assert_eq!(file_of("a.txt:/home/agent/a"), ("a.txt".into(), "/home/agent/a".into(), None));
        assert_eq!(file_of("./a:b:/c/d:0640"), ("./a:b".into(), "/c/d".into(), Some("0640".into())));
        for bad in ["a.txt", "a.txt:relative", ":/a", "a.txt:"] {
            assert!(file(bad).unwrap_err().to_string().contains("LOCAL:/PATH"), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_never_a_word_of_the_command_line() {
        let source = |text| secret(text).map(|s| (s.name, s.source)).unwrap();
        assert_eq!(source("KEY"), ("KEY".into(), SecretSource::Variable("KEY".into())));
        assert_eq!(source("key=env:KEY"), ("key".into(), SecretSource::Variable("KEY".into())));
        assert_eq!(source("key=-"), ("key".into(), SecretSource::Stdin));
        assert_eq!(source("key=@k.pem"), ("key".into(), SecretSource::File("k.pem".into())));
        for bad in ["key=s3cret", "key=", "=@a", "key=@", ""] {
            let text = secret(bad).unwrap_err().to_string();
            assert!(text.contains("@FILE") && !text.contains("s3cret"), "{bad}: {text}");
        }
    }
}
