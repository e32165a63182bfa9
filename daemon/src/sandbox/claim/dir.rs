//! The claim's directory, from the host's side.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use roost_proto::model::Binding;

use super::Parcel;
use crate::host::mount::{Tmpfs, mount_tmpfs};
use crate::host::{Error, fault, files};
use crate::reconcile::ledger::{Record, decode, encode};
use crate::sandbox::Desired;

/// Most bytes of the directory: secrets and variables are small. Nothing is
/// taken before it is used.
const SIZE_BYTES: u64 = 8 << 20;
/// Name of the kept record.
const RECORD: &str = "record.json";
/// The hook's side of the contract, for any image that has a shell.
const AWAIT: &str = include_str!("await.sh");

/// The directory of one sandbox's claim.
#[derive(Debug)]
pub struct ClaimDir {
    path: PathBuf,
    /// User and group of the workload, as the host counts.
    owner: (u32, u32),
}

impl ClaimDir {
    /// The directory at `path`, whose readers are `owner`.
    #[must_use]
    pub fn new(path: &Path, owner: (u32, u32)) -> Self {
        Self { path: path.to_owned(), owner }
    }

    /// Makes it, unless it is there from an earlier start: what a claim laid
    /// out stays as long as the sandbox.
    ///
    /// # Errors
    /// What the host refuses.
    pub fn create(&self) -> Result<(), Error> {
        files::create_dir(&self.path, 0o711)?;
        if !is_mount_point(&self.path)? {
            mount_tmpfs(&self.path, Tmpfs { size_bytes: SIZE_BYTES, mode: 0o711, uid: 0, gid: 0 })?;
        }
        let secrets = self.path.join("secrets");
        files::create_owned_dir(&secrets, 0o500, self.owner.0, self.owner.1)?;
        files::replace(&self.path.join("await"), AWAIT.as_bytes(), 0o555, (0, 0))?;
        files::create_fifo(&self.path.join("wait"), 0o400, self.owner)?;
        files::create_fifo(&self.path.join("status"), 0o200, self.owner)
    }

    /// Keeps the record of the sandbox as it is claimed, unreadable for the
    /// sandbox: a lost ledger is rebuilt from it.
    ///
    /// # Errors
    /// What the host refuses.
    pub fn keep(&self, record: &Record) -> Result<(), Error> {
        let text = encode(record).map_err(|e| Error::Unfit(format!("a record cannot be written as JSON: {e}")))?;
        files::replace(&self.path.join(RECORD), &text, 0o400, (0, 0))
    }

    /// Lays out what a claim brings, each file whole or not at all. Returns
    /// the name of a secret that neither the parcel nor the directory holds.
    ///
    /// # Errors
    /// What the host refuses.
    pub fn lay_out(&self, binding: &Binding, json: &[u8], parcel: Option<&Parcel>) -> Result<Option<String>, Error> {
        let secrets = self.path.join("secrets");
        for name in &binding.secrets {
            let path = secrets.join(name);
            match parcel.and_then(|parcel| parcel.secrets.get(name)) {
                Some(value) => files::replace(&path, value, 0o400, self.owner)?,
                None if path.exists() => {}
                None => return Ok(Some(name.clone())),
            }
        }
        fault::point("claim.secrets")?;
        files::replace(&self.path.join("env"), env_file(&binding.env).as_bytes(), 0o400, self.owner)?;
        fault::point("claim.env")?;
        files::replace(&self.path.join("claim.json"), json, 0o444, (0, 0))?;
        Ok(None)
    }
}

/// Whether another file system begins here.
fn is_mount_point(path: &Path) -> Result<bool, Error> {
    let device = |path: &Path| path.metadata().map(|m| m.dev()).map_err(|e| Error::path("look at", path, e));
    let parent = path.parent().unwrap_or(path);
    Ok(device(path)? != device(parent)?)
}

/// Variables as a shell reads them, each value in single quotes.
fn env_file(env: &BTreeMap<String, String>) -> String {
    env.iter().map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', r"'\''"))).collect()
}

/// The record of a claimed sandbox as its claim left it, from the directory of
/// that claim: containers carry the one of the time before. None where nobody
/// claimed it, or what lies there cannot be read.
#[must_use]
pub fn claimed(path: &Path) -> Option<Record> {
    decode(&std::fs::read(path.join(RECORD)).ok()?).ok()
}

/// Who has the sandbox, for programs inside.
pub(super) fn claim_json(desired: &Desired, binding: &Binding) -> Vec<u8> {
    let value = serde_json::json!({
        "claim_id": binding.claim_id,
        "sandbox_id": desired.id,
        "name": desired.name,
        "tenant": desired.tenant,
        "identity": binding.identity,
        "secrets": binding.secrets,
    });
    format!("{value}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::id::ClaimId;
    use std::os::unix::fs::PermissionsExt;

    fn owned(dir: &Path) -> ClaimDir {
        ClaimDir::new(&dir.join("claim"), (1_234_567, 1_234_568))
    }

    #[test]
    fn secrets_are_the_users_alone_and_outlive_a_second_start() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = owned(root.path());
        dir.create().unwrap();
        let claim_id = ClaimId::random();
        let mut binding = Binding::new(claim_id.clone());
        binding.secrets.insert("key".into());
        let parcel = Parcel::new(claim_id, [("key".into(), b"s3cret".to_vec())].into(), Vec::new());
        assert_eq!(dir.lay_out(&binding, b"{}", None).unwrap(), Some("key".into()), "nobody brought it");
        assert_eq!(dir.lay_out(&binding, b"{}", Some(&parcel)).unwrap(), None);
        dir.create().unwrap();
        assert_eq!(dir.lay_out(&binding, b"{}", None).unwrap(), None, "it is there from before");
        let meta = dir.path.join("secrets/key").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (1_234_567, 1_234_568, 0o400));
        crate::host::mount::unmount(&dir.path).unwrap();
    }

    #[test]
    fn a_shell_reads_every_value_as_it_was_given() {
        let hostile = "a'b\"c $(touch x) `id` \\ \n ; exit 3";
        let text = env_file(&[("A".into(), hostile.into()), ("B".into(), String::new())].into());
        let script = format!("{text}printf %s \"$A|$B\"");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{hostile}|"));
    }

    #[test]
    fn a_parcel_never_prints_what_it_carries() {
        let parcel = Parcel::new(ClaimId::random(), [("key".into(), b"s3cret".to_vec())].into(), Vec::new());
        assert!(!format!("{parcel:?}").contains("115"), "{parcel:?}");
    }
}
