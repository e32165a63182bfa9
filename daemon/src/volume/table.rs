//! Who has which volume. Pure: a map, and rules.
//!
//! A sandbox *holds* the volumes of its spec and its claim from the moment
//! that it is accepted until nothing of it is left, also while it is stopped:
//! no other can write to them in between. A volume is *open* while processes
//! of a holder may use it, or something works on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roost_proto::id::{SandboxId, TenantId};
use roost_proto::model::{VolumeAttachment, VolumeMount};

use super::{VolumeKey, VolumeRecord};

/// Why a sandbox does not get a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// No such volume here.
    #[error("there is no volume {0} on this node: make it with `roost volume create`")]
    Missing(VolumeKey),
    /// It is being removed.
    #[error("volume {0} is being deleted")]
    Deleting(VolumeKey),
    /// Its files are not where they were.
    #[error("volume {0} is lost: its directory is not there; bring it back, or delete the volume")]
    Lost(VolumeKey),
    /// Somebody else writes to it.
    #[error(
        "volume {volume} is attached to {sandbox}, and only one may write to it: delete that one, or attach it read-only"
    )]
    InUse {
        /// Which.
        volume: VolumeKey,
        /// Who has it.
        sandbox: SandboxId,
    },
    /// The sandbox was not given it, as a ledger put together from two would
    /// have it.
    #[error("volume {0} was not given to this sandbox: another one has it")]
    NotHeld(VolumeKey),
    /// It cannot be removed while somebody has it.
    #[error("volume {volume} is attached to {sandbox}: delete that one first")]
    Attached {
        /// Which.
        volume: VolumeKey,
        /// Who has it.
        sandbox: SandboxId,
    },
    /// Something works on it.
    #[error("something works on volume {0} (a checkpoint, an export): try again when it has ended")]
    Busy(VolumeKey),
}

#[derive(Debug, Clone)]
struct Holder {
    path: String,
    read_only: bool,
    is_open: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    record: VolumeRecord,
    is_lost: bool,
    holders: BTreeMap<SandboxId, Holder>,
    /// Checkpoints and the like that are under way.
    works: usize,
    /// Held while it is opened, attached or closed.
    gate: Arc<Mutex<()>>,
}

/// A volume at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it is.
    pub record: VolumeRecord,
    /// Whether its directory is missing.
    pub is_lost: bool,
    /// Who has it.
    pub attachments: Vec<VolumeAttachment>,
    /// Whether it may be open.
    pub is_open: bool,
}

/// Every volume of the node, and who has it; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct VolumeTable(Arc<Mutex<BTreeMap<VolumeKey, Entry>>>);

fn key(tenant: &TenantId, mount: &VolumeMount) -> VolumeKey {
    VolumeKey { tenant: tenant.clone(), name: mount.name.clone() }
}

impl Entry {
    fn refusal(&self, id: &SandboxId, read_only: bool) -> Option<HoldError> {
        let volume = self.record.key();
        if self.record.deleting {
            return Some(HoldError::Deleting(volume));
        }
        if self.is_lost {
            return Some(HoldError::Lost(volume));
        }
        let writer = self.holders.iter().find(|(other, holder)| *other != id && !holder.read_only);
        let (sandbox, _) = writer.filter(|_| !read_only)?;
        Some(HoldError::InUse { volume, sandbox: sandbox.clone() })
    }

    fn is_open(&self) -> bool {
        self.works > 0 || self.holders.values().any(|holder| holder.is_open)
    }
}

impl VolumeTable {
    /// Plain maps: whole even after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeKey, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a volume, or replaces what is known of it.
    pub fn put(&self, record: VolumeRecord, is_lost: bool) {
        let mut volumes = self.lock();
        match volumes.get_mut(&record.key()) {
            Some(entry) => (entry.record, entry.is_lost) = (record, is_lost),
            None => {
                let entry = Entry { record, is_lost, holders: BTreeMap::new(), works: 0, gate: Arc::default() };
                volumes.insert(entry.record.key(), entry);
            }
        }
    }

    /// Forgets a volume.
    pub fn remove(&self, key: &VolumeKey) {
        self.lock().remove(key);
    }

    /// One volume.
    #[must_use]
    pub fn get(&self, key: &VolumeKey) -> Option<Standing> {
        self.lock().get(key).map(standing)
    }

    /// Every volume, by tenant and name.
    #[must_use]
    pub fn list(&self) -> Vec<Standing> {
        self.lock().values().map(standing).collect()
    }

