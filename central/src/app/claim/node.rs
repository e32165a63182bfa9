//! The call to the node, and what its answer means.

use std::time::Duration;

use roost_proto::convert::{InvalidMessage, require};
use roost_proto::id::{ClaimId, NodeId, SandboxId};
use roost_proto::model::BindStep;
use roost_proto::node::claim_sandbox_request::From;
use roost_proto::node::{BoundFile, ClaimSandboxRequest, ClaimSandboxResponse, ListSandboxesRequest};
use tonic::{Code, Status};

use super::super::streams::{call, node_error};
use super::super::{Central, Conflict, RequestError};
use super::Attempt;
use crate::clock;
use crate::link::{NodeCallError, read_held};
use crate::pools::name_on_node;
use crate::store::{FinishClaim, Held};

/// A binding takes milliseconds and then as long as the template's hook. Below
/// the age at which the sweep takes a claim for given up; one whose hook takes
/// longer is to be repeated.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(100);
/// A list of some thousand records.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Where a node puts its stable word for what went wrong.
const WORD: &str = "roost-code";

/// What a node gave.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) held: Held,
    pub(super) hook_exit_code: Option<i32>,
    /// None = the binding is not complete.
    pub(super) steps: Option<Vec<BindStep>>,
}

impl Given {
    pub(super) fn finish(self, id: ClaimId, node_id: NodeId) -> FinishClaim {
        let Self { held, hook_exit_code, steps } = self;
        FinishClaim { id, node_id, held, hook_exit_code, steps, now_unix_ms: clock::now_unix_ms() }
    }
}

/// Why a node gave nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It has none: another one may.
    Next(String),
    /// The claim stands there, and is not bound.
    NotBound(String),
    /// Nothing was bound, and no other node would.
    Wrong(RequestError),
    /// It may have bound the claim all the same.
    Failed(RequestError),
}

impl Attempt<'_> {
    /// Claims any desktop of the pool.
    pub(super) async fn ask_pool(&self, node: &NodeId) -> Result<Given, Refusal> {
        let name = name_on_node(&self.scope.tenant, &self.body.pool);
        // At once, so that claims which come together spread.
        self.central().pools.taken(node, &name);
        let answer = self.ask(node, From::Pool(name.to_string())).await;
        if matches!(answer, Err(Refusal::Next(_))) {
            self.central().pools.empty(node, &name);
        }
        answer
    }

    /// Claims this sandbox.
    pub(super) async fn ask_sandbox(&self, node: &NodeId, sandbox: &SandboxId) -> Result<Given, Refusal> {
        self.ask(node, From::SandboxId(sandbox.to_string())).await
    }

    async fn ask(&self, node: &NodeId, from: From) -> Result<Given, Refusal> {
        let mut client = match self.central().node_client(node).await {
            Ok(client) => client,
            // It was never asked.
            Err(error @ RequestError::Node(_)) if self.is_first => return Err(Refusal::Next(error.to_string())),
            Err(error) => return Err(Refusal::Failed(error)),
        };
        let request = self.request(from);
        let after_ms = u64::try_from(CLAIM_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        match tokio::time::timeout(CLAIM_TIMEOUT, client.claim_sandbox(request)).await {
            Ok(Ok(answer)) => read(answer.into_inner()).map_err(|error| Refusal::Failed(unreadable(node, &error))),
            Ok(Err(status)) => Err(meaning(node, status)),
            Err(_) => Err(Refusal::Failed(NodeCallError::Timeout { node: node.clone(), after_ms }.into())),
        }
    }

    fn request(&self, from: From) -> ClaimSandboxRequest {
        let body = self.body;
        let file = |file: &roost_proto::model::ClaimFile| BoundFile {
            path: file.path.clone(),
            content: file.content.0.clone(),
            // Checked with the body.
            mode: file.mode_bits().unwrap_or_default(),
        };
        ClaimSandboxRequest {
            from: Some(from),
            binding: Some(body.binding(self.record.id.clone()).into()),
            name: body.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            tenant: self.scope.tenant.to_string(),
            secrets: body.secrets.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
            files: body.files.iter().map(file).collect(),
            resources: body.resources.clone().map(Into::into),
            lifetime: (!body.lifetime.is_nothing()).then(|| body.lifetime.into()),
        }
    }
}

