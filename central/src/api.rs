//! REST under `/api/v1`, and gRPC on the same port.
//!
//! Handlers are thin: read the request strictly, call [`crate::app`], shape
//! the answer. Every error becomes a problem document in [`problem`].
//!
//! ```text
//!   observe (id, span, metrics, problems) → catch panic → shed load → time
//!     → token → idempotency key → handler → app
//! ```

mod batch;
mod claim;
mod exec;
mod extract;
mod files;
mod image;
mod keyed;
mod layers;
mod node;
mod openapi;
mod orphan;
mod page;
mod pool;
pub mod problem;
mod profile;
mod sandbox;
mod stream;
mod support;
mod template;
mod token;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, delete, get, post, put};
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::Central;
use crate::config::ApiConfig;
use crate::grpc;
use problem::ApiError;

/// Where everything of this version lives.
pub const PREFIX: &str = "/api/v1";

/// What handlers share.
#[derive(Debug, Clone)]
pub(crate) struct ApiState {
    central: Arc<Central>,
    body_max_bytes: usize,
    image_max_bytes: u64,
    request_timeout: Duration,
}

type Routes = Vec<(&'static str, MethodRouter<ApiState>)>;

/// Paths that need a token.
fn routes() -> Routes {
    vec![
        ("/sandboxes", get(sandbox::list).post(sandbox::create)),
        ("/sandboxes:batch", post(batch::create)),
        ("/sandboxes:batch-delete", post(batch::delete)),
        ("/sandboxes/{sandbox}", get(sandbox::get).patch(sandbox::update).delete(sandbox::delete)),
        ("/sandboxes/{sandbox}/start", post(sandbox::start)),
        ("/sandboxes/{sandbox}/stop", post(sandbox::stop)),
        ("/sandboxes/{sandbox}/restart", post(sandbox::restart)),
        ("/sandboxes/{sandbox}/pause", post(sandbox::pause)),
        ("/sandboxes/{sandbox}/resume", post(sandbox::resume)),
        ("/sandboxes/{sandbox}/screenshot", get(stream::screenshot)),
        ("/sandboxes/{sandbox}/logs", get(stream::logs)),
        ("/sandboxes/{sandbox}/exec", get(exec::exec)),
        ("/sandboxes/{sandbox}/files", get(files::download).put(files::upload)),
        ("/watch/sandboxes", get(watch::watch)),
        ("/nodes", get(node::list)),
        ("/nodes/{node}", get(node::get).delete(node::delete)),
        ("/nodes/{node}/rotate", post(node::rotate)),
        ("/nodes/{node}/readmit", post(node::readmit)),
        ("/nodes/{node}/images", get(image::manage::list).post(image::import).delete(image::remove)),
        ("/nodes/{node}/images/pin", put(image::manage::pin)),
        ("/nodes/{node}/images/export", get(image::manage::export)),
        ("/nodes/{node}/doctor", get(support::doctor)),
        ("/nodes/{node}/starts", get(support::starts)),
        ("/nodes/{node}/support", get(support::node)),
        ("/support", get(support::central)),
        ("/orphans", get(orphan::list)),
        ("/orphans/{sandbox}", delete(orphan::remove)),
        ("/orphans/{sandbox}/adopt", post(orphan::adopt)),
        ("/images", get(image::list)),
        ("/images/pull", post(image::pull::pull)),
        ("/images/prune", post(image::prune::prune)),
        ("/join-tokens", get(token::list).post(token::create)),
        ("/join-tokens/{token}", delete(token::delete)),
        ("/pools", get(pool::list)),
        ("/pools/{pool}", get(pool::get).put(pool::put).delete(pool::delete)),
        ("/claims", post(claim::create)),
        ("/claims:batch", post(claim::batch)),
        ("/templates", get(template::list)),
        ("/templates/{template}", get(template::get).put(template::put).delete(template::delete)),
        ("/profiles", get(profile::list)),
        ("/profiles/{profile}", get(profile::get).put(profile::put).delete(profile::delete)),
    ]
}

/// Paths that anybody may read.
fn open_routes() -> Routes {
    vec![("/version", get(openapi::version)), ("/openapi.json", get(openapi::document))]
}

/// The whole API.
pub fn router(central: &Arc<Central>, config: &ApiConfig) -> Router {
    let state = ApiState {
        central: central.clone(),
        body_max_bytes: config.body_max_bytes,
        image_max_bytes: config.image_max_bytes,
        request_timeout: Duration::from_millis(config.request_timeout_ms),
    };
    let nest = |routes: Routes| {
        routes.into_iter().fold(Router::new(), |all, (path, methods)| all.route(&format!("{PREFIX}{path}"), methods))
    };
    let authorize = from_fn_with_state(state.clone(), layers::authorize);
    let keyed = from_fn_with_state(state.clone(), keyed::keyed);
    let shed = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_| std::future::ready(ApiError::overloaded())))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(config.requests_max));
    nest(routes())
        .route_layer(keyed)
        .route_layer(authorize)
        .merge(nest(open_routes()))
        .merge(grpc::router(central))
        .fallback(|| std::future::ready(ApiError::no_route()))
        .method_not_allowed_fallback(|| std::future::ready(ApiError::no_method()))
        .layer(
            ServiceBuilder::new()
                .layer(from_fn_with_state(state.clone(), layers::observe))
                .layer(CatchPanicLayer::custom(layers::Panicked))
                .layer(shed)
                .layer(from_fn_with_state(state.clone(), layers::in_time)),
        )
        .layer(from_fn(layers::rendered))
        .with_state(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_openapi_document_lists_exactly_the_routes() {
        let served: BTreeSet<String> =
            routes().into_iter().chain(open_routes()).map(|(path, _)| format!("{PREFIX}{path}")).collect();
        let documented: BTreeSet<String> = openapi::spec().paths.paths.into_keys().collect();
        assert_eq!(served, documented);
    }
}
