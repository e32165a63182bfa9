//! Pools and claims.

use http::Method;
use roost_proto::id::{ClaimId, PoolName};
use roost_proto::model::{Claimed, CreateClaim, FleetPool, FleetPoolStatus};

use super::{Call, Client, ClientError};

impl Client {
    /// Every pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn list_pools(&self) -> Result<Vec<FleetPoolStatus>, ClientError> {
        self.all(Call::get("/pools")).await
    }

    /// One pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn get_pool(&self, name: &PoolName) -> Result<FleetPoolStatus, ClientError> {
        self.json(&Call::get(format!("/pools/{name}"))).await
    }

    /// Makes or replaces a pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn put_pool(&self, pool: &FleetPool) -> Result<(), ClientError> {
        self.done(&Call::new(Method::PUT, format!("/pools/{}", pool.name)).json(pool)?).await
    }

    /// Removes a pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn delete_pool(&self, name: &PoolName) -> Result<(), ClientError> {
        self.done(&Call::new(Method::DELETE, format!("/pools/{name}"))).await
    }

    /// Claims a desktop; the same id again is the same claim.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn claim(&self, body: &CreateClaim, id: &ClaimId) -> Result<Claimed, ClientError> {
        self.json(&Call::new(Method::POST, "/claims").json(body)?.with_key(id.as_str())).await
    }
}
