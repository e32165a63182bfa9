//! People who use the node and repeat each request until it was answered.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use roost_proto::id::{ClaimId, SandboxId};
use roost_proto::model::{Binding, ClaimContract, Restart, RestartPolicy, SandboxSpec};
use roost_proto::node::{self as wire, claim_sandbox_request::From};
use roost_tests::client::request;
use roost_tests::node::spec;
use roost_tests::{NodeClient, Result};
use tonic::Code;

use crate::book::{Entry, Hours, World};

/// The pool that people claim from.
pub(crate) const POOL: &str = "desks";
/// Sandboxes that one of the people has at most.
const OWN_MAX: usize = 2;
/// Pause before an unanswered request is repeated, and how long an answer may
/// take before it counts as none.
const PAUSE: Duration = Duration::from_millis(30);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How often a claim is tried while the pool is empty.
const CLAIM_TRIES: u32 = 100;
/// Disk limit of those that have one, in bytes.
const DISK_LIMIT: u64 = 64 << 20;

/// Comes back soon, however often it ends.
pub(crate) fn restart() -> Restart {
    Restart {
        application: RestartPolicy::Always,
        window_manager: RestartPolicy::Always,
        display: RestartPolicy::Always,
        backoff_ms: 100,
        max_backoff_ms: 1_000,
        stable_ms: 1_000,
    }
}

/// A desktop without a window manager.
pub(crate) fn plain(is_limited: bool) -> Result<SandboxSpec> {
    let mut spec = SandboxSpec { restart: restart(), stop_grace_ms: 300, ..spec("bare")? };
    spec.resources.disk_limit_bytes = if is_limited { DISK_LIMIT } else { 0 };
    Ok(spec)
}

/// A desktop that waits for its claim and notes each one that it is given.
pub(crate) fn waiting() -> Result<SandboxSpec> {
    let hook = r#"exec /run/roost/claim/await /bin/sh -c 'echo "$TOKEN" >>/home/agent/tokens'"#;
    Ok(SandboxSpec {
        command: vec!["/bin/sh".into(), "-c".into(), hook.into()],
        claim: ClaimContract { hook: true, ..ClaimContract::default() },
        ..plain(false)?
    })
}

/// The claim that is bound to `claim_id`: a repetition is the same.
pub(crate) fn binding(claim_id: &ClaimId) -> wire::ClaimSandboxRequest {
    let binding = Binding {
        env: [("TOKEN".into(), claim_id.to_string())].into(),
        secrets: ["token".into()].into(),
        hostname: Some("desk".into()),
        ..Binding::new(claim_id.clone())
    };
    wire::ClaimSandboxRequest {
        from: Some(From::Pool(POOL.into())),
        binding: Some(binding.into()),
        secrets: [("token".to_owned(), claim_id.to_string().into_bytes())].into(),
        files: vec![wire::BoundFile { path: "/home/agent/claim".into(), content: b"claimed".to_vec(), mode: 0o600 }],
        ..wire::ClaimSandboxRequest::default()
    }
}

/// What may be said for now and not for good, by a daemon that is killed,
/// whose containerd is away or whose ledger failed once.
fn is_for_later(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal)
}

