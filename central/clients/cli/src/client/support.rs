//! What people ask when something is wrong.

use std::time::Duration;

use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{HostReport, Problem, StartRecord, SupportPart};
use serde::Deserialize;

use super::lines::Lines;
use super::{Call, Client, ClientError};

/// Silence after which a bundle counts as dead: a node asks slow programs and
/// a slow containerd before it answers.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// One line of a bundle.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Problem { problem: Box<Problem> },
    Part(SupportPart),
}

impl Client {
    /// Has a node check its host.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn examine_node(&self, node: &NodeId, sandboxes: Option<u32>) -> Result<HostReport, ClientError> {
        self.json(&Call::get(format!("/nodes/{node}/doctor")).query_option("sandboxes", sandboxes)).await
    }

    /// The last starts of a node, the oldest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn node_starts(
        &self,
        node: &NodeId,
        sandbox: Option<&SandboxId>,
        last: Option<u32>,
    ) -> Result<Vec<StartRecord>, ClientError> {
        let call = Call::get(format!("/nodes/{node}/starts"));
        self.json(&call.query_option("sandbox", sandbox).query_option("last", last)).await
    }

    /// The part of a support bundle that central gives, or a node through it;
    /// `take` gets one part after the other.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn support(
        &self,
        node: Option<&NodeId>,
        log_lines: Option<u32>,
        mut take: impl FnMut(SupportPart),
    ) -> Result<(), ClientError> {
        let path = node.map_or_else(|| "/support".to_owned(), |node| format!("/nodes/{node}/support"));
        let call = Call::get(path).query_option("log_lines", log_lines);
        let what = call.to_string();
        let mut lines = Lines::new(self.stream(&call).await?);
        loop {
            let line = match tokio::time::timeout(IDLE_TIMEOUT, lines.next()).await {
                Ok(Some(line)) => {
                    line.map_err(|error| ClientError::Broken { what: what.clone(), source: error.into() })?
                }
                Ok(None) => return Ok(()),
                Err(_) => return Err(ClientError::Timeout { what, after: IDLE_TIMEOUT }),
            };
            match serde_json::from_str(&line) {
                Ok(Line::Part(part)) => take(part),
                Ok(Line::Problem { problem }) => {
                    return Err(ClientError::Problem { problem, token_origin: self.target.token_origin.clone() });
                }
                Err(source) => return Err(ClientError::Unreadable { what, source }),
            }
        }
    }
}
