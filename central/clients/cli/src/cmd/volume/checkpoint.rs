//! What was saved of volumes.

use roost_proto::model::Checkpoint;
use roost_proto::node::VolumeRequest;

use super::connect;
use crate::cli::{GetVolumeArgs, ListCheckpointsArgs, VolumePlace};
use crate::cmd::App;
use crate::error::CliError;
use crate::node_socket::NodeSocketError;
use crate::output::printer::Listing;
use crate::output::{Column, Printer, Text, human};

const COLUMNS: [Column; 7] = [
    Column::new("CHECKPOINT"),
    Column::new("AGE"),
    Column::new("CONTENT"),
    Column::new("MOVED"),
    Column::new("STORED"),
    Column::new("STOOD STILL"),
    Column::wide("FILES"),
];

pub(super) async fn take(app: &App, place: VolumePlace, tenant: String, args: GetVolumeArgs) -> Result<(), CliError> {
    let request = VolumeRequest { tenant, name: args.volume.to_string() };
    let answer = connect(app, place).await?.volumes().checkpoint_volume(request).await;
    let taken = Checkpoint::try_from(answer.map_err(NodeSocketError::from)?.into_inner());
    let taken = taken.map_err(NodeSocketError::from)?;
    Ok(Printer::new(&app.console, args.output).one(&taken, taken.id.as_str(), || sentence(&taken))?)
}

/// One line for people: what was saved, and what it took.
fn sentence(taken: &Checkpoint) -> String {
    let (content, moved) = (human::size(taken.content_bytes), human::size(taken.moved_bytes));
    let mut text = format!("{} of volume {}: {content}, {moved} of it new", taken.id, taken.volume);
    if taken.frozen_us > 0 {
        text.push_str(&format!("; its sandbox stood still for {}", human::duration_us(taken.frozen_us)));
    }
    text
}

pub(super) async fn list(
    app: &App,
    place: VolumePlace,
    tenant: String,
    args: ListCheckpointsArgs,
) -> Result<(), CliError> {
    let request = VolumeRequest { tenant, name: args.volume.to_string() };
    let answer = connect(app, place).await?.volumes().list_checkpoints(request).await;
    let listed = answer.map_err(NodeSocketError::from)?.into_inner().checkpoints;
    let listed = listed.into_iter().map(Checkpoint::try_from).collect::<Result<Vec<_>, _>>();
    let listed = listed.map_err(NodeSocketError::from)?;
    let name = |checkpoint: &Checkpoint| checkpoint.id.to_string();
    let empty = "nothing was saved of this volume; save it: roost volume checkpoint NAME";
    let listing = Listing { columns: &COLUMNS, row: &row, name: &name, empty };
    Ok(Printer::list(&app.console, args.list).items(&listed, &listing)?)
}

fn row(checkpoint: &Checkpoint) -> Vec<Text> {
    let stood_still = if checkpoint.frozen_us == 0 { String::new() } else { human::duration_us(checkpoint.frozen_us) };
    vec![
        checkpoint.id.to_string().into(),
        human::age(checkpoint.created_at_unix_ms, human::now_unix_ms()).into(),
        human::size(checkpoint.content_bytes).into(),
        human::size(checkpoint.moved_bytes).into(),
        human::size(checkpoint.stored_bytes).into(),
        stood_still.into(),
        checkpoint.entries.to_string().into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_told_with_what_was_new_and_how_long_the_sandbox_stood_still() {
        let taken = Checkpoint {
            id: roost_proto::id::CheckpointId::random(),
            tenant: "local".parse().unwrap(),
            volume: "home".parse().unwrap(),
            created_at_unix_ms: 0,
            size_bytes: 1 << 30,
            entries: 3,
            content_bytes: 2 << 20,
            moved_bytes: 1 << 20,
            stored_bytes: 1,
            frozen_us: 0,
        };
        assert!(sentence(&taken).ends_with("of volume home: 2 MiB, 1 MiB of it new"));
        assert!(sentence(&Checkpoint { frozen_us: 2_500, ..taken }).ends_with("stood still for 2.5 ms"));
    }
}
