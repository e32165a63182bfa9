//! `roost pool`.

mod local;

use roost_proto::model::{FleetPool, FleetPoolStatus, PoolOnNode, Validate};

use super::{App, Several};
use crate::cli::{GetPoolArgs, ListPoolsArgs, PoolCommand, RemovePoolsArgs, SetPoolArgs};
use crate::error::CliError;
use crate::output::printer::Listing;
use crate::output::{Column, Printer, Text, Tone, human};

const COLUMNS: [Column; 9] = [
    Column::new("NAME"),
    Column::new("TEMPLATE"),
    Column::new("NODES"),
    Column::new("READY"),
    Column::new("STARTING"),
    Column::wide("OUTDATED"),
    Column::new("HITS"),
    Column::new("MISSES"),
    Column::new("PROBLEM"),
];

const NODE_COLUMNS: [Column; 9] = [
    Column::new("NODE"),
    Column::new("READY"),
    Column::new("STARTING"),
    Column::new("OUTDATED"),
    Column::new("HITS"),
    Column::new("MISSES"),
    Column::new("SEEN"),
    Column::wide("NAME THERE"),
    Column::new("PROBLEM"),
];

/// Runs one verb.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, command: PoolCommand) -> Result<(), CliError> {
    match command {
        PoolCommand::Set(args) => set(app, args).await,
        PoolCommand::Ls(args) => list(app, args).await,
        PoolCommand::Get(args) => get(app, args).await,
        PoolCommand::Rm(args) => remove(app, args).await,
    }
}

async fn set(app: &App, args: SetPoolArgs) -> Result<(), CliError> {
    let (max, demand_window_ms) = (args.max(), args.demand_window_ms());
    if let Some(path) = args.socket.clone() {
        return local::set(app, &args, path).await;
    }
    let Some(template) = args.template else {
        return Err(CliError::usage("a pool needs a template", "give --template NAME, see roost template ls"));
    };
    let pool = FleetPool {
        name: args.pool,
        template,
        profile: args.profile,
        env: args.env.into_iter().collect(),
        min_ready: args.min_ready,
        max,
        starts_at_once: args.starts_at_once,
        demand_window_ms,
        update: args.update,
        nodes: args.nodes.into_iter().collect(),
    };
    pool.validate().map_err(|errors| wrong(&errors))?;
    app.client()?.put_pool(&pool).await?;
    let name = pool.name.to_string();
    Ok(Printer::new(&app.console, args.output)
        .one(&pool, &name, || format!("{name} set; see roost pool get {name}"))?)
}

/// What the rules say of a command line.
fn wrong(errors: &[roost_proto::model::FieldError]) -> CliError {
    let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    CliError::usage(text, "see roost pool set --help")
}

async fn list(app: &App, args: ListPoolsArgs) -> Result<(), CliError> {
    if let Some(path) = args.socket {
        return local::list(app, path, args.list).await;
    }
    let pools = app.client()?.list_pools().await?;
    let name = |status: &FleetPoolStatus| status.pool.name.to_string();
    let empty = "no pools; make one: roost pool set NAME --template TEMPLATE --min-ready COUNT";
    let listing = Listing { columns: &COLUMNS, row: &row, name: &name, empty };
    Ok(Printer::list(&app.console, args.list).items(&pools, &listing)?)
}

/// All nodes together.
fn row(status: &FleetPoolStatus) -> Vec<Text> {
    let sum = |of: fn(&PoolOnNode) -> u64| status.nodes.iter().map(of).sum::<u64>();
    let ready = sum(|on| on.standing.ready.into());
    let wanted = u64::from(status.pool.min_ready) * status.nodes.len() as u64;
    let problem = status.nodes.iter().find_map(|on| Some(format!("{}: {}", on.node, on.standing.problem.as_ref()?)));
    vec![
        status.pool.name.to_string().into(),
        status.pool.template.to_string().into(),
        status.nodes.len().to_string().into(),
        Text::new(format!("{ready} / {wanted}"), if ready < wanted { Tone::Busy } else { Tone::Good }),
        sum(|on| on.standing.starting.into()).to_string().into(),
        sum(|on| on.standing.outdated.into()).to_string().into(),
        sum(|on| on.standing.hits).to_string().into(),
        sum(|on| on.standing.misses).to_string().into(),
        Text::new(problem.unwrap_or_default(), Tone::Bad),
    ]
}

async fn get(app: &App, args: GetPoolArgs) -> Result<(), CliError> {
    let status = app.client()?.get_pool(&args.pool).await?;
    let printer = Printer::list(&app.console, args.list);
    if printer.is_data() {
        return Ok(printer.data(&status)?);
    }
    let min_ready = status.pool.min_ready;
    let row = |on: &PoolOnNode| node_row(on, min_ready);
    let name = |on: &PoolOnNode| on.node.clone();
    let listing = Listing { columns: &NODE_COLUMNS, row: &row, name: &name, empty: "no node keeps this pool yet" };
    Ok(printer.items(&status.nodes, &listing)?)
}

fn node_row(on: &PoolOnNode, min_ready: u32) -> Vec<Text> {
    let standing = &on.standing;
    let tone = if standing.ready < min_ready { Tone::Busy } else { Tone::Good };
    let seen = on.seen_at_unix_ms.map(|at| human::age(at, human::now_unix_ms())).unwrap_or_default();
    vec![
        on.node.clone().into(),
        Text::new(format!("{} / {min_ready}", standing.ready), tone),
        standing.starting.to_string().into(),
        standing.outdated.to_string().into(),
        standing.hits.to_string().into(),
        standing.misses.to_string().into(),
        seen.into(),
        on.name.to_string().into(),
        Text::new(standing.problem.clone().unwrap_or_default(), Tone::Bad),
    ]
}

async fn remove(app: &App, args: RemovePoolsArgs) -> Result<(), CliError> {
    if let Some(path) = args.socket {
        return local::remove(app, path, &args.pools).await;
    }
    let mut several = Several::new(app);
    for name in &args.pools {
        let removed = app.client()?.delete_pool(name).await;
        if several.take(removed.map_err(CliError::from))?.is_some() {
            app.console.line(&format!("pool {name} deleted"))?;
        }
    }
    several.finish()
}
