//! The ledger of a node without a disk. It outlives the simulated daemon, as
//! a disk does, and ends with the simulator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roost_proto::id::{PoolName, SandboxId};
use roost_proto::model::PoolSpec;

use crate::reconcile::ledger::{Change, Contents, LedgerError, Progress, Record, Store};
use crate::sandbox::node_time::Uptime;
use crate::volume::{VolumeKey, VolumeRecord};

#[derive(Debug, Default)]
struct Kept {
    records: HashMap<SandboxId, (Box<Record>, Option<Box<Progress>>)>,
    central_generation: u64,
    pools: HashMap<PoolName, PoolSpec>,
    volumes: HashMap<VolumeKey, VolumeRecord>,
    uptime: Option<Uptime>,
}

/// What one simulated node keeps; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Kept>>);

impl MemoryStore {
    /// A plain map: whole even after a panic elsewhere.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Contents, LedgerError> {
        let kept = self.kept();
        let copy = |(record, progress): &(Box<Record>, Option<Box<Progress>>)| {
            ((**record).clone(), progress.as_deref().cloned().unwrap_or_default())
        };
        let records = kept.records.values().map(copy).collect();
        let pools = kept.pools.values().cloned().collect();
        let volumes = kept.volumes.values().cloned().collect();
        let uptime = kept.uptime.clone();
        Ok(Contents { records, central_generation: kept.central_generation, pools, volumes, uptime })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), LedgerError> {
        let mut kept = self.kept();
        for change in changes {
            match change {
                Change::Put(record) => {
                    let id = record.desired.id.clone();
                    let progress = kept.records.remove(&id).and_then(|(_, progress)| progress);
                    kept.records.insert(id, (record.clone(), progress));
                }
                Change::Progress(id, progress) => {
                    if let Some(entry) = kept.records.get_mut(id) {
                        entry.1 = Some(progress.clone());
                    }
                }
                Change::Remove(id) => drop(kept.records.remove(id)),
                Change::CentralGeneration(generation) => kept.central_generation = *generation,
                Change::PutPool(pool) => drop(kept.pools.insert(pool.name.clone(), (**pool).clone())),
                Change::RemovePool(name) => drop(kept.pools.remove(name)),
                Change::PutVolume(volume) => drop(kept.volumes.insert(volume.key(), (**volume).clone())),
                Change::RemoveVolume(key) => drop(kept.volumes.remove(key)),
                Change::Uptime(uptime) => kept.uptime = Some(uptime.clone()),
            }
        }
        Ok(())
    }

    fn size_on_disk(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::ledger::{Ledger, decode};

    #[tokio::test]
    async fn what_was_committed_is_there_for_the_next_daemon() {
        let record: Record = decode(include_bytes!("../reconcile/ledger/golden/record-v1.json")).unwrap();
        let (id, store) = (record.desired.id.clone(), MemoryStore::default());
        let (ledger, _) = Ledger::unthreaded(store.clone()).unwrap();
        let progress = Progress { starts: 2, ..Progress::default() };
        ledger.commit(vec![Change::Put(Box::new(record.clone())), Change::CentralGeneration(7)]).await.unwrap();
        ledger.commit(vec![Change::Progress(id.clone(), Box::new(progress.clone()))]).await.unwrap();
        ledger.commit(vec![Change::Put(Box::new(record.clone()))]).await.unwrap();
        let (ledger, contents) = Ledger::unthreaded(store.clone()).unwrap();
        assert_eq!((contents.records, contents.central_generation), (vec![(record, progress)], 7));
        ledger.commit(vec![Change::Remove(id)]).await.unwrap();
        assert!(store.clone().load().unwrap().records.is_empty());
    }
}
