//! `roost config`.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::App;
use crate::cli::{ConfigCommand, SetContextArgs};
use crate::context::file::permission_warning;
use crate::context::{ConfigFile, Context, Token};
use crate::error::CliError;
use crate::output::printer::Listing;
use crate::output::{Column, ListArgs, Printer, Text, Tone};

/// Most bytes read as a token: more is the wrong file.
const MAX_TOKEN_BYTES: u64 = 8192;

/// Runs one verb; none of them calls a server.
///
/// # Errors
/// See [`CliError`].
pub(super) fn run(app: &App, command: ConfigCommand) -> Result<(), CliError> {
    let path = app.env.config_path()?;
    if let Some(warning) = permission_warning(&path) {
        app.console.warn(&warning);
    }
    let file = ConfigFile::load(&path)?;
    match command {
        ConfigCommand::GetContexts(args) => list(app, &file, args),
        ConfigCommand::UseContext { name } => use_context(app, file, &path, &name),
        ConfigCommand::SetContext(args) => set_context(app, file, &path, &args),
        ConfigCommand::DeleteContext { names } => delete(app, file, &path, &names),
        ConfigCommand::CurrentContext => current(app, &file),
        ConfigCommand::View => Ok(app.console.line(&masked(&file)?)?),
    }
}

/// A context as lists show it: without its token.
#[derive(Debug, Serialize)]
struct ListedContext {
    name: String,
    is_current: bool,
    server: String,
    token: String,
}

fn list(app: &App, file: &ConfigFile, args: ListArgs) -> Result<(), CliError> {
    const COLUMNS: [Column; 4] =
        [Column::new("CURRENT"), Column::new("NAME"), Column::new("SERVER"), Column::new("TOKEN")];
    let listed = |(name, context): (&String, &Context)| ListedContext {
        name: name.clone(),
        is_current: file.current_context.as_ref() == Some(name),
        server: context.server.to_string(),
        token: match (&context.token, &context.token_file) {
            (Some(_), _) => "kept here".into(),
            (None, Some(path)) => path.display().to_string(),
            (None, None) => "none".into(),
        },
    };
    let contexts: Vec<_> = file.contexts.iter().map(listed).collect();
    let row = |context: &ListedContext| -> Vec<Text> {
        let mark = if context.is_current { Text::new("*", Tone::Good) } else { Text::new(" ", Tone::Plain) };
        vec![mark, context.name.clone().into(), context.server.clone().into(), context.token.clone().into()]
    };
    let name = |context: &ListedContext| context.name.clone();
    let empty = "no contexts; make one: roost config set-context NAME --server URL --token-stdin";
    Ok(Printer::list(&app.console, args)
        .items(&contexts, &Listing { columns: &COLUMNS, row: &row, name: &name, empty })?)
}

fn use_context(app: &App, mut file: ConfigFile, path: &Path, name: &str) -> Result<(), CliError> {
    let server = file.get(name, path)?.server.clone();
    file.current_context = Some(name.to_owned());
    file.save(path)?;
    Ok(app.console.line(&format!("using context {name} ({server})"))?)
}

fn set_context(app: &App, mut file: ConfigFile, path: &Path, args: &SetContextArgs) -> Result<(), CliError> {
    let given = app.global.server.clone();
    let known = file.contexts.get(&args.name).cloned();
    let is_new = known.is_none();
    let mut context = match (known, given) {
        (Some(context), None) => context,
        (Some(context), Some(server)) if context.server.same_origin(&server) => Context { server, ..context },
        // Another server must not get the token that was meant for this one.
        (_, Some(server)) => Context::new(server),
        (None, None) => {
            let hint = format!("roost config set-context {} --server URL", args.name);
            return Err(CliError::usage(format!("there is no context \"{}\" yet: say where it is", args.name), hint));
        }
    };
    set_token(app, args, &mut context)?;
    if let Some(ca_file) = &args.ca_file {
        context.ca_file = Some(absolute(ca_file)?);
    }
    context.insecure = args.insecure.unwrap_or(context.insecure);
    let server = context.server.clone();
    file.contexts.insert(args.name.clone(), context);
    if args.is_current || file.current_context.is_none() {
        file.current_context = Some(args.name.clone());
    }
    file.save(path)?;
    let verb = if is_new { "created" } else { "changed" };
    let current = if file.current_context.as_ref() == Some(&args.name) { ", current" } else { "" };
    Ok(app.console.line(&format!("context {} {verb} ({server}{current})", args.name))?)
}

fn set_token(app: &App, args: &SetContextArgs, context: &mut Context) -> Result<(), CliError> {
    match (&app.global.token_file, args.token_stdin) {
        (Some(_), true) => {
            Err(CliError::usage("--token-file and --token-stdin exclude each other", "give one of them"))
        }
        (Some(path), false) => {
            // Read once now, so that a wrong path shows at once.
            Token::from_file(path)?;
            (context.token, context.token_file) = (None, Some(absolute(path)?));
            Ok(())
        }
        (None, true) => {
            if std::io::stdin().is_terminal() {
                app.console.note("Paste the token, then Enter and Ctrl-D.");
            }
            let mut text = String::new();
            let read = std::io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut text);
            read.map_err(|source| CliError::File { operation: "read", path: "standard input".into(), source })?;
            (context.token, context.token_file) = (Some(Token::parse(&text, "standard input")?), None);
            Ok(())
        }
        (None, false) => Ok(()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|source| CliError::File { operation: "find", path: path.into(), source })
}

fn delete(app: &App, mut file: ConfigFile, path: &Path, names: &[String]) -> Result<(), CliError> {
    for name in names {
        file.get(name, path)?;
    }
    file.contexts.retain(|name, _| !names.contains(name));
    file.current_context = file.current_context.filter(|name| !names.contains(name));
    file.save(path)?;
    names.iter().try_for_each(|name| Ok(app.console.line(&format!("context {name} deleted"))?))
}

fn current(app: &App, file: &ConfigFile) -> Result<(), CliError> {
    match &file.current_context {
        Some(name) => Ok(app.console.line(name)?),
        None => Err(CliError::usage("no context is current", "choose one: roost config use-context NAME")),
    }
}

/// The file as it stands, with every token masked.
fn masked(file: &ConfigFile) -> Result<String, CliError> {
    let mut file = file.clone();
    for context in file.contexts.values_mut().filter(|context| context.token.is_some()) {
        context.token = Some(Token::parse("***", "mask")?);
    }
    let text = toml::to_string_pretty(&file);
    let text =
        text.map_err(|error| crate::output::OutputError::Encode { format: "toml", problem: error.to_string() })?;
    Ok(text.trim_end().to_owned())
}
