//! `roost volume`.

mod checkpoint;

use roost_proto::id::VolumeName;
use roost_proto::model::{NodeCondition, Volume, VolumePhase};
use roost_proto::node::{
    CloneVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, ListVolumesRequest, ResizeVolumeRequest,
    RestoreVolumeRequest, VolumeRequest,
};

use super::{App, Several, confirm, socket_path};
use crate::cli::{RemoveVolumesArgs, VolumeArgs, VolumeCommand, VolumePlace};
use crate::error::CliError;
use crate::node_socket::{NodeSocket, NodeSocketError};
use crate::output::printer::Listing;
use crate::output::{Card, Column, Console, ListArgs, OutputArgs, Printer, Text, Tone, human};

const COLUMNS: [Column; 8] = [
    Column::new("NAME"),
    Column::new("TENANT"),
    Column::new("STATUS"),
    Column::new("USED"),
    Column::new("SIZE"),
    Column::new("ATTACHED TO"),
    Column::new("AGE"),
    Column::wide("LIMIT BY"),
];

/// Runs one verb.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: VolumeArgs) -> Result<(), CliError> {
    let VolumeArgs { place, command } = args;
    let tenant = place.tenant.as_ref().map(ToString::to_string).unwrap_or_default();
    match command {
        VolumeCommand::Ls(args) => list(app, place, tenant, args).await,
        VolumeCommand::Rm(args) => remove(app, place, &tenant, args).await,
        VolumeCommand::Checkpoint(args) => checkpoint::take(app, place, tenant, args).await,
        VolumeCommand::Checkpoints(args) => checkpoint::list(app, place, tenant, args).await,
        VolumeCommand::Restore(args) => {
            let request = RestoreVolumeRequest {
                tenant,
                name: args.to.to_string(),
                from: args.volume.to_string(),
                checkpoint_id: args.checkpoint.map(String::from).unwrap_or_default(),
                size_bytes: args.size.unwrap_or_default(),
            };
            let volume = volume(connect(app, place).await?.volumes().restore_volume(request).await)?;
            let line = || format!("volume {} made of what was saved of {}", volume.name, args.volume);
            Ok(Printer::new(&app.console, args.output).one(&volume, volume.name.as_str(), line)?)
        }
        VolumeCommand::Clone(args) => {
            let request = CloneVolumeRequest { tenant, name: args.volume.to_string(), to: args.to.to_string() };
            let volume = volume(connect(app, place).await?.volumes().clone_volume(request).await)?;
            let line = || format!("volume {} made as a copy of {}", volume.name, args.volume);
            Ok(Printer::new(&app.console, args.output).one(&volume, volume.name.as_str(), line)?)
        }
        VolumeCommand::Create(args) => {
            let request = CreateVolumeRequest { tenant, name: args.volume.to_string(), size_bytes: args.size };
            let made = connect(app, place).await?.volumes().create_volume(request).await;
            let volume = volume(made)?;
            let size = human::size(volume.size_bytes);
            let line = || format!("volume {} made, {size} by {}", volume.name, volume.limit_by);
            Ok(Printer::new(&app.console, args.output).one(&volume, volume.name.as_str(), line)?)
        }
        VolumeCommand::Get(args) => {
            let request = VolumeRequest { tenant, name: args.volume.to_string() };
            let volume = volume(connect(app, place).await?.volumes().get_volume(request).await)?;
            show(app, &volume, args.output)
        }
        VolumeCommand::Resize(args) => {
            let request = ResizeVolumeRequest { tenant, name: args.volume.to_string(), size_bytes: args.size };
            let volume = volume(connect(app, place).await?.volumes().resize_volume(request).await)?;
            let line = || resized(&volume);
            Ok(Printer::new(&app.console, args.output).one(&volume, volume.name.as_str(), line)?)
        }
    }
}

/// Disks may be slow: a call may take as long as it needs.
async fn connect(app: &App, place: VolumePlace) -> Result<NodeSocket, NodeSocketError> {
    NodeSocket::connect_patiently(socket_path(app, place.node_socket)).await
}

type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

fn volume(answer: Answer<roost_proto::node::Volume>) -> Result<Volume, NodeSocketError> {
    Ok(answer?.into_inner().try_into()?)
}

/// What a new size came to.
fn resized(volume: &Volume) -> String {
    let size = human::size(volume.size_bytes);
    match volume.usage.filter(|usage| usage.limit_bytes < volume.size_bytes) {
        None => format!("volume {} has {size} now", volume.name),
        Some(usage) => format!(
            "volume {} gets {size} when it is attached next; until then it has {}",
            volume.name,
            human::size(usage.limit_bytes)
        ),
    }
}

async fn list(app: &App, place: VolumePlace, tenant: String, args: ListArgs) -> Result<(), CliError> {
    let answer = connect(app, place).await?.volumes().list_volumes(ListVolumesRequest { tenant }).await;
    let listed = answer.map_err(NodeSocketError::from)?.into_inner().volumes;
    let volumes =
        listed.into_iter().map(Volume::try_from).collect::<Result<Vec<_>, _>>().map_err(NodeSocketError::from)?;
    let name = |volume: &Volume| volume.name.to_string();
    let empty = "no volumes on this node; make one: roost volume create NAME --size 10Gi";
    let listing = Listing { columns: &COLUMNS, row: &row, name: &name, empty };
    Ok(Printer::list(&app.console, args).items(&volumes, &listing)?)
}