    /// Gives volumes to a sandbox, all or none. Returns those that it did not
    /// have before.
    ///
    /// # Errors
    /// The first that it cannot have.
    pub fn hold(&self, id: &SandboxId, tenant: &TenantId, mounts: &[VolumeMount]) -> Result<Vec<VolumeKey>, HoldError> {
        let mut volumes = self.lock();
        for mount in mounts {
            let key = key(tenant, mount);
            let entry = volumes.get(&key).ok_or_else(|| HoldError::Missing(key.clone()))?;
            if let Some(refusal) = entry.refusal(id, mount.read_only) {
                return Err(refusal);
            }
        }
        let mut taken = Vec::new();
        for mount in mounts {
            let key = key(tenant, mount);
            if let Some(entry) = volumes.get_mut(&key)
                && !entry.holders.contains_key(id)
            {
                let holder = Holder { path: mount.path.clone(), read_only: mount.read_only, is_open: false };
                entry.holders.insert(id.clone(), holder);
                taken.push(key);
            }
        }
        Ok(taken)
    }

    /// Takes volumes from a sandbox that was not made after all.
    pub fn unhold(&self, id: &SandboxId, keys: &[VolumeKey]) {
        let mut volumes = self.lock();
        for key in keys {
            if let Some(entry) = volumes.get_mut(key) {
                entry.holders.remove(id);
            }
        }
    }

    /// Takes all volumes from a sandbox that is gone.
    pub fn release(&self, id: &SandboxId) {
        for entry in self.lock().values_mut() {
            entry.holders.remove(id);
        }
    }

    /// Notes that processes of a sandbox may use a volume from now on.
    ///
    /// # Errors
    /// It does not hold it.
    pub(super) fn open(&self, id: &SandboxId, key: &VolumeKey) -> Result<VolumeRecord, HoldError> {
        let mut volumes = self.lock();
        let entry = volumes.get_mut(key).ok_or_else(|| HoldError::Missing(key.clone()))?;
        if entry.is_lost {
            return Err(HoldError::Lost(key.clone()));
        }
        let holder = entry.holders.get_mut(id).ok_or_else(|| HoldError::NotHeld(key.clone()))?;
        holder.is_open = true;
        Ok(entry.record.clone())
    }

    /// Notes that a sandbox of an earlier daemon runs.
    pub fn mark_open(&self, id: &SandboxId) {
        for entry in self.lock().values_mut() {
            if let Some(holder) = entry.holders.get_mut(id) {
                holder.is_open = true;
            }
        }
    }

    /// Notes that no process of a sandbox is left; returns what it had.
    pub(super) fn close(&self, id: &SandboxId) -> Vec<VolumeKey> {
        let mut volumes = self.lock();
        let of_it = volumes.iter_mut().filter_map(|(key, entry)| {
            entry.holders.get_mut(id)?.is_open = false;
            Some(key.clone())
        });
        of_it.collect()
    }

    /// Notes that something works on a volume: it stays open, and is not
    /// removed.
    ///
    /// # Errors
    /// It is not there, or is being removed.
    pub(super) fn begin_work(&self, key: &VolumeKey) -> Result<VolumeRecord, HoldError> {
        let mut volumes = self.lock();
        let entry = volumes.get_mut(key).ok_or_else(|| HoldError::Missing(key.clone()))?;
        match entry {
            entry if entry.record.deleting => Err(HoldError::Deleting(key.clone())),
            entry if entry.is_lost => Err(HoldError::Lost(key.clone())),
            entry => {
                entry.works += 1;
                Ok(entry.record.clone())
            }
        }
    }

    /// The work of [`Self::begin_work`] has ended.
    pub(super) fn end_work(&self, key: &VolumeKey) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.works = entry.works.saturating_sub(1);
        }
    }

    /// Sandboxes whose processes may write to a volume now.
    pub(super) fn writers(&self, key: &VolumeKey) -> Vec<SandboxId> {
        let volumes = self.lock();
        let holders = volumes.get(key).into_iter().flat_map(|entry| &entry.holders);
        holders.filter(|(_, holder)| holder.is_open && !holder.read_only).map(|(id, _)| id.clone()).collect()
    }

    /// What must be held while a volume is opened, attached or closed.
    pub(super) fn gate(&self, key: &VolumeKey) -> Option<Arc<Mutex<()>>> {
        self.lock().get(key).map(|entry| entry.gate.clone())
    }

    /// Notes that a volume is to be removed: nobody gets it any more.
    ///
    /// # Errors
    /// Somebody has it.
    pub(super) fn begin_removal(&self, key: &VolumeKey) -> Result<VolumeRecord, HoldError> {
        let mut volumes = self.lock();
        let entry = volumes.get_mut(key).ok_or_else(|| HoldError::Missing(key.clone()))?;
        if let Some((sandbox, _)) = entry.holders.first_key_value() {
            return Err(HoldError::Attached { volume: key.clone(), sandbox: sandbox.clone() });
        }
        if entry.works > 0 {
            return Err(HoldError::Busy(key.clone()));
        }
        entry.record.deleting = true;
        Ok(entry.record.clone())
    }

    /// Notes that a volume is not removed after all.
    pub(super) fn undo_removal(&self, key: &VolumeKey) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.record.deleting = false;
        }
    }
}

