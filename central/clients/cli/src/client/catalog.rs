//! Templates and profiles: what sandboxes are made from.

use http::Method;
use roost_proto::model::{Profile, Template, Validate};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Call, Client, ClientError};

/// How one kind of manifest is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// In messages and commands.
    pub(crate) noun: &'static str,
    /// In messages about many.
    pub(crate) plural: &'static str,
    /// Under `/api/v1`.
    path: &'static str,
}

/// What is applied by name from a file.
pub(crate) trait Manifest: Serialize + DeserializeOwned + Validate + Send + Sync {
    /// How this kind is called.
    const KIND: Kind;
    /// The name that it gives itself.
    fn name(&self) -> &str;
}

impl Manifest for Template {
    const KIND: Kind = Kind { noun: "template", plural: "templates", path: "/templates" };
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Manifest for Profile {
    const KIND: Kind = Kind { noun: "profile", plural: "profiles", path: "/profiles" };
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Client {
    /// Every manifest of a kind.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn list_manifests<M: Manifest>(&self) -> Result<Vec<M>, ClientError> {
        self.all(Call::get(M::KIND.path)).await
    }

    /// One manifest.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn get_manifest<M: Manifest>(&self, name: &str) -> Result<M, ClientError> {
        self.json(&Call::get(format!("{}/{name}", M::KIND.path))).await
    }

    /// Makes or replaces a manifest.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn put_manifest<M: Manifest>(&self, manifest: &M) -> Result<(), ClientError> {
        self.done(&Call::new(Method::PUT, format!("{}/{}", M::KIND.path, manifest.name())).json(manifest)?).await
    }

    /// Deletes a manifest.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn delete_manifest<M: Manifest>(&self, name: &str) -> Result<(), ClientError> {
        self.done(&Call::new(Method::DELETE, format!("{}/{name}", M::KIND.path))).await
    }
}
