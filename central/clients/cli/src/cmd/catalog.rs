//! `roost template` and `roost profile`.

mod read;

pub(super) use read::manifest;

use roost_proto::model::{Profile, Template};

use super::{App, Several};
use crate::cli::{ApplyArgs, CatalogCommand, GetManifestArgs, RemoveManifestArgs};
use crate::client::Manifest;
use crate::error::CliError;
use crate::output::printer::Listing;
use crate::output::{Column, ListArgs, Printer, Text, human};

/// How one kind of manifest stands in a list.
pub(super) trait Rows: Manifest {
    /// The columns.
    const COLUMNS: &'static [Column];
    /// The cells of one row.
    fn row(&self) -> Vec<Text>;
}

impl Rows for Template {
    const COLUMNS: &'static [Column] = &[
        Column::new("NAME"),
        Column::new("IMAGE"),
        Column::new("PROFILE"),
        Column::new("SCREEN"),
        Column::wide("WINDOW MANAGER"),
        Column::wide("COMMAND"),
        Column::new("DESCRIPTION"),
    ];

    fn row(&self) -> Vec<Text> {
        vec![
            self.name.to_string().into(),
            self.image.to_string().into(),
            self.profile.to_string().into(),
            format!("{}x{}", self.display.width_px, self.display.height_px).into(),
            format!("{:?}", self.window_manager).to_ascii_lowercase().into(),
            self.command.join(" ").into(),
            self.description.clone().into(),
        ]
    }
}

impl Rows for Profile {
    const COLUMNS: &'static [Column] = &[
        Column::new("NAME"),
        Column::new("CPU"),
        Column::new("MEMORY"),
        Column::wide("CPU LIMIT"),
        Column::new("MEMORY LIMIT"),
        Column::new("SHM"),
        Column::wide("DISK LIMIT"),
        Column::wide("PIDS"),
        Column::wide("NESTED USERNS"),
        Column::new("DESCRIPTION"),
    ];

    fn row(&self) -> Vec<Text> {
        let resources = &self.resources;
        let limit = match resources.cpu_limit_millis {
            0 => String::new(),
            millis => human::cores(millis),
        };
        let disk_limit = match resources.disk_limit_bytes {
            0 => String::new(),
            bytes => human::size(bytes),
        };
        vec![
            self.name.to_string().into(),
            human::cores(resources.cpu_request_millis).into(),
            human::size(resources.memory_request_bytes).into(),
            limit.into(),
            human::size(resources.memory_limit_bytes).into(),
            human::size(resources.shm_bytes).into(),
            disk_limit.into(),
            resources.pids_limit.to_string().into(),
            if self.isolation.nested_user_namespaces { "yes" } else { "no" }.into(),
            self.description.clone().into(),
        ]
    }
}

/// Runs one verb.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run<M: Rows>(app: &App, command: CatalogCommand) -> Result<(), CliError> {
    match command {
        CatalogCommand::Ls(args) => list::<M>(app, args).await,
        CatalogCommand::Get(args) => get::<M>(app, &args).await,
        CatalogCommand::Apply(args) => apply::<M>(app, &args).await,
        CatalogCommand::Rm(args) => remove::<M>(app, &args).await,
    }
}

async fn list<M: Rows>(app: &App, args: ListArgs) -> Result<(), CliError> {
    let manifests = app.client()?.list_manifests::<M>().await?;
    let name = |manifest: &M| manifest.name().to_owned();
    let empty = format!("no {}; make one: roost {} apply -f FILE", M::KIND.plural, M::KIND.noun);
    let listing = Listing { columns: M::COLUMNS, row: &M::row, name: &name, empty: &empty };
    Ok(Printer::list(&app.console, args).items(&manifests, &listing)?)
}

/// People get the file that `apply` takes, which is also the whole truth.
async fn get<M: Rows>(app: &App, args: &GetManifestArgs) -> Result<(), CliError> {
    let printer = Printer::new(&app.console, args.output);
    let mut several = Several::new(app);
    let mut found = Vec::new();
    for name in &args.names {
        let manifest = app.client()?.get_manifest::<M>(name.as_str()).await;
        found.extend(several.take(manifest.map_err(CliError::from))?);
    }
    match found.as_slice() {
        [] => {}
        many if many.len() > 1 && printer.is_data() => printer.data(&many)?,
        all => {
            for manifest in all {
                let text = read::to_toml(manifest)?;
                printer.one(manifest, manifest.name(), || text)?;
            }
        }
    }
    several.finish()
}

/// All files are read and checked before the first is sent.
async fn apply<M: Rows>(app: &App, args: &ApplyArgs) -> Result<(), CliError> {
    let manifests = args.files.iter().map(|path| read::manifest::<M>(path)).collect::<Result<Vec<_>, _>>()?;
    let mut several = Several::new(app);
    for manifest in &manifests {
        let applied = app.client()?.put_manifest(manifest).await;
        if several.take(applied.map_err(CliError::from))?.is_some() {
            app.console.line(&format!("{} {} applied", M::KIND.noun, manifest.name()))?;
        }
    }
    several.finish()
}

async fn remove<M: Rows>(app: &App, args: &RemoveManifestArgs) -> Result<(), CliError> {
    let mut several = Several::new(app);
    for name in &args.names {
        let removed = app.client()?.delete_manifest::<M>(name.as_str()).await;
        if several.take(removed.map_err(CliError::from))?.is_some() {
            app.console.line(&format!("{} {name} deleted", M::KIND.noun))?;
        }
    }
    several.finish()
}