fn read(answer: ClaimSandboxResponse) -> Result<Given, InvalidMessage> {
    let held = read_held(require("sandbox", answer.sandbox)?)?;
    let hook_exit_code = held.observed.binding.as_ref().and_then(|binding| binding.hook_exit_code);
    let steps = answer.steps.into_iter().map(|s| BindStep { name: s.name, duration_us: s.duration_us }).collect();
    Ok(Given { held, hook_exit_code, steps: Some(steps) })
}

fn unreadable(node: &NodeId, error: &InvalidMessage) -> RequestError {
    node_error(node, Status::data_loss(error.to_string()))
}

fn meaning(node: &NodeId, status: Status) -> Refusal {
    let word = status.metadata().get(WORD).and_then(|word| word.to_str().ok()).unwrap_or_default();
    match (status.code(), word) {
        (Code::ResourceExhausted, _) => Refusal::Next(status.message().to_owned()),
        (Code::Unimplemented, _) => Refusal::Next(format!("the roostd of {node} is too old for claims")),
        // A volume lies on one node: another may be the one.
        (Code::NotFound, "volume-not-found") => Refusal::Next(status.message().to_owned()),
        (Code::FailedPrecondition, word) if word.starts_with("volume-") => Refusal::Wrong(node_error(node, status)),
        (Code::FailedPrecondition, "sandbox-deleting") => {
            Refusal::Failed(Conflict::Deleting("of the claim".into()).into())
        }
        (Code::FailedPrecondition, word) if word.starts_with("claim-") => {
            Refusal::NotBound(status.message().to_owned())
        }
        (Code::InvalidArgument, _) => Refusal::Wrong(node_error(node, status)),
        _ => Refusal::Failed(node_error(node, status)),
    }
}

/// What a node holds for a claim.
pub(super) async fn find(central: &Central, node: &NodeId, claim: &ClaimId) -> Result<Option<Held>, RequestError> {
    let mut client = central.node_client(node).await?;
    let listed = call(node, LIST_TIMEOUT, client.list_sandboxes(ListSandboxesRequest {})).await?.sandboxes;
    let is_for = |sandbox: &roost_proto::node::Sandbox| {
        let binding = sandbox.desired.as_ref().and_then(|desired| desired.binding.as_ref());
        binding.is_some_and(|binding| binding.claim_id == claim.as_str())
    };
    let found = listed.into_iter().find(is_for).map(read_held).transpose();
    found.map_err(|error| unreadable(node, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::{MetadataMap, MetadataValue};

    fn said(code: Code, word: &'static str) -> Refusal {
        let mut metadata = MetadataMap::new();
        metadata.insert(WORD, MetadataValue::from_static(word));
        meaning(&NodeId::random(), Status::with_metadata(code, "why", metadata))
    }

    #[test]
    fn only_a_node_that_has_none_is_passed_over() {
        assert!(matches!(said(Code::ResourceExhausted, "pool-empty"), Refusal::Next(_)));
        assert!(matches!(said(Code::Unimplemented, ""), Refusal::Next(_)));
        assert!(matches!(said(Code::NotFound, "volume-not-found"), Refusal::Next(_)));
        assert!(matches!(said(Code::FailedPrecondition, "volume-in-use"), Refusal::Wrong(_)));
        assert!(matches!(said(Code::InvalidArgument, "invalid-request"), Refusal::Wrong(_)));
        // It may have bound the claim all the same.
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Internal, Code::Cancelled] {
            assert!(matches!(said(code, ""), Refusal::Failed(_)), "{code:?}");
        }
    }

    #[test]
    fn a_claim_whose_hook_is_silent_stands() {
        assert!(matches!(said(Code::FailedPrecondition, "claim-hook-timeout"), Refusal::NotBound(_)));
        assert!(matches!(said(Code::FailedPrecondition, "sandbox-deleting"), Refusal::Failed(_)));
    }
}
