//! `roost volume`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use roost_proto::id::{CheckpointId, TenantId, VolumeName};
use roost_proto::model::VolumeMount;

use crate::output::{ListArgs, OutputArgs};
use crate::values::{self, ValueError};

/// `roost volume`.
#[derive(Debug, Args)]
pub(crate) struct VolumeArgs {
    #[command(flatten)]
    pub(crate) place: VolumePlace,
    #[command(subcommand)]
    pub(crate) command: VolumeCommand,
}

/// Where volumes are.
#[derive(Debug, Clone, Args)]
pub(crate) struct VolumePlace {
    /// The daemon's socket: volumes are on its node
    /// [default: /run/roost/roostd.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) node_socket: Option<PathBuf>,
    /// Who owns them [default: the node's own; `ls`: everybody]
    #[arg(long, global = true)]
    pub(crate) tenant: Option<TenantId>,
}

/// The verbs of a volume.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume: a home that outlives sandboxes
    #[command(after_help = "\
Examples:
  sudo roost volume create home --size 10Gi
  sudo roost sandbox claim desks --node-socket --volume home:/home/agent")]
    Create(CreateVolumeArgs),
    /// List volumes, with what they hold and who has them
    #[command(visible_alias = "list", after_help = "Example:\n  sudo roost volume ls -o wide")]
    Ls(ListArgs),
    /// Show a volume
    #[command(after_help = "Example:\n  sudo roost volume get home")]
    Get(GetVolumeArgs),
    /// Make a volume larger, also while it is in use
    #[command(after_help = "Example:\n  sudo roost volume resize home --size 20Gi")]
    Resize(ResizeVolumeArgs),
    /// Save a volume; a sandbox that writes to it stands still for a moment
    #[command(after_help = "Example:\n  sudo roost volume checkpoint home")]
    Checkpoint(GetVolumeArgs),
    /// List what was saved of a volume, also of one that is no more
    #[command(after_help = "Example:\n  sudo roost volume checkpoints home")]
    Checkpoints(ListCheckpointsArgs),
    /// Make a new volume of what was saved
    #[command(after_help = "\
Examples:
  sudo roost volume restore home --to home-2
  sudo roost volume restore home --to home-2 --checkpoint ckp-0123456789abcdef --size 20Gi")]
    Restore(RestoreVolumeArgs),
    /// Make a copy of a volume as it is now
    #[command(after_help = "Example:\n  sudo roost volume clone home --to home-2")]
    Clone(CloneVolumeArgs),
    /// Remove volumes with everything in them
    #[command(
        visible_alias = "delete",
        after_help = "\
Examples:
  sudo roost volume rm home --yes
  sudo roost volume rm home --yes --checkpoint    save it first"
    )]
    Rm(RemoveVolumesArgs),
}

/// `create`.
#[derive(Debug, Args)]
pub(crate) struct CreateVolumeArgs {
    /// Its name
    pub(crate) volume: VolumeName,
    /// What it holds at most, enforced by the kernel
    #[arg(long, value_name = "BYTES", default_value = "10Gi", value_parser = values::bytes)]
    pub(crate) size: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetVolumeArgs {
    /// The volume
    pub(crate) volume: VolumeName,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `resize`.
#[derive(Debug, Args)]
pub(crate) struct ResizeVolumeArgs {
    /// The volume
    pub(crate) volume: VolumeName,
    /// What it is to hold at most
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    pub(crate) size: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveVolumesArgs {
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    pub(crate) volumes: Vec<VolumeName>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Save each first; one that cannot be saved stays
    #[arg(long)]
    pub(crate) checkpoint: bool,
}

/// `checkpoints`.
#[derive(Debug, Args)]
pub(crate) struct ListCheckpointsArgs {
    /// The volume
    pub(crate) volume: VolumeName,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreVolumeArgs {
    /// The volume that was saved
    pub(crate) volume: VolumeName,
    /// The new volume
    #[arg(long, value_name = "VOLUME")]
    pub(crate) to: VolumeName,
    /// Which of its checkpoints [default: the newest]
    #[arg(long, value_name = "ID")]
    pub(crate) checkpoint: Option<CheckpointId>,
    /// What the new one holds at most [default: as the old one]
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    pub(crate) size: Option<u64>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `clone`.
#[derive(Debug, Args)]
pub(crate) struct CloneVolumeArgs {
    /// The volume
    pub(crate) volume: VolumeName,
    /// The copy
    #[arg(long, value_name = "VOLUME")]
    pub(crate) to: VolumeName,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Reads `NAME:PATH` or `NAME:PATH:ro`.
///
/// # Errors
/// Anything else.
pub(crate) fn mount(text: &str) -> Result<VolumeMount, ValueError> {
    let error = || ValueError::Volume(text.into());
    let (name, rest) = text.split_once(':').ok_or_else(error)?;
    let (path, read_only) = match rest.rsplit_once(':') {
        Some((path, "ro")) => (path, true),
        Some((path, "rw")) => (path, false),
        _ => (rest, false),
    };
    if !path.starts_with('/') {
        return Err(error());
    }
    Ok(VolumeMount { name: name.parse().map_err(|_| error())?, path: path.into(), read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_given_with_its_path_and_perhaps_read_only() {
        let read = |text| mount(text).map(|m| (m.name.to_string(), m.path, m.read_only)).unwrap();
        assert_eq!(read("home:/home/agent"), ("home".into(), "/home/agent".into(), false));
        assert_eq!(read("home:/home/agent:ro"), ("home".into(), "/home/agent".into(), true));
        assert_eq!(read("a:/b:c:rw"), ("a".into(), "/b:c".into(), false));
        for bad in ["home", "home:", "home:relative", ":/x", "HOME:/x", "../x:/x"] {
            assert!(mount(bad).unwrap_err().to_string().contains("NAME:/PATH"), "{bad}");
        }
    }
}
