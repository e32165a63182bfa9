//! Pools over the nodes.

use roost_proto::id::PoolName;
use roost_proto::model::{FleetPool, FleetPoolStatus, Validate};

use super::{Noun, RequestError, Scope};
use crate::store::PutPoolError;

impl Scope {
    /// Every pool, and how it stands on the nodes; by name.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn pools(&self) -> Result<Vec<FleetPoolStatus>, RequestError> {
        Ok(self.store().pools().await?)
    }

    /// One pool.
    ///
    /// # Errors
    /// [`RequestError::NotFound`] and [`RequestError::Store`].
    pub async fn pool(&self, name: &PoolName) -> Result<FleetPoolStatus, RequestError> {
        let found = self.store().pool(name.clone()).await?;
        found.ok_or_else(|| RequestError::not_found(Noun::Pool, name))
    }

    /// Creates or replaces a pool; true if it was created. The nodes follow
    /// within moments.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] and [`RequestError::Store`].
    pub async fn put_pool(&self, pool: FleetPool) -> Result<bool, RequestError> {
        pool.validate().map_err(RequestError::Invalid)?;
        let created = self.store().put_pool(pool).await.map_err(|error| match error {
            PutPoolError::NoTemplate(template) => RequestError::field(
                "template",
                format!("there is no template {template}: create it first, see `roost template ls`"),
            ),
            PutPoolError::NoProfile(profile) => RequestError::field(
                "profile",
                format!("there is no profile {profile}: create it first, see `roost profile ls`"),
            ),
            PutPoolError::Store(error) => error.into(),
        })?;
        self.central.pools.wake();
        Ok(created)
    }

    /// Removes a pool; what nobody claimed goes with it, on each node as soon
    /// as it is connected.
    ///
    /// # Errors
    /// [`RequestError::NotFound`] and [`RequestError::Store`].
    pub async fn delete_pool(&self, name: &PoolName) -> Result<(), RequestError> {
        if !self.store().delete_pool(name.clone()).await? {
            return Err(RequestError::not_found(Noun::Pool, name));
        }
        self.central.pools.wake();
        Ok(())
    }
}
