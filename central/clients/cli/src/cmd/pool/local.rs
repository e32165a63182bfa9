//! Pools of the daemon on this machine.

use std::path::{Path, PathBuf};

use roost_proto::id::PoolName;
use roost_proto::model::{Pool, PoolSpec, Profile, Template, Validate, resolve};
use roost_proto::node::{ListPoolsRequest, PutPoolRequest, RemovePoolRequest};

use super::super::catalog::manifest;
use super::super::{App, Several, socket_path};
use super::wrong;
use crate::cli::SetPoolArgs;
use crate::error::CliError;
use crate::node_socket::{NodeSocket, NodeSocketError};
use crate::output::printer::Listing;
use crate::output::{Column, ListArgs, Printer, Text, Tone, human};

/// Central makes and removes pools with such names as it likes.
const CENTRALS: &str = "central-";

const COLUMNS: [Column; 9] = [
    Column::new("NAME"),
    Column::new("TEMPLATE"),
    Column::new("READY"),
    Column::new("STARTING"),
    Column::new("OUTDATED"),
    Column::new("HITS"),
    Column::new("MISSES"),
    Column::new("OLDEST"),
    Column::new("PROBLEM"),
];

pub(super) async fn set(app: &App, args: &SetPoolArgs, path: Option<PathBuf>) -> Result<(), CliError> {
    if args.pool.as_str().starts_with(CENTRALS) {
        let hint = "choose another name, or leave --node-socket out";
        return Err(CliError::usage(format!("names that begin with {CENTRALS} are those of central's pools"), hint));
    }
    let template: Template = manifest(file(args.template_file.as_deref(), "--template-file")?)?;
    let profile: Profile = manifest(file(args.profile_file.as_deref(), "--profile-file")?)?;
    let spec = PoolSpec {
        name: args.pool.clone(),
        spec: resolve(&template, &profile, &args.env.iter().cloned().collect()),
        min_ready: args.min_ready,
        max: args.max(),
        starts_at_once: args.starts_at_once,
        demand_window_ms: args.demand_window_ms(),
        update: args.update,
    };
    spec.validate().map_err(|errors| wrong(&errors))?;
    let socket = NodeSocket::connect(socket_path(app, path)).await?;
    let put = socket.api().put_pool(PutPoolRequest { spec: Some(spec.into()) }).await;
    let pool = Pool::try_from(put.map_err(NodeSocketError::from)?.into_inner()).map_err(NodeSocketError::from)?;
    let name = args.pool.as_str();
    Ok(Printer::new(&app.console, args.output).one(&pool, name, || format!("{name} set"))?)
}

fn file<'a>(path: Option<&'a Path>, option: &str) -> Result<&'a Path, CliError> {
    path.ok_or_else(|| CliError::usage(format!("--node-socket needs {option}"), "see roost pool set --help"))
}

pub(super) async fn list(app: &App, path: Option<PathBuf>, args: ListArgs) -> Result<(), CliError> {
    let socket = NodeSocket::connect(socket_path(app, path)).await?;
    let listed = socket.api().list_pools(ListPoolsRequest {}).await.map_err(NodeSocketError::from)?.into_inner().pools;
    let pools = listed.into_iter().map(Pool::try_from).collect::<Result<Vec<_>, _>>().map_err(NodeSocketError::from)?;
    let name = |pool: &Pool| pool.spec.name.to_string();
    let empty = "no pools on this node; see roost pool set --help";
    let listing = Listing { columns: &COLUMNS, row: &row, name: &name, empty };
    Ok(Printer::list(&app.console, args).items(&pools, &listing)?)
}

fn row(pool: &Pool) -> Vec<Text> {
    let min_ready = pool.spec.min_ready;
    let tone = if pool.ready < min_ready { Tone::Busy } else { Tone::Good };
    vec![
        pool.spec.name.to_string().into(),
        pool.spec.spec.template.to_string().into(),
        Text::new(format!("{} / {min_ready}", pool.ready), tone),
        pool.starting.to_string().into(),
        pool.outdated.to_string().into(),
        pool.hits.to_string().into(),
        pool.misses.to_string().into(),
        human::span(std::time::Duration::from_millis(pool.oldest_ready_ms)).into(),
        Text::new(pool.problem.clone().unwrap_or_default(), Tone::Bad),
    ]
}

pub(super) async fn remove(app: &App, path: Option<PathBuf>, pools: &[PoolName]) -> Result<(), CliError> {
    let socket = NodeSocket::connect(socket_path(app, path)).await?;
    let mut several = Several::new(app);
    for name in pools {
        let removed = socket.api().remove_pool(RemovePoolRequest { name: name.to_string() }).await;
        if several.take(removed.map_err(|status| NodeSocketError::from(status).into()))?.is_some() {
            app.console.line(&format!("pool {name} deleted"))?;
        }
    }
    several.finish()
}
