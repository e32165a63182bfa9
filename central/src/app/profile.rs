//! Profiles.

use roost_proto::id::ProfileName;
use roost_proto::model::{Profile, Validate};

use super::{Conflict, Noun, RequestError, Scope};
use crate::store::DeleteProfileError;

impl Scope {
    /// All profiles by name.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn profiles(&self) -> Result<Vec<Profile>, RequestError> {
        Ok(self.store().profiles().await?)
    }

    /// One profile.
    ///
    /// # Errors
    /// [`RequestError::NotFound`] and [`RequestError::Store`].
    pub async fn profile(&self, name: &ProfileName) -> Result<Profile, RequestError> {
        let found = self.store().profile(name.clone()).await?;
        found.ok_or_else(|| RequestError::not_found(Noun::Profile, name))
    }

    /// Creates or replaces a profile; true if it was created.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] and [`RequestError::Store`].
    pub async fn put_profile(&self, profile: Profile) -> Result<bool, RequestError> {
        profile.validate().map_err(RequestError::Invalid)?;
        let created = self.store().put_profile(profile).await?;
        // Pools of it are to be made anew.
        self.central.pools.wake();
        Ok(created)
    }

    /// Removes a profile that no template names.
    ///
    /// # Errors
    /// [`RequestError::NotFound`], [`Conflict::ProfileInUse`] and [`RequestError::Store`].
    pub async fn delete_profile(&self, name: &ProfileName) -> Result<(), RequestError> {
        self.store().delete_profile(name.clone()).await.map_err(|error| match error {
            DeleteProfileError::NotFound => RequestError::not_found(Noun::Profile, name),
            DeleteProfileError::InUse(templates) => Conflict::ProfileInUse { name: name.to_string(), templates }.into(),
            DeleteProfileError::Store(error) => error.into(),
        })
    }
}
