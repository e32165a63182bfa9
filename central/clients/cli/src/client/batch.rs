//! Many sandboxes in one call.

use http::Method;
use roost_proto::model::{CreateSandbox, Problem, Sandbox};
use serde::Deserialize;

use super::{Call, Client, ClientError};

/// Entries of one call: the most that the API takes.
const BATCH_MAX: usize = 500;

/// What came of one entry.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Item {
    /// It was accepted.
    Sandbox(Box<Sandbox>),
    /// It was not.
    Problem(Box<Problem>),
}

#[derive(Debug, Deserialize)]
struct Items {
    items: Vec<Item>,
}

/// What came of one entry of a batch.
pub(crate) type BatchResult = Result<Sandbox, ClientError>;

impl Client {
    /// Makes many sandboxes, in as few calls as that takes. `done` is told of
    /// each call's results.
    ///
    /// # Errors
    /// A call that failed as a whole; what calls before it made is there.
    pub(crate) async fn create_sandboxes(
        &self,
        bodies: &[CreateSandbox],
        mut done: impl FnMut(Vec<BatchResult>),
    ) -> Result<(), ClientError> {
        for chunk in bodies.chunks(BATCH_MAX) {
            let body = serde_json::json!({ "sandboxes": chunk });
            done(self.batch(Call::new(Method::POST, "/sandboxes:batch").json(&body)?).await?);
        }
        Ok(())
    }

    /// Deletes many sandboxes by id or name.
    ///
    /// # Errors
    /// As [`Self::create_sandboxes`].
    pub(crate) async fn delete_sandboxes(
        &self,
        names: &[String],
        mut done: impl FnMut(Vec<BatchResult>),
    ) -> Result<(), ClientError> {
        if let [name] = names {
            // A central that knows no batches takes this as well.
            done(vec![self.delete_sandbox(name).await]);
            return Ok(());
        }
        for chunk in names.chunks(BATCH_MAX) {
            let body = serde_json::json!({ "sandboxes": chunk });
            done(self.batch(Call::new(Method::POST, "/sandboxes:batch-delete").json(&body)?).await?);
        }
        Ok(())
    }

    async fn batch(&self, call: Call) -> Result<Vec<BatchResult>, ClientError> {
        let answer: Items = self.json(&call.with_idempotency_key()).await?;
        let result = |item| match item {
            Item::Sandbox(sandbox) => Ok(*sandbox),
            Item::Problem(problem) => {
                Err(ClientError::Problem { problem, token_origin: self.target.token_origin.clone() })
            }
        };
        Ok(answer.items.into_iter().map(result).collect())
    }
}
