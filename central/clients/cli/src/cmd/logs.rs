//! `roost sandbox logs`.

use futures::TryStreamExt as _;
use http_body_util::BodyExt as _;

use super::App;
use crate::cli::LogsArgs;
use crate::client::{ClientError, LogQuery};
use crate::error::CliError;

/// Prints the output of a sandbox as it comes.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: LogsArgs) -> Result<(), CliError> {
    let query = LogQuery { is_display: args.display, is_followed: args.follow, tail: args.tail };
    let body = app.client()?.logs(&args.sandbox, query).await?;
    let mut chunks = body.into_data_stream();
    let broken = |error: hyper::Error| ClientError::Broken { what: "reading the log".into(), source: error.into() };
    while let Some(chunk) = chunks.try_next().await.map_err(broken)? {
        app.console.raw(&chunk)?;
    }
    Ok(())
}
