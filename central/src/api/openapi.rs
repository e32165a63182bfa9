//! The API describes itself.

use std::sync::LazyLock;

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use roost_proto::PROTOCOL_VERSION;
use serde::Serialize;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::{
    batch, claim, exec, files, image, node, orphan, pool, profile, sandbox, stream, support, template, token, watch,
};

#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "Roost", description = "Desktops for AI agents, launched straight on GPU nodes."),
    security(("token" = [])),
    modifiers(&Token),
    paths(
        sandbox::list, sandbox::create, sandbox::get, sandbox::update, sandbox::delete,
        batch::create, batch::delete, sandbox::start, sandbox::stop, sandbox::restart, sandbox::pause, sandbox::resume,
        stream::screenshot, stream::logs, exec::exec, files::download, files::upload, watch::watch,
        node::list, node::get, node::delete, node::rotate, node::readmit,
        orphan::list, orphan::adopt, orphan::remove,
        support::doctor, support::starts, support::node, support::central,
        image::list, image::import, image::remove, image::pull::pull,
        image::prune::prune, image::manage::list, image::manage::pin, image::manage::export,
        token::list, token::create, token::delete,
        pool::list, pool::get, pool::put, pool::delete, claim::create, claim::batch,
        template::list, template::get, template::put, template::delete,
        profile::list, profile::get, profile::put, profile::delete,
        version, document,
    )
)]
struct Document;

/// Adds the scheme of the token.
#[derive(Debug)]
struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        api.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// The whole document.
pub(super) fn spec() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// What runs here.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Version {
    /// Release of central.
    version: &'static str,
    /// Version of NodeLink that it speaks.
    node_link_version: u32,
}

/// The release of central.
#[utoipa::path(get, path = "/api/v1/version", tag = "about", security(()),
    responses((status = 200, description = "The release", body = Version)))]
pub(super) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION"), node_link_version: PROTOCOL_VERSION })
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "about", security(()),
    responses((status = 200, description = "OpenAPI 3", body = String, content_type = "application/json")))]
pub(super) async fn document() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| spec().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}
