//! Tokens: the admin's and those to join with.

use std::time::Duration;

use roost_proto::id::{JoinTokenId, TenantId};
use serde::Serialize;

use super::{Noun, RequestError, Scope};
use crate::clock;
use crate::secret::Secret;
use crate::store::{JoinToken, NewJoinToken, Store, StoreError};

/// Shortest and longest life of a join token, in seconds (a week).
const JOIN_TOKEN_LIFE_S: std::ops::RangeInclusive<u64> = 10..=7 * 24 * 3600;

/// A join token as it is shown once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct NewJoinTokenInfo {
    /// Names it, without being secret.
    pub id: JoinTokenId,
    /// What a node joins with: the secret, and the SHA-256 of central's CA.
    pub token: String,
    /// Unix time of its end, in milliseconds.
    pub expires_at_unix_ms: u64,
}

/// A join token as it is listed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct JoinTokenInfo {
    /// Names it.
    pub id: JoinTokenId,
    /// Unix time of its creation, in milliseconds.
    pub created_at_unix_ms: u64,
    /// Unix time of its end, in milliseconds.
    pub expires_at_unix_ms: u64,
}

impl From<JoinToken> for JoinTokenInfo {
    fn from(token: JoinToken) -> Self {
        let JoinToken { id, created_at_unix_ms, expires_at_unix_ms } = token;
        Self { id, created_at_unix_ms, expires_at_unix_ms }
    }
}

/// Why a token is not issued.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too short or too long a life.
    #[error("a join token lives 10 seconds to a week (604800 s), {0} s were asked for")]
    Life(u64),
    /// The database failed.
    #[error("the token cannot be stored")]
    Store(#[from] StoreError),
}

/// Makes a one-time token to join with. The text carries what a node needs to
/// trust central at first contact: `rjt_<secret>.<SHA-256 of the CA>`.
///
/// # Errors
/// See [`TokenError`].
pub async fn issue_join_token(
    store: &dyn Store,
    tenant: &TenantId,
    ca_fingerprint: &str,
    life_s: u64,
) -> Result<NewJoinTokenInfo, TokenError> {
    if !JOIN_TOKEN_LIFE_S.contains(&life_s) {
        return Err(TokenError::Life(life_s));
    }
    let (id, secret) = (JoinTokenId::random(), Secret::random("rjt"));
    let created_at_unix_ms = clock::now_unix_ms();
    let expires_at_unix_ms = created_at_unix_ms + life_s * 1000;
    let new = NewJoinToken { id: id.clone(), secret: secret.hash(), created_at_unix_ms, expires_at_unix_ms };
    store.tenant(tenant).create_join_token(new).await?;
    Ok(NewJoinTokenInfo { id, token: format!("{}.{ca_fingerprint}", secret.reveal()), expires_at_unix_ms })
}

/// Makes this the admin token; those before it are good for `overlap` more.
///
/// # Errors
/// [`TokenError::Store`].
pub async fn keep_admin_token(
    store: &dyn Store,
    tenant: &TenantId,
    secret: &Secret,
    overlap: Duration,
) -> Result<(), TokenError> {
    let now_unix_ms = clock::now_unix_ms();
    let overlap_ms = u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX);
    let old_until_unix_ms = now_unix_ms.saturating_add(overlap_ms);
    Ok(store.tenant(tenant).replace_admin_token(secret.hash(), now_unix_ms, old_until_unix_ms).await?)
}

/// Keeps the admin token of the first start; false if there is one already.
///
/// # Errors
/// [`TokenError::Store`].
pub(super) async fn keep_first_admin_token(
    store: &dyn Store,
    tenant: &TenantId,
    secret: &Secret,
) -> Result<bool, TokenError> {
    Ok(store.tenant(tenant).add_first_admin_token(secret.hash(), clock::now_unix_ms()).await?)
}

/// A new admin token, not yet kept.
#[must_use]
pub fn new_admin_token() -> Secret {
    Secret::random("rat")
}

impl Scope {
    /// Makes a one-time token to join with.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] and [`RequestError::Store`].
    pub async fn create_join_token(&self, life_s: u64) -> Result<NewJoinTokenInfo, RequestError> {
        let (store, authorities) = (&*self.central.store, self.central.ca.present());
        issue_join_token(store, &self.tenant, authorities.serving().fingerprint(), life_s).await.map_err(|error| {
            match error {
                TokenError::Life(_) => RequestError::field("expires_in_s", error.to_string()),
                TokenError::Store(error) => error.into(),
            }
        })
    }

    /// All join tokens that can still be used.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn join_tokens(&self) -> Result<Vec<JoinTokenInfo>, RequestError> {
        let tokens = self.store().join_tokens(clock::now_unix_ms()).await?;
        Ok(tokens.into_iter().map(Into::into).collect())
    }

    /// Makes a join token worthless.
    ///
    /// # Errors
    /// [`RequestError::NotFound`] and [`RequestError::Store`].
    pub async fn delete_join_token(&self, id: &JoinTokenId) -> Result<(), RequestError> {
        let removed = self.store().delete_join_token(id.clone()).await?;
        if removed { Ok(()) } else { Err(RequestError::not_found(Noun::JoinToken, id)) }
    }
}