fn tone(volume: &Volume) -> Tone {
    match volume.phase {
        VolumePhase::Lost => Tone::Bad,
        _ if volume.conditions.iter().any(|condition| condition.is_true) => Tone::Bad,
        VolumePhase::Deleting => Tone::Busy,
        VolumePhase::Available | VolumePhase::Attached => Tone::Good,
    }
}

/// The phase, and what is wrong.
fn status(volume: &Volume) -> String {
    let wrong = volume.conditions.iter().filter(|condition| condition.is_true).map(|condition| condition.kind.as_str());
    std::iter::once(volume.phase.as_str()).chain(wrong).collect::<Vec<_>>().join(",")
}

fn row(volume: &Volume) -> Vec<Text> {
    let holders: Vec<String> = volume.attachments.iter().map(|a| a.sandbox_id.to_string()).collect();
    vec![
        volume.name.to_string().into(),
        volume.tenant.to_string().into(),
        Text::new(status(volume), tone(volume)),
        volume.usage.map(|usage| human::size(usage.used_bytes)).unwrap_or_default().into(),
        human::size(volume.size_bytes).into(),
        holders.join(",").into(),
        human::age(volume.created_at_unix_ms, human::now_unix_ms()).into(),
        volume.limit_by.clone().into(),
    ]
}

fn show(app: &App, volume: &Volume, output: OutputArgs) -> Result<(), CliError> {
    let text = || card(volume, &app.console);
    Ok(Printer::new(&app.console, output).one(volume, volume.name.as_str(), text)?)
}

fn card(volume: &Volume, console: &Console) -> String {
    let mut card = Card::new();
    card.field("Name", volume.name.to_string())
        .field("Tenant", volume.tenant.to_string())
        .field("Status", Text::new(status(volume), tone(volume)))
        .field("Size", format!("{}, by {}", human::size(volume.size_bytes), volume.limit_by))
        .field("Made", human::moment(volume.created_at_unix_ms, human::now_unix_ms()));
    if let Some(usage) = volume.usage {
        card.field("Used", format!("{} of {}", human::size(usage.used_bytes), human::size(usage.limit_bytes)));
        if usage.inodes_limit > 0 {
            card.field("Files", format!("{} of {}", usage.inodes_used, usage.inodes_limit));
        }
    }
    for attachment in &volume.attachments {
        let how = if attachment.read_only { ", read-only" } else { "" };
        card.field("Attached", format!("{} at {}{how}", attachment.sandbox_id, attachment.path));
    }
    for NodeCondition { kind, message, .. } in volume.conditions.iter().filter(|condition| condition.is_true) {
        card.field(kind, Text::new(message.clone(), Tone::Bad));
    }
    card.draw(console)
}

async fn remove(app: &App, place: VolumePlace, tenant: &str, args: RemoveVolumesArgs) -> Result<(), CliError> {
    if !args.yes {
        let names: Vec<&str> = args.volumes.iter().map(VolumeName::as_str).collect();
        confirm(&format!("Remove {} with everything in it?", names.join(", ")))?;
    }
    let socket = connect(app, place).await?;
    let mut several = Several::new(app);
    for name in &args.volumes {
        let request =
            DeleteVolumeRequest { tenant: tenant.to_owned(), name: name.to_string(), checkpoint: args.checkpoint };
        let removed = socket.volumes().delete_volume(request).await;
        if several.take(removed.map_err(|status| NodeSocketError::from(status).into()))?.is_some() {
            app.console.line(&format!("volume {name} deleted"))?;
        }
    }
    several.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::VolumeUsage;

    fn volume() -> Volume {
        let usage = VolumeUsage { used_bytes: 1 << 20, limit_bytes: 1 << 30, inodes_used: 3, inodes_limit: 100 };
        Volume {
            tenant: "local".parse().unwrap(),
            name: "home".parse().unwrap(),
            size_bytes: 1 << 30,
            limit_by: "loop".into(),
            created_at_unix_ms: 0,
            phase: VolumePhase::Available,
            usage: Some(usage),
            attachments: Vec::new(),
            conditions: Vec::new(),
        }
    }

    #[test]
    fn a_new_size_that_is_not_in_force_yet_is_told_with_the_old_one() {
        assert_eq!(resized(&volume()), "volume home has 1 GiB now");
        let grown = Volume { size_bytes: 2 << 30, ..volume() };
        assert_eq!(resized(&grown), "volume home gets 2 GiB when it is attached next; until then it has 1 GiB");
    }

    #[test]
    fn what_is_wrong_with_a_volume_stands_beside_its_phase() {
        let full = NodeCondition {
            kind: "VolumeFull".into(),
            is_true: true,
            reason: "no-space".into(),
            message: "volume home is full".into(),
        };
        let full = Volume { conditions: vec![full], ..volume() };
        assert_eq!((status(&full), tone(&full)), ("Available,VolumeFull".into(), Tone::Bad));
        assert_eq!(row(&full).len(), COLUMNS.len());
    }
}
