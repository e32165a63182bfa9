//! Requests with an idempotency key whose noun keeps no answers of its own.

use serde::{Deserialize, Serialize};

use super::sandbox::{check_key, digest};
use super::{Conflict, RequestError, Scope};
use crate::clock;
use crate::store::KeyedAnswer;

/// What is kept of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// The whole of it: status, content type and body.
    Whole(u16, String, String),
    /// That the request came; it may be repeated.
    Given,
    /// That the request came; its answer holds a secret, and it must not be
    /// repeated.
    Spent,
}

/// A request that has its key.
#[derive(Debug)]
pub struct Keyed {
    scope: Scope,
    key: (String, String),
}

impl Keyed {
    /// Takes the key for a request, of which `first` is kept until there is an
    /// answer; `request` is all that makes it this one. With what is kept of it
    /// already, if it is a repetition.
    ///
    /// # Errors
    /// A key that is none, [`Conflict::KeyReused`], [`Conflict::KeySpent`] and
    /// [`RequestError::Store`].
    pub async fn begin(
        scope: Scope,
        key: String,
        request: &impl Serialize,
        first: &Kept,
    ) -> Result<(Self, Option<Kept>), RequestError> {
        check_key(&key)?;
        let keyed = Self { scope, key: (key, digest(request)?) };
        let is_taken = !keyed.scope.store().take_key(keyed.key.clone(), text(first)?, clock::now_unix_ms()).await?;
        let kept = if is_taken { Some(keyed.kept().await?) } else { None };
        Ok((keyed, kept))
    }

    async fn kept(&self) -> Result<Kept, RequestError> {
        let (key, request) = self.key.clone();
        let kept = match self.scope.store().recall_key(key, request).await? {
            KeyedAnswer::Reused => return Err(Conflict::KeyReused.into()),
            // It has expired in between.
            KeyedAnswer::New => Kept::Given,
            // What is no such answer is that of a request of another kind.
            KeyedAnswer::Answer(text) => serde_json::from_str(&text).map_err(|_| Conflict::KeyReused)?,
        };
        if kept == Kept::Spent { Err(Conflict::KeySpent.into()) } else { Ok(kept) }
    }

    /// Keeps what was answered.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn keep(&self, kept: &Kept) -> Result<(), RequestError> {
        Ok(self.scope.store().keep_key(self.key.clone(), text(kept)?).await?)
    }
}

fn text(kept: &Kept) -> Result<String, RequestError> {
    let text = serde_json::to_string(kept);
    text.map_err(|error| RequestError::field("body", format!("cannot be kept as JSON: {error}")))
}
