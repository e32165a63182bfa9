//! roost.central.v1 for gRPC callers: the same verbs over the same app layer,
//! with health and reflection.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use roost_proto::central::sandbox_service_server::{SandboxService, SandboxServiceServer};
use roost_proto::central::{
    CreateSandboxRequest, DeleteSandboxResponse, GetSandboxRequest, ListSandboxesRequest, ListSandboxesResponse,
    Sandbox as WireSandbox, UpdateSandboxRequest,
};
use roost_proto::convert::{InvalidMessage, WireEnum, parse};
use roost_proto::model::{CreateSandbox, Sandbox, UpdateSandbox};
use roost_proto::types::SandboxObserved;
use roost_proto::{FILE_DESCRIPTOR_SET, central};
use tokio::sync::broadcast::error::RecvError;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

use crate::api::problem::ApiError;
use crate::app::{Central, Create, ListSandboxes, RequestError, Scope, Update, Wish};
use crate::changes::SandboxEvent;
use crate::store::Intent;

/// Items on a page when the caller does not say, and at most.
const PAGE_SIZE: u32 = 100;
const PAGE_SIZE_MAX: u32 = 500;

/// Routes of all gRPC services.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(central: &Arc<Central>) -> axum::Router<S> {
    let (health, service) = tonic_health::server::health_reporter();
    let mut routes =
        Routes::new(SandboxServiceServer::new(Sandboxes { central: central.clone() })).add_service(service);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => routes = routes.add_service(reflection),
        Err(error) => tracing::error!(%error, "no gRPC reflection: the descriptors are damaged"),
    }
    central.tasks.spawn(tracing::info_span!("health"), async move {
        health.set_serving::<SandboxServiceServer<Sandboxes>>().await;
    });
    // Without its own fallback: REST answers for unknown paths.
    routes.into_axum_router().reset_fallback().with_state(())
}

struct Sandboxes {
    central: Arc<Central>,
}

impl Sandboxes {
    async fn scope(&self, metadata: &MetadataMap) -> Result<Scope, Status> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|header| header.split_once(' ')).map(|(_, token)| token.trim());
        Scope::authenticate(&self.central, token).await.map_err(status)
    }

    async fn wish(&self, request: Request<GetSandboxRequest>, intent: Intent) -> Result<Sandbox, Status> {
        let scope = self.scope(request.metadata()).await?;
        let GetSandboxRequest { sandbox, idempotency_key } = request.into_inner();
        let wish = Wish { intent, idempotency_key: given(idempotency_key) };
        Ok(scope.wish(&sandbox, wish).await.map_err(status)?.sandbox)
    }
}

/// The same error as REST, in gRPC's words: code by the HTTP status, the stable
/// code in the text.
fn status(error: RequestError) -> Status {
    let code = match &error {
        RequestError::Conflict(crate::app::Conflict::NameTaken(_)) => Some(Code::AlreadyExists),
        _ => None,
    };
    let problem = ApiError::from(error).into_problem();
    let code = code.unwrap_or(match problem.status {
        400 | 413 | 415 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        404 => Code::NotFound,
        409 | 412 => Code::FailedPrecondition,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    });
    let fields: Vec<String> = problem.errors.iter().map(ToString::to_string).collect();
    let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join("; ")) };
    Status::new(code, format!("{}: {}{fields}", problem.code, problem.detail))
}

