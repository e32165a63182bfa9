//! What a claim brings, read from where it is.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use roost_proto::model::{ClaimFile, Content, CreateClaim};

use crate::cli::{ClaimArgs, SecretArg, SecretSource};
use crate::error::CliError;

/// Most bytes of one file or secret: a little more than a claim may bring, so
/// that what is too large is told by the rule for all of them.
const MAX_BYTES: u64 = (2 << 20) + 1;

/// The claim as it is sent.
///
/// # Errors
/// A file or variable that cannot be read, two secrets that want standard
/// input, and a secret that is named twice.
pub(super) fn body(args: &ClaimArgs) -> Result<CreateClaim, CliError> {
    let from_stdin = args.secrets.iter().filter(|secret| secret.source == SecretSource::Stdin).count();
    if from_stdin > 1 {
        return Err(CliError::usage("only one secret can be read from standard input", "give the others as files"));
    }
    let mut secrets = std::collections::BTreeMap::new();
    for secret in &args.secrets {
        if secrets.insert(secret.name.clone(), Content(value(secret)?)).is_some() {
            return Err(CliError::usage(format!("the secret {} is given twice", secret.name), "keep one"));
        }
    }
    let file = |arg: &crate::cli::FileArg| {
        let content = Content(read(&arg.local)?);
        Ok(ClaimFile { path: arg.inside.clone(), content, mode: arg.mode.clone() })
    };
    Ok(CreateClaim {
        pool: args.pool.clone(),
        name: args.name.clone(),
        env: args.env.iter().cloned().collect(),
        secrets,
        identity: args.identity.iter().cloned().collect(),
        hostname: args.hostname.clone(),
        screen: args.screen,
        files: args.files.iter().map(file).collect::<Result<_, CliError>>()?,
        resources: args.limits.change(),
        volumes: args.volumes.clone(),
        lifetime: args.lifetime.into(),
    })
}

fn value(secret: &SecretArg) -> Result<Vec<u8>, CliError> {
    match &secret.source {
        SecretSource::File(path) => read(path),
        SecretSource::Stdin => read_from(std::io::stdin().lock(), Path::new("standard input")),
        SecretSource::Variable(name) => std::env::var_os(name).map(OsString::into_vec).ok_or_else(|| {
            let hint = format!("set {name}, or give the secret as {}=@FILE or {}=-", secret.name, secret.name);
            CliError::usage(
                format!("the secret {} is to be in the variable {name}, which is not set", secret.name),
                hint,
            )
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let file = std::fs::File::open(path);
    read_from(file.map_err(|source| CliError::File { operation: "read", path: path.into(), source })?, path)
}

fn read_from(from: impl std::io::Read, path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|source| CliError::File { operation: "read", path: path.into(), source })?;
    Ok(bytes)
}
