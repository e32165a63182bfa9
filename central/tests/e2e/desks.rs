//! Pools and claims of a node without containers.

use std::collections::BTreeMap;

use roost_proto::convert::WireEnum;
use roost_proto::id::SandboxId;
use roost_proto::model::{BindingState, Observed, Phase, RunState};
use roost_proto::node::claim_sandbox_request::From;
use roost_proto::node::{BindStep, ClaimSandboxRequest, ClaimSandboxResponse, DesiredSandbox, Pool, PoolSpec, Sandbox};
use roost_proto::types::SandboxObserved;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

/// What the node keeps.
#[derive(Default)]
pub(crate) struct Desks {
    /// By name.
    pub(crate) pools: BTreeMap<String, PoolSpec>,
    /// How often a pool was put.
    pub(crate) puts: u32,
    /// Desktops that are ready, of whatever pool.
    pub(crate) ready: u32,
    /// Claims that brought something, as they came.
    pub(crate) asked: Vec<ClaimSandboxRequest>,
    /// What was claimed, by claim.
    pub(crate) claimed: BTreeMap<String, Sandbox>,
    /// What central wants, by sandbox.
    pub(crate) desired: BTreeMap<String, DesiredSandbox>,
    /// Binds and says nothing.
    pub(crate) is_silent: bool,
    /// Its hooks do not answer.
    pub(crate) is_mute: bool,
    /// Starts fail.
    pub(crate) is_broken: bool,
    revision: u64,
}

fn refused(code: tonic::Code, word: &'static str, message: &str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("roost-code", MetadataValue::from_static(word));
    Status::with_metadata(code, message, metadata)
}

impl Desks {
    pub(crate) fn standing(&self, spec: &PoolSpec) -> Pool {
        Pool { spec: Some(spec.clone()), ready: self.ready, hits: self.claimed.len() as u64, ..Pool::default() }
    }

    /// As a node does it: the same claim again is the same desktop.
    pub(crate) fn claim(&mut self, request: &ClaimSandboxRequest) -> Result<ClaimSandboxResponse, Status> {
        let binding = request.binding.clone().unwrap();
        let id = binding.claim_id.clone();
        self.asked.push(request.clone());
        if !self.claimed.contains_key(&id) {
            let sandbox = self.take(request)?;
            self.claimed.insert(id.clone(), sandbox);
        }
        if self.is_mute {
            return Err(refused(tonic::Code::FailedPrecondition, "claim-hook-timeout", "the hook did not answer"));
        }
        let sandbox = self.claimed.get_mut(&id).unwrap();
        let state =
            BindingState { claim_id: id.parse().unwrap(), bound: true, hook_exit_code: Some(7), bound_at_unix_ms: 1 };
        sandbox.observed.as_mut().unwrap().binding = Some(state.into());
        let steps = vec![BindStep { name: "files".into(), duration_us: 900 }];
        Ok(ClaimSandboxResponse { sandbox: Some(sandbox.clone()), steps })
    }

    fn take(&mut self, request: &ClaimSandboxRequest) -> Result<Sandbox, Status> {
        let (id, spec) = match request.from.clone().unwrap() {
            From::Pool(pool) => {
                let empty = || refused(tonic::Code::ResourceExhausted, "pool-empty", "the pool has no desktop ready");
                let spec = self.pools.get(&pool).ok_or_else(empty)?.spec.clone();
                self.ready = self.ready.checked_sub(1).ok_or_else(empty)?;
                (SandboxId::random(), spec)
            }
            From::SandboxId(id) => {
                let found = self.desired.get(&id).ok_or_else(|| Status::not_found("no such sandbox"))?;
                (id.parse().unwrap(), found.spec.clone())
            }
        };
        self.revision += 1;
        let desired = DesiredSandbox {
            sandbox_id: id.to_string(),
            generation: 2,
            run_state: RunState::Running.to_wire(),
            spec,
            tenant: request.tenant.clone(),
            name: request.name.clone(),
            binding: request.binding.clone(),
            ..DesiredSandbox::default()
        };
        let observed = Observed { phase: Phase::Ready, revision: self.revision, ..Observed::pending() };
        let observed = SandboxObserved::new(&id, observed);
        Ok(Sandbox { desired: Some(desired), observed: Some(observed), from_central: true, created_at_unix_ms: 1 })
    }

    /// Does what is desired at once, and says what came of it.
    pub(crate) fn follow(&mut self, wanted: &DesiredSandbox) -> SandboxObserved {
        self.desired.insert(wanted.sandbox_id.clone(), wanted.clone());
        self.revision += 1;
        let phase = match RunState::from_wire(wanted.run_state).unwrap() {
            RunState::Deleted => Phase::Gone,
            RunState::Stopped => Phase::Stopped,
            RunState::Running if self.is_broken => Phase::Failed,
            RunState::Running => Phase::Ready,
        };
        if phase == Phase::Gone {
            self.claimed.retain(|_, s| s.desired.as_ref().unwrap().sandbox_id != wanted.sandbox_id);
        }
        let reason = (phase == Phase::Failed).then(|| "workload-exited".to_owned());
        let observed = Observed {
            phase,
            reason,
            revision: self.revision,
            observed_generation: wanted.generation,
            ..Observed::pending()
        };
        SandboxObserved::new(&wanted.sandbox_id.parse().unwrap(), observed)
    }
}
