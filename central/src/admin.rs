//! For operators: `/live`, `/ready`, `/metrics`, on a listener of its own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::Central;
use crate::store::StoreError;
use crate::{clock, metrics};

/// Routes of the admin listener.
pub fn router(central: Arc<Central>) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(scrape))
        .with_state(central)
}

/// Ready while the database answers and no shutdown has begun.
async fn ready(State(central): State<Arc<Central>>) -> Response {
    if central.tasks.ending().is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    match central.store.system().ping().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => {
            tracing::warn!(error = crate::log::chain(&error), "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
    }
}

async fn scrape(State(central): State<Arc<Central>>) -> Response {
    match metrics_text(&central).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::warn!(error = crate::log::chain(&error), "scrape failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Every series, with the totals of this moment.
///
/// # Errors
/// None that a `String` could give; the type is that of the encoder.
pub(crate) async fn metrics_text(central: &Central) -> Result<String, std::fmt::Error> {
    // Without the database the totals stay as they were: what else there is to
    // see is wanted just then.
    let counted = count(central).await;
    central.metrics.set_store_up(counted.is_ok());
    if let Err(error) = counted {
        tracing::warn!(error = crate::log::chain(&error), "nodes and sandboxes cannot be counted");
    }
    central.metrics.encode()
}

async fn count(central: &Central) -> Result<(), StoreError> {
    let system = central.store.system();
    let now = clock::now_unix_ms();
    let nodes = system.heartbeat_times().await?;
    let nodes: Vec<_> = nodes.iter().map(|(id, _)| central.live.phase(id, now)).collect();
    central.metrics.set_totals(&nodes, &system.count_phases().await?, central.sessions.count());
    Ok(())
}