/// Repeats a call until it has an answer that says what became of it.
async fn insist<T, F>(world: &World, mut call: impl FnMut(NodeClient) -> F) -> std::result::Result<T, tonic::Status>
where
    F: Future<Output = std::result::Result<T, tonic::Status>>,
{
    loop {
        match tokio::time::timeout(ANSWER_LIMIT, call(world.client())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) if !is_for_later(status.code()) => return Err(status),
            // Without an answer nobody knows what became of it.
            Ok(Err(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Counts somebody as busy.
struct Busy<'a>(&'a World);

impl<'a> Busy<'a> {
    fn begin(world: &'a World) -> Self {
        world.busy.send_modify(|busy| *busy += 1);
        Self(world)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.send_modify(|busy| *busy -= 1);
    }
}

/// One of the people, until the end.
pub(crate) async fn live(world: Arc<World>, number: u32, mut rng: StdRng) -> Result<()> {
    let (mut hours, mut own) = (world.hours(), Vec::new());
    loop {
        {
            let busy = Busy::begin(&world);
            let now = *hours.borrow_and_update();
            match now {
                Hours::Over => return Ok(()),
                Hours::Open => act(&world, &mut own, &mut rng).await.map_err(|e| format!("person {number}: {e}"))?,
                Hours::Closed => {
                    drop(busy);
                    hours.changed().await?;
                    continue;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(10..300))).await;
    }
}

async fn act(world: &World, own: &mut Vec<SandboxId>, rng: &mut StdRng) -> Result<()> {
    let any = (!own.is_empty()).then(|| rng.random_range(0..own.len()));
    match (rng.random_range(0..10), any) {
        (0..4, _) if own.len() < OWN_MAX => own.push(create(world, rng.random_bool(0.3)).await?),
        (4..7, _) if own.len() < OWN_MAX => own.extend(claim(world).await?),
        (..6, Some(index)) => delete(world, &own.swap_remove(index)).await?,
        (6 | 7, Some(index)) => stop_or_start(world, &own[index]).await?,
        (_, Some(index)) => restart_one(world, &own[index]).await?,
        _ => {}
    }
    Ok(())
}

async fn create(world: &World, is_limited: bool) -> Result<SandboxId> {
    let (id, spec) = (SandboxId::random(), plain(is_limited)?);
    let request =
        wire::CreateSandboxRequest { sandbox_id: id.to_string(), spec: Some(spec.into()), name: String::new() };
    insist(world, |mut client| {
        let request = request.clone();
        async move { client.api.create_sandbox(request).await }
    })
    .await?;
    let mut book = world.book();
    book.created += 1;
    book.sandboxes.insert(id.clone(), Entry { runs: true, is_limited, claim: None, is_marked: false });
    Ok(id)
}

/// Claims a desktop; none where the pool stays empty.
async fn claim(world: &World) -> Result<Option<SandboxId>> {
    let claim_id = ClaimId::random();
    let request = binding(&claim_id);
    for _ in 0..CLAIM_TRIES {
        let claimed = insist(world, |mut client| {
            let request = request.clone();
            async move { client.api.claim_sandbox(request).await }
        });
        match claimed.await {
            Ok(answer) => {
                let desired = answer.into_inner().sandbox.and_then(|sandbox| sandbox.desired);
                let id: SandboxId = desired.ok_or("an answer without sandbox")?.sandbox_id.parse()?;
                world.book().claimed(claim_id, id.clone());
                return Ok(Some(id));
            }
            // None is ready, or it is claimed and could not be bound yet.
            Err(status) if matches!(status.code(), Code::ResourceExhausted | Code::FailedPrecondition) => {
                tokio::time::sleep(PAUSE * 3).await;
            }
            Err(status) => return Err(format!("{claim_id} is refused: {status}").into()),
        }
    }
    // It may stand all the same: claimed, and not bound in all that time.
    let dump =
        insist(world, |mut client| async move { client.api.list_sandboxes(wire::ListSandboxesRequest {}).await });
    let list = dump.await?.into_inner().sandboxes;
    let has = list
        .into_iter()
        .filter_map(|sandbox| sandbox.desired)
        .find(|desired| desired.binding.as_ref().is_some_and(|binding| binding.claim_id == claim_id.as_str()));
    if let Some(desired) = has {
        return Err(format!("{claim_id} has {} and is not bound", desired.sandbox_id).into());
    }
    world.book().refused += 1;
    Ok(None)
}

async fn delete(world: &World, id: &SandboxId) -> Result<()> {
    let deleted = insist(world, |mut client| {
        let request = request(id);
        async move { client.api.delete_sandbox(request).await }
    });
    match deleted.await {
        Ok(_) => {}
        // An attempt without an answer was carried out.
        Err(status) if status.code() == Code::NotFound => {}
        Err(status) => return Err(format!("{id} is not deleted: {status}").into()),
    }
    let mut book = world.book();
    book.sandboxes.remove(id);
    book.deleted.insert(id.clone());
    Ok(())
}

async fn stop_or_start(world: &World, id: &SandboxId) -> Result<()> {
    let runs = world.book().sandboxes.get(id).is_some_and(|entry| entry.runs);
    let answer = insist(world, |mut client| {
        let request = request(id);
        async move { if runs { client.api.stop_sandbox(request).await } else { client.api.start_sandbox(request).await } }
    });
    answer.await.map_err(|status| format!("{id} is not stopped or started: {status}"))?;
    let mut book = world.book();
    book.changed += 1;
    if let Some(entry) = book.sandboxes.get_mut(id) {
        entry.runs = !runs;
    }
    Ok(())
}

async fn restart_one(world: &World, id: &SandboxId) -> Result<()> {
    let answer = insist(world, |mut client| {
        let request = request(id);
        async move { client.api.restart_sandbox(request).await }
    });
    answer.await.map_err(|status| format!("{id} is not restarted: {status}"))?;
    let mut book = world.book();
    book.changed += 1;
    if let Some(entry) = book.sandboxes.get_mut(id) {
        entry.runs = true;
    }
    Ok(())
}
