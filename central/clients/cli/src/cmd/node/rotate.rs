//! `roost node rotate`.

use std::time::Duration;

use roost_proto::model::Node;

use super::super::{App, Several};
use super::find;
use crate::cli::RotateNodeArgs;
use crate::client::Client;
use crate::error::CliError;

/// Between two looks at a node that is to have a new certificate.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Has nodes renew their certificates.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: &RotateNodeArgs) -> Result<(), CliError> {
    let mut several = Several::new(app);
    for name in &args.nodes {
        let rotated = rotate(app.client()?, name, args).await;
        if several.take(rotated)?.is_some() {
            let done = if args.wait { "has a new certificate" } else { "was asked to renew its certificate" };
            app.console.line(&format!("{name} {done}"))?;
        }
    }
    several.finish()
}

async fn rotate(client: &Client, name: &str, args: &RotateNodeArgs) -> Result<(), CliError> {
    let before = client.rotate_node(&find(client, name).await?.id).await?;
    if !args.wait {
        return Ok(());
    }
    tokio::time::timeout(args.timeout, renewed(client, &before)).await.unwrap_or_else(|_| {
        Err(CliError::usage(
            format!("node {name} has no new certificate yet"),
            "it goes on trying: see `roost node get`, and the log of its roostd",
        ))
    })
}

async fn renewed(client: &Client, before: &Node) -> Result<(), CliError> {
    while client.get_node(&before.id).await?.certificate == before.certificate {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    Ok(())
}
