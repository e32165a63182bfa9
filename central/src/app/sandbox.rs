//! Sandboxes: create, find, wish.

use roost_proto::id::{NodeId, SandboxId, SandboxName, TemplateName};
use roost_proto::model::{
    CreateSandbox, Page, Phase, PullPolicy, Sandbox, SandboxSpec, UpdateSandbox, Validate, resolve,
};
use tokio_util::sync::CancellationToken;

use super::{Conflict, Noun, RequestError, Scope};
use crate::changes::{Cursor, Subscription};
use crate::clock;
use crate::place::{self, Request};
use crate::secret::sha256_hex;
use crate::store::{
    CreateSandboxError, Created, Intent, NewResources, NewSandbox, NewWish, PlaceFn, SandboxFilter, SandboxKey,
    SetRunStateError, UpdateSandboxError,
};

/// Lengths that an idempotency key may have.
const KEY_LEN: std::ops::RangeInclusive<usize> = 8..=128;

/// A creation as it was asked for.
#[derive(Debug)]
pub struct Create {
    /// The body.
    pub body: CreateSandbox,
    /// The idempotency key, if one was given.
    pub idempotency_key: Option<String>,
}

/// A wish as it was asked for.
#[derive(Debug)]
pub struct Wish {
    /// What is wished.
    pub intent: Intent,
    /// The idempotency key, if one was given.
    pub idempotency_key: Option<String>,
}

impl From<Intent> for Wish {
    fn from(intent: Intent) -> Self {
        Self { intent, idempotency_key: None }
    }
}

/// A change of requests and limits as it was asked for.
#[derive(Debug)]
pub struct Update {
    /// The body.
    pub body: UpdateSandbox,
    /// Generation that the sandbox must have, if one was given.
    pub if_generation: Option<u64>,
    /// The idempotency key, if one was given.
    pub idempotency_key: Option<String>,
}

/// Which sandboxes a list shows.
#[derive(Debug, Default)]
pub struct ListSandboxes {
    /// Only those in this phase.
    pub phase: Option<Phase>,
    /// Only those of this template.
    pub template: Option<TemplateName>,
    /// Only those on this node.
    pub node: Option<NodeId>,
    /// From the page before.
    pub page_token: Option<String>,
    /// Most on one page, 1-500.
    pub page_size: u32,
}

/// What a path calls a sandbox; an id looks like no name that is accepted.
fn key(text: &str) -> Result<SandboxKey, RequestError> {
    if let Ok(id) = text.parse() {
        return Ok(SandboxKey::Id(id));
    }
    text.parse().map(SandboxKey::Name).map_err(|_| RequestError::not_found(Noun::Sandbox, text))
}

/// Names a request for its idempotency key: another body gives another digest.
/// White space in the body makes no other request.
pub(super) fn digest(request: &impl serde::Serialize) -> Result<String, RequestError> {
    let text = serde_json::to_vec(request);
    let text = text.map_err(|error| RequestError::field("body", format!("cannot be kept as JSON: {error}")))?;
    Ok(sha256_hex(&text))
}

pub(super) fn check_key(key: &str) -> Result<(), RequestError> {
    if KEY_LEN.contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(RequestError::field("Idempotency-Key", "must have 8 to 128 visible ASCII characters"))
}

/// What placement counts of a spec.
pub(super) fn request_of(spec: &SandboxSpec) -> Request {
    Request {
        cpu_millis: spec.resources.cpu_request_millis,
        memory_bytes: spec.resources.memory_request_bytes,
        image: spec.image.clone(),
        // A name without a registry is only on nodes.
        may_pull: spec.pull_policy != PullPolicy::Never && spec.image.registry().is_some(),
    }
}

pub(super) fn check_name(name: &SandboxName) -> Result<(), RequestError> {
    if name.as_str().parse::<SandboxId>().is_ok() {
        return Err(RequestError::field("name", "must not look like a sandbox id: choose another name"));
    }
    Ok(())
}

