//! Changes of sandboxes as server-sent events.
//!
//! At least once: after (re)connecting a state may come twice, and an older one
//! may stand for an instant before the newest; the newest always comes last.

use std::convert::Infallible;

use axum::http::HeaderMap;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use futures::{Stream, StreamExt};
use roost_proto::id::SandboxId;
use roost_proto::model::{Problem, Sandbox};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::extract::{Caller, Query};
use super::problem::ApiError;
use crate::app::{RequestError, Scope};
use crate::changes::{Cursor, Event, SandboxEvent};

/// Which sandboxes are watched.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WatchQuery {
    /// Only this sandbox, by id or name; absent = all.
    sandbox: Option<String>,
}

/// Every change, beginning with the present state. `event: sandbox` carries a
/// sandbox, `event: gone` the id of one that is no more, `event: reset` comes
/// before a full list when `Last-Event-ID` is too old to be resumed.
#[utoipa::path(get, path = "/api/v1/watch/sandboxes", tag = "sandboxes", params(WatchQuery,
    ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event that was seen")),
    responses((status = 200, description = "Events", content_type = "text/event-stream", body = String),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn watch(
    Caller(scope): Caller,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    let last = headers.get("last-event-id");
    // An id that we did not make is a gap like any other.
    let resume = last.map(|id| id.to_str().ok().and_then(|id| id.parse::<Cursor>().ok()));
    let only = match query.sandbox {
        None => None,
        Some(name) => Some(watched(&scope, &name, resume.is_some()).await?),
    };
    let ending = scope.ending().cancelled_owned();
    let events = follow(scope, only, resume).take_until(ending).map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// The id of the one watched sandbox. A watcher that comes back may have missed
/// its end, so that its id need not exist any more.
async fn watched(scope: &Scope, name: &str, is_back: bool) -> Result<SandboxId, RequestError> {
    match name.parse() {
        Ok(id) if is_back => Ok(id),
        _ => Ok(scope.sandbox(name).await?.id),
    }
}

/// `resume`: none = a first visit, some(none) = back with an unknown position.
fn follow(
    scope: Scope,
    only: Option<SandboxId>,
    mut resume: Option<Option<Cursor>>,
) -> impl Stream<Item = SseEvent> + Send {
    async_stream::stream! {
        loop {
            let mut subscription = scope.watch(resume.flatten());
            match subscription.missed.take() {
                Some(missed) => {
                    for event in missed.iter().filter(|event| is_wanted(&scope, only.as_ref(), event)) {
                        yield shown(&scope, event);
                    }
                }
                None => {
                    if resume.is_some() {
                        yield SseEvent::default().event("reset").data("{}");
                    }
                    let Ok(sandboxes) = scope.all_sandboxes(only.as_ref()).await else {
                        tracing::warn!("watch ended: the store failed");
                        return;
                    };
                    for sandbox in &sandboxes {
                        yield sandbox_event(sandbox, subscription.cursor);
                    }
                }
            }
            loop {
                match subscription.events.recv().await {
                    Ok(event) if is_wanted(&scope, only.as_ref(), &event) => yield shown(&scope, &event),
                    Ok(_) => {}
                    // Too slow, or changes may have been missed: begin anew with a full list.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => break resume = Some(None),
                }
            }
        }
    }
}

fn is_wanted(scope: &Scope, only: Option<&SandboxId>, event: &Event) -> bool {
    scope.owns(event) && only.is_none_or(|id| id == event.event.id())
}

fn shown(scope: &Scope, event: &Event) -> SseEvent {
    match &*event.event {
        SandboxEvent::Changed(sandbox) => sandbox_event(&scope.with_usage(sandbox), event.cursor),
        SandboxEvent::Gone(id) => {
            SseEvent::default().event("gone").id(event.cursor.to_string()).data(json!({ "id": id }).to_string())
        }
    }
}

fn sandbox_event(sandbox: &Sandbox, cursor: Cursor) -> SseEvent {
    let event = SseEvent::default().event("sandbox").id(cursor.to_string());
    // JSON of the model cannot fail: its keys are text.
    event.data(serde_json::to_string(sandbox).unwrap_or_default())
}
