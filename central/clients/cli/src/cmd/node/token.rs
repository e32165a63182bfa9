//! `roost node join-token`.

use std::time::Duration;

use super::super::{App, Several};
use crate::cli::{JoinTokenAction, JoinTokenArgs};
use crate::client::JoinTokenInfo;
use crate::error::CliError;
use crate::output::printer::Listing;
use crate::output::{Column, ListArgs, Printer, Text, human};

const COLUMNS: [Column; 2] = [Column::new("ID"), Column::new("EXPIRES")];

/// Makes, lists or removes join tokens.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: JoinTokenArgs) -> Result<(), CliError> {
    match args.action {
        None => create(app, &args).await,
        Some(JoinTokenAction::Ls(list_args)) => list(app, list_args).await,
        Some(JoinTokenAction::Rm { ids }) => {
            let mut several = Several::new(app);
            for id in &ids {
                let removed = app.client()?.delete_join_token(id).await;
                if several.take(removed.map_err(CliError::from))?.is_some() {
                    app.console.line(&format!("{id} removed"))?;
                }
            }
            several.finish()
        }
    }
}

/// The token alone goes to standard output, so that a script can keep it.
async fn create(app: &App, args: &JoinTokenArgs) -> Result<(), CliError> {
    if args.expires_in < Duration::from_secs(1) {
        return Err(CliError::usage("--expires-in is less than a second", "use for example 10m"));
    }
    let token = app.client()?.create_join_token(args.expires_in.as_secs()).await?;
    Printer::new(&app.console, args.output).one(&token, token.id.as_str(), || token.token.clone())?;
    if app.console.has_stdout_terminal {
        let lasts = human::age(human::now_unix_ms(), token.expires_at_unix_ms);
        app.console.note(&format!("Good for one node and {lasts}; shown only now. Its id is {}.", token.id));
    }
    Ok(())
}

async fn list(app: &App, args: ListArgs) -> Result<(), CliError> {
    let tokens = app.client()?.list_join_tokens().await?;
    let now = human::now_unix_ms();
    let row = |token: &JoinTokenInfo| -> Vec<Text> {
        vec![token.id.to_string().into(), human::moment(token.expires_at_unix_ms, now).into()]
    };
    let name = |token: &JoinTokenInfo| token.id.to_string();
    let listing = Listing { columns: &COLUMNS, row: &row, name: &name, empty: "no join tokens" };
    Ok(Printer::list(&app.console, args).items(&tokens, &listing)?)
}