impl Scope {
    /// Accepts a sandbox: placed and stored; its node starts it.
    ///
    /// # Errors
    /// See [`RequestError`]: unknown template or profile, bad fields, a taken name or
    /// reused key, and no node that takes it.
    pub async fn create_sandbox(&self, create: Create) -> Result<Created, RequestError> {
        let Create { body, idempotency_key } = create;
        body.validate().map_err(RequestError::Invalid)?;
        body.name.as_ref().map_or(Ok(()), check_name)?;
        idempotency_key.as_deref().map_or(Ok(()), check_key)?;
        let digest = digest(&body)?;
        let template = self.template(&body.template).await?;
        let profile = self.profile(body.profile.as_ref().unwrap_or(&template.profile)).await?;
        let mut spec = resolve(&template, &profile, &body.env);
        spec.lifetime = body.lifetime.over(&spec.lifetime);
        spec.validate().map_err(RequestError::Invalid)?;
        let request = request_of(&spec);
        let now = clock::now_unix_ms();
        let phase = |node: &NodeId| self.central.live.phase(node, now);
        let new = NewSandbox {
            hint: self.central.rooms.choose(&self.tenant, &request, phase, self.central.strategy),
            id: SandboxId::random(),
            name: body.name,
            spec,
            idempotency: idempotency_key.map(|key| (key, digest)),
            now_unix_ms: now,
        };
        self.store().create_sandbox(new, self.placing(request)).await.map_err(|error| match error {
            CreateSandboxError::NameTaken(name) => Conflict::NameTaken(name.into()).into(),
            CreateSandboxError::KeyReused => Conflict::KeyReused.into(),
            CreateSandboxError::Place(error) => error.into(),
            CreateSandboxError::Store(error) => error.into(),
        })
    }

    pub(super) fn placing(&self, request: Request) -> PlaceFn {
        let (central, tenant) = (self.central.clone(), self.tenant.clone());
        Box::new(move |rooms| {
            let now = clock::now_unix_ms();
            central.rooms.keep(&tenant, &request.image, rooms);
            place::choose(rooms, |node| central.live.phase(node, now), &request, central.strategy)
        })
    }

    /// One sandbox by id or name.
    ///
    /// # Errors
    /// [`RequestError::NotFound`] and [`RequestError::Store`].
    pub async fn sandbox(&self, name: &str) -> Result<Sandbox, RequestError> {
        let Some(mut sandbox) = self.store().sandbox(key(name)?).await? else {
            return Err(self.ended(name).await?);
        };
        self.central.live.overlay(&mut sandbox);
        Ok(sandbox)
    }

    /// What is said of a sandbox that is not there.
    async fn ended(&self, name: &str) -> Result<RequestError, RequestError> {
        Ok(match self.store().ending(key(name)?).await? {
            Some(ending) => RequestError::Ended { name: name.into(), ending },
            None => RequestError::not_found(Noun::Sandbox, name),
        })
    }

    /// One page of sandboxes in the order of their creation.
    ///
    /// # Errors
    /// A page token that is none, and [`RequestError::Store`].
    pub async fn sandboxes(&self, list: ListSandboxes) -> Result<Page<Sandbox>, RequestError> {
        let after = list.page_token.as_deref().map(read_page_token).transpose()?;
        let filter = SandboxFilter { phase: list.phase, template: list.template, node: list.node, after };
        // One more than asked tells whether there is a next page.
        let size = usize::try_from(list.page_size).unwrap_or(usize::MAX);
        let mut items = self.store().sandboxes(filter, list.page_size.saturating_add(1)).await?;
        let more = items.len() > size;
        items.truncate(size);
        items.iter_mut().for_each(|sandbox| self.central.live.overlay(sandbox));
        let next_page_token = items.last().filter(|_| more).map(page_token);
        Ok(Page { items, next_page_token })
    }

    /// Changes what is wanted of a sandbox.
    ///
    /// # Errors
    /// [`RequestError::NotFound`], [`Conflict::Deleting`] and [`RequestError::Store`].
    pub async fn wish(&self, name: &str, wish: Wish) -> Result<Created, RequestError> {
        let Wish { intent, idempotency_key } = wish;
        idempotency_key.as_deref().map_or(Ok(()), check_key)?;
        let digest = digest(&(name, intent))?;
        let new = NewWish {
            intent,
            idempotency: idempotency_key.map(|key| (key, digest)),
            now_unix_ms: clock::now_unix_ms(),
        };
        let changed = self.store().set_run_state(key(name)?, new).await;
        let mut wished = changed.map_err(|error| match error {
            SetRunStateError::NotFound => RequestError::not_found(Noun::Sandbox, name),
            SetRunStateError::Deleting => Conflict::Deleting(name.into()).into(),
            SetRunStateError::NotRunning => Conflict::NotReady(format!(
                "sandbox {name} does not run, so that it cannot be paused: `roost sandbox start` first"
            ))
            .into(),
            SetRunStateError::KeyReused => Conflict::KeyReused.into(),
            SetRunStateError::Store(error) => error.into(),
        })?;
        self.central.live.overlay(&mut wished.sandbox);
        Ok(wished)
    }

