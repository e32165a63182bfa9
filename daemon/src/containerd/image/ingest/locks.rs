//! Who fetches a blob.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::containerd::image::digest::Digest;

type Lock = tokio::sync::Mutex<()>;

/// One lock for each blob that is fetched now; cheap to clone. Who waits for
/// one finds the blob in containerd afterwards.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlobLocks(Arc<Mutex<HashMap<Digest, Weak<Lock>>>>);

impl BlobLocks {
    /// Waits until nobody else fetches the blob. Cancel-safe.
    pub(crate) async fn lock(&self, digest: Digest) -> OwnedMutexGuard<()> {
        let lock = {
            // A plain map: whole even after a panic elsewhere.
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(&digest).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(Lock::default());
                    locks.insert(digest, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}
