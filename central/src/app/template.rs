//! Templates.

use roost_proto::id::TemplateName;
use roost_proto::model::{Template, Validate};

use super::{Noun, RequestError, Scope};
use crate::store::PutTemplateError;

impl Scope {
    /// All templates by name.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn templates(&self) -> Result<Vec<Template>, RequestError> {
        Ok(self.store().templates().await?)
    }

    /// One template.
    ///
    /// # Errors
    /// [`RequestError::NotFound`] and [`RequestError::Store`].
    pub async fn template(&self, name: &TemplateName) -> Result<Template, RequestError> {
        let found = self.store().template(name.clone()).await?;
        found.ok_or_else(|| RequestError::not_found(Noun::Template, name))
    }

    /// Creates or replaces a template; true if it was created. Sandboxes that
    /// were made from it stay as they are.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] and [`RequestError::Store`].
    pub async fn put_template(&self, template: Template) -> Result<bool, RequestError> {
        template.validate().map_err(RequestError::Invalid)?;
        let put = self.store().put_template(template).await.map_err(|error| match error {
            PutTemplateError::NoProfile(profile) => RequestError::field(
                "profile",
                format!("there is no profile {profile}: create it first, see `roost profile ls`"),
            ),
            PutTemplateError::Store(error) => RequestError::from(error),
        })?;
        // Pools of it are to be made anew.
        self.central.pools.wake();
        Ok(put)
    }

    /// Removes a template.
    ///
    /// # Errors
    /// [`RequestError::NotFound`] and [`RequestError::Store`].
    pub async fn delete_template(&self, name: &TemplateName) -> Result<(), RequestError> {
        let removed = self.store().delete_template(name.clone()).await?;
        self.central.pools.wake();
        if removed { Ok(()) } else { Err(RequestError::not_found(Noun::Template, name)) }
    }
}