fn standing(entry: &Entry) -> Standing {
    let attachment = |(id, holder): (&SandboxId, &Holder)| VolumeAttachment {
        sandbox_id: id.clone(),
        path: holder.path.clone(),
        read_only: holder.read_only,
    };
    Standing {
        record: entry.record.clone(),
        is_lost: entry.is_lost,
        attachments: entry.holders.iter().map(attachment).collect(),
        is_open: entry.is_open(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::record::example;

    fn table(names: &[&str]) -> VolumeTable {
        let table = VolumeTable::default();
        for name in names {
            table.put(example(name), false);
        }
        table
    }

    fn mount(name: &str, read_only: bool) -> VolumeMount {
        VolumeMount { name: name.parse().unwrap(), path: format!("/{name}"), read_only }
    }

    fn hold(table: &VolumeTable, id: &SandboxId, mounts: &[VolumeMount]) -> Result<usize, HoldError> {
        table.hold(id, &TenantId::local(), mounts).map(|taken| taken.len())
    }

    #[test]
    fn only_one_writes_and_the_other_is_told_who() {
        let (table, a, b) = (table(&["home"]), SandboxId::random(), SandboxId::random());
        assert_eq!(hold(&table, &a, &[mount("home", false)]), Ok(1));
        assert_eq!(hold(&table, &a, &[mount("home", false)]), Ok(0), "it has it already");
        let error = hold(&table, &b, &[mount("home", false)]).unwrap_err().to_string();
        assert!(error.contains(a.as_str()) && error.contains("volume home"), "{error}");
        assert_eq!(hold(&table, &b, &[mount("home", true)]), Ok(1));
        table.release(&a);
        table.release(&b);
        assert_eq!(hold(&table, &b, &[mount("home", false)]), Ok(1));
    }

    #[test]
    fn a_sandbox_gets_all_volumes_or_none() {
        let (table, a, b) = (table(&["x", "y"]), SandboxId::random(), SandboxId::random());
        assert_eq!(hold(&table, &a, &[mount("y", false)]), Ok(1));
        assert!(hold(&table, &b, &[mount("x", false), mount("y", false)]).is_err());
        assert!(hold(&table, &b, &[mount("x", false), mount("z", false)]).is_err());
        assert_eq!(hold(&table, &a, &[mount("x", false)]), Ok(1), "the refused one took nothing");
    }

    #[test]
    fn a_volume_of_another_tenant_is_not_there() {
        let table = table(&["home"]);
        let other = table.hold(&SandboxId::random(), &"acme".parse().unwrap(), &[mount("home", false)]);
        assert!(matches!(other, Err(HoldError::Missing(_))), "{other:?}");
    }

    #[test]
    fn what_is_removed_is_nobodys_and_what_somebody_has_is_not_removed() {
        let (table, a) = (table(&["home"]), SandboxId::random());
        let key = example("home").key();
        hold(&table, &a, &[mount("home", true)]).unwrap();
        assert!(matches!(table.begin_removal(&key), Err(HoldError::Attached { .. })));
        table.release(&a);
        assert!(table.begin_removal(&key).unwrap().deleting);
        assert!(matches!(hold(&table, &a, &[mount("home", true)]), Err(HoldError::Deleting(_))));
        table.undo_removal(&key);
        assert_eq!(hold(&table, &a, &[mount("home", true)]), Ok(1));
    }

    #[test]
    fn a_volume_is_open_until_the_last_sandbox_that_used_it_has_ended() {
        let (table, a, b) = (table(&["home"]), SandboxId::random(), SandboxId::random());
        let key = example("home").key();
        let is_open = || table.get(&key).unwrap().is_open;
        assert!(matches!(table.open(&a, &key), Err(HoldError::NotHeld(_))));
        for id in [&a, &b] {
            hold(&table, id, &[mount("home", true)]).unwrap();
            table.open(id, &key).unwrap();
        }
        assert_eq!(table.close(&a), std::slice::from_ref(&key));
        assert!(is_open());
        table.close(&b);
        assert!(!is_open(), "held, and not open");
        table.mark_open(&b);
        assert!(is_open());
        table.release(&b);
        assert!(!is_open());
    }
}