fn to_wire(sandbox: Sandbox) -> WireSandbox {
    WireSandbox {
        observed: Some(SandboxObserved::new(&sandbox.id, sandbox.observed)),
        id: sandbox.id.into(),
        name: sandbox.name.map(Into::into).unwrap_or_default(),
        tenant: sandbox.tenant.into(),
        node_id: sandbox.node_id.into(),
        generation: sandbox.generation,
        run_state: sandbox.run_state.to_wire(),
        spec: Some(sandbox.spec.into()),
        created_at_unix_ms: sandbox.created_at_unix_ms,
        resources: sandbox.resources.map(Into::into),
        paused: sandbox.paused,
        lifetime: sandbox.lifetime.map(Into::into),
    }
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn read_create(request: CreateSandboxRequest) -> Result<Create, InvalidMessage> {
    let body = CreateSandbox {
        template: parse("template", &request.template)?,
        profile: given(request.profile).map(|text| parse("profile", &text)).transpose()?,
        name: given(request.name).map(|text| parse("name", &text)).transpose()?,
        env: request.env.into_iter().collect(),
        lifetime: request.lifetime.map(TryInto::try_into).transpose()?.unwrap_or_default(),
    };
    Ok(Create { body, idempotency_key: given(request.idempotency_key) })
}

#[tonic::async_trait]
impl SandboxService for Sandboxes {
    type WatchSandboxStream = Pin<Box<dyn Stream<Item = Result<WireSandbox, Status>> + Send>>;

    async fn create_sandbox(&self, request: Request<CreateSandboxRequest>) -> Result<Response<WireSandbox>, Status> {
        let scope = self.scope(request.metadata()).await?;
        let create = read_create(request.into_inner()).map_err(|error| status(RequestError::Invalid(error.0)))?;
        let created = scope.create_sandbox(create).await.map_err(status)?;
        Ok(Response::new(to_wire(created.sandbox)))
    }

    async fn update_sandbox(&self, request: Request<UpdateSandboxRequest>) -> Result<Response<WireSandbox>, Status> {
        let scope = self.scope(request.metadata()).await?;
        let UpdateSandboxRequest { sandbox, resources, if_generation, idempotency_key, lifetime } =
            request.into_inner();
        let invalid = |error: InvalidMessage| status(RequestError::Invalid(error.0));
        let lifetime = lifetime.map(TryInto::try_into).transpose().map_err(invalid)?;
        let update = Update {
            body: UpdateSandbox { resources: resources.map(Into::into), lifetime },
            if_generation: (if_generation != 0).then_some(if_generation),
            idempotency_key: given(idempotency_key),
        };
        Ok(Response::new(to_wire(scope.update_sandbox(&sandbox, update).await.map_err(status)?.sandbox)))
    }

    async fn get_sandbox(&self, request: Request<GetSandboxRequest>) -> Result<Response<WireSandbox>, Status> {
        let scope = self.scope(request.metadata()).await?;
        Ok(Response::new(to_wire(scope.sandbox(&request.get_ref().sandbox).await.map_err(status)?)))
    }

    async fn list_sandboxes(
        &self,
        request: Request<ListSandboxesRequest>,
    ) -> Result<Response<ListSandboxesResponse>, Status> {
        let scope = self.scope(request.metadata()).await?;
        let ListSandboxesRequest { page_size, page_token } = request.into_inner();
        let page_size = if page_size == 0 { PAGE_SIZE } else { page_size };
        if page_size > PAGE_SIZE_MAX {
            return Err(status(RequestError::field("page_size", format!("use at most {PAGE_SIZE_MAX}"))));
        }
        let page_token = (!page_token.is_empty()).then_some(page_token);
        let list = ListSandboxes { page_token, page_size, ..ListSandboxes::default() };
        let page = scope.sandboxes(list).await.map_err(status)?;
        Ok(Response::new(ListSandboxesResponse {
            sandboxes: page.items.into_iter().map(to_wire).collect(),
            next_page_token: page.next_page_token.unwrap_or_default(),
        }))
    }

    async fn watch_sandbox(
        &self,
        request: Request<GetSandboxRequest>,
    ) -> Result<Response<Self::WatchSandboxStream>, Status> {
        let scope = self.scope(request.metadata()).await?;
        let ending = scope.ending().cancelled_owned();
        // Subscribed before the first look, so that nothing falls between.
        let mut subscription = scope.watch(None);
        let first = scope.sandbox(&request.get_ref().sandbox).await.map_err(status)?;
        let stream = async_stream::stream! {
            let id = first.id.clone();
            yield Ok(to_wire(first));
            loop {
                let event = match subscription.events.recv().await {
                    Ok(event) => event,
                    Err(RecvError::Closed) => {
                        yield Err(Status::unavailable("changes may have been missed: watch again"));
                        return;
                    }
                    Err(RecvError::Lagged(_)) => {
                        yield Err(Status::resource_exhausted("the watcher was too slow: watch again"));
                        return;
                    }
                };
                match &*event.event {
                    _ if !scope.owns(&event) || *event.event.id() != id => {}
                    SandboxEvent::Changed(sandbox) => yield Ok(to_wire(scope.with_usage(sandbox))),
                    // The end of the stream says that it is gone.
                    SandboxEvent::Gone(_) => return,
                }
            }
        };
        Ok(Response::new(Box::pin(stream.take_until(ending))))
    }

    async fn start_sandbox(&self, request: Request<GetSandboxRequest>) -> Result<Response<WireSandbox>, Status> {
        Ok(Response::new(to_wire(self.wish(request, Intent::Start).await?)))
    }

    async fn stop_sandbox(&self, request: Request<GetSandboxRequest>) -> Result<Response<WireSandbox>, Status> {
        Ok(Response::new(to_wire(self.wish(request, Intent::Stop).await?)))
    }

    async fn restart_sandbox(&self, request: Request<GetSandboxRequest>) -> Result<Response<WireSandbox>, Status> {
        Ok(Response::new(to_wire(self.wish(request, Intent::Restart).await?)))
    }

    async fn pause_sandbox(&self, request: Request<GetSandboxRequest>) -> Result<Response<WireSandbox>, Status> {
        Ok(Response::new(to_wire(self.wish(request, Intent::Pause).await?)))
    }

    async fn resume_sandbox(&self, request: Request<GetSandboxRequest>) -> Result<Response<WireSandbox>, Status> {
        Ok(Response::new(to_wire(self.wish(request, Intent::Resume).await?)))
    }

    async fn delete_sandbox(
        &self,
        request: Request<GetSandboxRequest>,
    ) -> Result<Response<central::DeleteSandboxResponse>, Status> {
        self.wish(request, Intent::Delete).await?;
        Ok(Response::new(DeleteSandboxResponse {}))
    }
}