    /// Changes requests, limits and times; the node applies them without a restart.
    ///
    /// # Errors
    /// See [`RequestError`]: no such sandbox, bad fields, another generation, a
    /// reused key, and a node without room for larger requests.
    pub async fn update_sandbox(&self, name: &str, update: Update) -> Result<Created, RequestError> {
        let Update { body, if_generation, idempotency_key } = update;
        idempotency_key.as_deref().map_or(Ok(()), check_key)?;
        // With the sandbox in it: one key is one request.
        let digest = digest(&(name, &body, if_generation))?;
        let new = NewResources {
            change: body,
            if_generation,
            idempotency: idempotency_key.map(|key| (key, digest)),
            now_unix_ms: clock::now_unix_ms(),
        };
        let mut updated = self.store().set_resources(key(name)?, new).await.map_err(|error| match error {
            UpdateSandboxError::NotFound => RequestError::not_found(Noun::Sandbox, name),
            UpdateSandboxError::Deleting => Conflict::Deleting(name.into()).into(),
            UpdateSandboxError::KeyReused => Conflict::KeyReused.into(),
            UpdateSandboxError::Generation { held } => {
                Conflict::Generation { name: name.into(), wanted: if_generation.unwrap_or_default(), held }.into()
            }
            UpdateSandboxError::Invalid(errors) => RequestError::Invalid(errors),
            UpdateSandboxError::Place(error) => error.into(),
            UpdateSandboxError::Store(error) => error.into(),
        })?;
        self.central.live.overlay(&mut updated.sandbox);
        Ok(updated)
    }

    /// Follows the changes of sandboxes; filter them with [`Scope::owns`].
    #[must_use]
    pub fn watch(&self, after: Option<Cursor>) -> Subscription {
        self.central.changes.subscribe(after)
    }

    /// Cancelled when central shuts down: endless answers end with it.
    #[must_use]
    pub fn ending(&self) -> CancellationToken {
        self.central.tasks.ending().clone()
    }

    /// Whether an event is this tenant's to see.
    #[must_use]
    pub fn owns(&self, event: &crate::changes::Event) -> bool {
        event.tenant == self.tenant
    }

    /// A sandbox of an event with its usage of this moment.
    #[must_use]
    pub fn with_usage(&self, sandbox: &Sandbox) -> Sandbox {
        let mut sandbox = sandbox.clone();
        self.central.live.overlay(&mut sandbox);
        sandbox
    }

    /// Every sandbox of the tenant, or only one, for the begin of a watch.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn all_sandboxes(&self, only: Option<&SandboxId>) -> Result<Vec<Sandbox>, RequestError> {
        let mut found = match only {
            Some(id) => Vec::from_iter(self.store().sandbox(SandboxKey::Id(id.clone())).await?),
            None => self.store().sandboxes(SandboxFilter::default(), u32::MAX).await?,
        };
        found.iter_mut().for_each(|sandbox| self.central.live.overlay(sandbox));
        Ok(found)
    }
}

fn page_token(last: &Sandbox) -> String {
    format!("{}.{}", last.created_at_unix_ms, last.id)
}

fn read_page_token(token: &str) -> Result<(u64, SandboxId), RequestError> {
    let parse = || {
        let (created, id) = token.split_once('.')?;
        Some((created.parse().ok()?, id.parse().ok()?))
    };
    parse().ok_or_else(|| {
        RequestError::field("page_token", "is not from an answer of this API: leave it out to begin anew")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_8_to_128_visible_characters_are_accepted() {
        assert!(check_key("12345678").is_ok());
        for bad in ["1234567", &"x".repeat(129), "1234567 8", "1234567\u{e9}"] {
            assert!(check_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_that_looks_like_an_id_is_refused() {
        assert!(check_name(&"sbx-0123456789abcdef".parse().unwrap()).is_err());
        assert!(check_name(&"sbx-mine".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_page_token_that_we_did_not_make_is_refused_by_name() {
        let id = SandboxId::random();
        assert_eq!(read_page_token(&format!("7.{id}")).unwrap(), (7, id));
        let Err(RequestError::Invalid(errors)) = read_page_token("x") else { panic!("accepted") };
        assert_eq!(errors[0].field, "page_token");
    }
}
