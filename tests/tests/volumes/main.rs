//! Volumes on a real node: homes that move between sandboxes, outlive daemon
//! and ledger, and end at their limit.

mod checkpoints;

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use roost_proto::id::{ClaimId, SandboxId};
use roost_proto::model::{
    Binding, Observed, Phase, Restart, RestartPolicy, SandboxSpec, Volume, VolumeMount, VolumePhase,
};
use roost_proto::node::{self as wire, claim_sandbox_request::From};
use roost_tests::client::{ExecResult, request};
use roost_tests::node::spec;
use roost_tests::traces::mounts_under;
use roost_tests::{Result, TestNode, eventually};

pub(crate) const MIB: u64 = 1 << 20;
/// Size of the volumes of these tests, in bytes.
const SIZE: u64 = 64 * MIB;
/// How long a wish may take to be seen.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

pub(crate) fn mount(name: &str, path: &str) -> Result<VolumeMount> {
    Ok(VolumeMount { name: name.parse()?, path: path.into(), read_only: false })
}

pub(crate) fn with(volumes: Vec<VolumeMount>) -> Result<SandboxSpec> {
    Ok(SandboxSpec { volumes, ..spec("bare")? })
}

pub(crate) async fn make(node: &TestNode, name: &str) -> Result<Volume> {
    let request = wire::CreateVolumeRequest { tenant: String::new(), name: name.into(), size_bytes: SIZE };
    Ok(node.client.volumes.clone().create_volume(request).await?.into_inner().try_into()?)
}

pub(crate) fn named(name: &str) -> wire::VolumeRequest {
    wire::VolumeRequest { tenant: String::new(), name: name.into() }
}

pub(crate) async fn get(node: &TestNode, name: &str) -> Result<Volume> {
    Ok(node.client.volumes.clone().get_volume(named(name)).await?.into_inner().try_into()?)
}

pub(crate) async fn remove(node: &TestNode, name: &str) -> Result<()> {
    let request = wire::DeleteVolumeRequest { name: name.into(), ..Default::default() };
    node.client.volumes.clone().delete_volume(request).await?;
    Ok(())
}

async fn run(node: &TestNode, id: &SandboxId, script: &str) -> Result<ExecResult> {
    node.client.exec(id, &["/bin/sh", "-c", script]).await
}

pub(crate) async fn sh(node: &TestNode, id: &SandboxId, script: &str) -> Result<String> {
    let result = run(node, id, script).await?;
    assert_eq!(result.exit_code, 0, "{script}: {result:?}");
    Ok(result.stdout)
}

async fn claim(node: &TestNode, id: &SandboxId, binding: Binding) -> Result<Observed> {
    let request = wire::ClaimSandboxRequest {
        from: Some(From::SandboxId(id.to_string())),
        binding: Some(binding.into()),
        ..wire::ClaimSandboxRequest::default()
    };
    let sandbox = node.client.api.clone().claim_sandbox(request).await?.into_inner().sandbox;
    Ok(sandbox.and_then(|s| s.observed).ok_or("an answer without state")?.try_into()?)
}

fn binding(volumes: Vec<VolumeMount>) -> Binding {
    Binding { volumes, ..Binding::new(ClaimId::random()) }
}

/// Where the node keeps a volume.
fn dir(node: &TestNode, name: &str) -> PathBuf {
    node.state().join("volumes/local").join(name)
}

/// Lines of the workload's mount table for a path inside.
fn mounts(node: &TestNode, id: &SandboxId, path: &str) -> Vec<String> {
    let pids = node.cgroup(&format!("{id}/workload")).process_ids();
    let table = pids.iter().find_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok());
    let lines = table.unwrap_or_default();
    lines.lines().filter(|line| line.split(' ').nth(4) == Some(path)).map(str::to_owned).collect()
}

/// Files behind loop devices that lie below the node's root.
fn loop_files(node: &TestNode) -> Vec<PathBuf> {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = devices.filter_map(|d| std::fs::read_to_string(d.path().join("loop/backing_file")).ok());
    files.map(|file| PathBuf::from(file.trim())).filter(|file| file.starts_with(node.state())).collect()
}

async fn nothing_is_open(node: &TestNode) -> Result<()> {
    eventually("no volume is open", LIMIT, || async {
        let mounted = mounts_under(&node.state().join("volumes"));
        Ok((mounted.is_empty() && loop_files(node).is_empty()).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_home_moves_between_sandboxes_with_its_owners_and_has_one_writer() -> Result<()> {
    let node = TestNode::start().await?;
    let made = make(&node, "home").await?;
    assert_eq!((made.phase, made.size_bytes), (VolumePhase::Available, SIZE));
    assert_eq!(make(&node, "home").await?.created_at_unix_ms, made.created_at_unix_ms, "the same again");
    let first = node.client.create_ready(&with(vec![mount("home", "/home/agent")?])?).await?;
    let table = mounts(&node, &first, "/home/agent");
    assert_eq!(table.len(), 1, "{table:?}");
    assert!(table[0].contains("idmapped") && table[0].contains("nosuid") && table[0].contains("nodev"), "{table:?}");
    assert_eq!(
        sh(&node, &first, "id -u; echo hello >~/note; stat -c %u:%g ~ ~/note").await?,
        "1000\n1000:1000\n1000:1000\n"
    );
    let note = dir(&node, "home").join("disk/home/note").metadata()?;
    assert_eq!((note.uid(), note.gid()), (1000, 1000), "on disk, files belong to the ids of inside");

    let attached = get(&node, "home").await?;
    assert_eq!(attached.phase, VolumePhase::Attached);
    assert_eq!(attached.attachments[0].sandbox_id, first);
    let second = node.client.create(&with(vec![mount("home", "/home/agent")?])?).await.unwrap_err().to_string();
    assert!(second.contains("volume home") && second.contains(first.as_str()), "{second}");
    let reader = VolumeMount { read_only: true, ..mount("home", "/mnt/other")? };
    let reader = node.client.create_ready(&with(vec![reader])?).await?;
    assert_eq!(sh(&node, &reader, "cat /mnt/other/note").await?, "hello\n");
    assert_ne!(run(&node, &reader, "echo x >/mnt/other/new").await?.exit_code, 0, "it may only read");
    let refused = remove(&node, "home").await.unwrap_err().to_string();
    assert!(refused.contains("attached to"), "{refused}");

    node.client.api.clone().stop_sandbox(request(&first)).await?;
    node.client.reaches(&first, Phase::Stopped).await?;
    let held = node.client.create(&with(vec![mount("home", "/home/agent")?])?).await.unwrap_err().to_string();
    assert!(held.contains(first.as_str()), "a stopped sandbox keeps its home: {held}");
    node.client.api.clone().start_sandbox(request(&first)).await?;
    node.client.reaches(&first, Phase::Ready).await?;
    assert_eq!(sh(&node, &first, "cat ~/note").await?, "hello\n");
    node.client.delete(&reader).await?;
    node.client.delete(&first).await?;

    // Another sandbox has other ids outside.
    let filler = node.client.create_ready(&spec("bare")?).await?;
    let next = node.client.create_ready(&with(vec![mount("home", "/home/agent")?])?).await?;
    assert_eq!(sh(&node, &next, "cat ~/note; stat -c %u ~/note; echo more >>~/note").await?, "hello\n1000\n");
    node.client.delete(&filler).await?;
    node.clear().await?;
    nothing_is_open(&node).await?;
    remove(&node, "home").await?;
    eventually("nothing is left of it", LIMIT, || async {
        let removed = node.state().join("volumes/.removed");
        Ok((!dir(&node, "home").exists() && std::fs::read_dir(removed)?.next().is_none()).then_some(()))
    })
    .await?;
    assert_eq!(node.client.volumes.clone().get_volume(named("home")).await.unwrap_err().code(), tonic::Code::NotFound);
    Ok(())
}

#[tokio::test]
async fn a_claim_attaches_to_what_runs_and_again_to_what_its_policy_made() -> Result<()> {
    let node = TestNode::start().await?;
    for name in ["home", "data"] {
        make(&node, name).await?;
    }
    let restart = Restart { application: RestartPolicy::Always, backoff_ms: 100, ..Restart::default() };
    let id = node.client.create_ready(&SandboxSpec { restart, ..with(vec![mount("data", "/srv/data")?])? }).await?;
    let before = node.cgroup(&format!("{id}/workload")).process_ids();
    let wanted = binding(vec![mount("home", "/home/agent/work")?]);
    let observed = claim(&node, &id, wanted.clone()).await?;
    assert!(observed.binding.is_some_and(|binding| binding.bound));
    assert_eq!(mounts(&node, &id, "/home/agent/work").len(), 1);
    let after = node.cgroup(&format!("{id}/workload")).process_ids();
    assert!(before.iter().all(|pid| after.contains(pid)), "nothing was restarted");
    sh(&node, &id, "echo one >\"$HOME/work/a\"; echo two >/srv/data/b").await?;

    let overlapping = claim(&node, &id, binding(vec![mount("home", "/srv/data/x")?])).await.unwrap_err().to_string();
    assert!(overlapping.contains(id.as_str()), "{overlapping}");
    let starts = node.client.get(&id).await?.restarts;
    for pid in before.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
        let _ended = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    eventually("the workload was made again", LIMIT, || async {
        let observed = node.client.get(&id).await?;
        let is_again = observed.restarts > starts && observed.phase == Phase::Ready;
        Ok((is_again && observed.binding.is_some_and(|binding| binding.bound)).then_some(()))
    })
    .await?;
    assert_eq!(sh(&node, &id, "cat \"$HOME/work/a\" /srv/data/b").await?, "one\ntwo\n");
    assert_eq!(mounts(&node, &id, "/home/agent/work").len(), 1);
    node.clear().await?;
    nothing_is_open(&node).await
}

#[tokio::test]
async fn a_link_where_a_volume_is_to_be_is_refused_and_the_claim_can_be_sent_again() -> Result<()> {
    let node = TestNode::start().await?;
    make(&node, "home").await?;
    let id = node.client.create_ready(&spec("bare")?).await?;
    let outside = node.state().join("outside");
    std::fs::create_dir(&outside)?;
    sh(&node, &id, &format!("ln -s {} ~/link; mkdir ~/dir; ln -s /etc ~/dir/etc", outside.display())).await?;
    let wanted = binding(vec![mount("home", "/home/agent/link")?]);
    let error = claim(&node, &id, wanted.clone()).await.unwrap_err().to_string();
    assert!(error.contains("volume home") && error.contains("is a link"), "{error}");
    assert!(mounts_under(&outside).is_empty() && std::fs::read_dir(&outside)?.next().is_none());
    let observed = node.client.get(&id).await?;
    assert_eq!((observed.phase, observed.reason.as_deref()), (Phase::Ready, Some("claim-volume-failed")));
    // The user takes the link away, and the same claim is bound.
    sh(&node, &id, "rm ~/link").await?;
    assert!(claim(&node, &id, wanted).await?.binding.is_some_and(|binding| binding.bound));
    assert_eq!(mounts(&node, &id, "/home/agent/link").len(), 1);

    make(&node, "other").await?;
    let cold = node.client.create_ready(&spec("bare")?).await?;
    sh(&node, &cold, "ln -s /tmp ~/tmp").await?;
    let through = binding(vec![mount("other", "/home/agent/tmp/x")?]);
    let error = claim(&node, &cold, through).await.unwrap_err().to_string();
    assert!(error.contains("link"), "{error}");
    assert!(!sh(&node, &cold, "ls /tmp").await?.contains('x'), "nothing was made behind it");
    node.clear().await
}

#[tokio::test]
async fn a_full_volume_is_said_by_its_name_and_grows() -> Result<()> {
    let node = TestNode::start().await?;
    make(&node, "home").await?;
    let id = node.client.create_ready(&with(vec![mount("home", "/home/agent")?])?).await?;
    let full = run(&node, &id, "head -c 200000000 /dev/zero >~/fill; stat -c %s ~/fill").await?;
    assert!(full.stderr.contains("No space left") || full.stderr.contains("quota exceeded"), "{full:?}");
    let written: u64 = full.stdout.trim().parse()?;
    assert!((SIZE / 2..=SIZE).contains(&written), "{written}");
    let seen = get(&node, "home").await?;
    let condition = seen.conditions.first().ok_or("no condition")?;
    assert!(condition.is_true && condition.kind == "VolumeFull" && condition.message.contains("volume home"));
    assert_eq!(node.client.get(&id).await?.phase, Phase::Ready, "it is the user's affair");
    assert_eq!(sh(&node, &id, "echo fine >/tmp/elsewhere; cat /tmp/elsewhere").await?, "fine\n");

    let resize = |size_bytes| wire::ResizeVolumeRequest { tenant: String::new(), name: "home".into(), size_bytes };
    let smaller = node.client.volumes.clone().resize_volume(resize(SIZE / 2)).await.unwrap_err();
    assert!(smaller.message().contains("only grow"), "{smaller}");
    node.client.volumes.clone().resize_volume(resize(4 * SIZE)).await?;
    // In use, a file system of its own grows only by CAP_SYS_RESOURCE.
    node.client.api.clone().restart_sandbox(request(&id)).await?;
    eventually("it has its new size", LIMIT, || async {
        let volume = get(&node, "home").await?;
        let ready = node.client.get(&id).await?.phase == Phase::Ready;
        Ok((ready && volume.usage.is_some_and(|usage| usage.limit_bytes == 4 * SIZE)).then_some(()))
    })
    .await?;
    let room = "stat -c %s ~/fill; head -c 100000000 /dev/zero >~/more && rm ~/more ~/fill";
    assert_eq!(sh(&node, &id, room).await?, format!("{written}\n"));
    assert!(get(&node, "home").await?.conditions.is_empty());
    node.clear().await
}

#[tokio::test]
async fn homes_outlive_kills_of_the_daemon_and_a_lost_ledger() -> Result<()> {
    let mut node = TestNode::start().await?;
    for name in ["home", "late"] {
        make(&node, name).await?;
    }
    let id = node.client.create_ready(&with(vec![mount("home", "/home/agent")?])?).await?;
    sh(&node, &id, "echo kept >~/note").await?;
    let stranger = node.state().join("volumes/local/stranger");
    std::fs::create_dir(&stranger)?;
    std::fs::write(stranger.join("precious"), "x")?;
    symlink("/etc", node.state().join("volumes/local/link"))?;
    node.kill_daemon();
    node.restart().await?;
    node.client.reaches(&id, Phase::Ready).await?;
    assert_eq!(sh(&node, &id, "cat ~/note").await?, "kept\n");
    assert_eq!(get(&node, "home").await?.attachments[0].sandbox_id, id);
    // Killed while it is bound: the next daemon goes on with it.
    let wanted = binding(vec![mount("late", "/srv/late")?]);
    let binds = claim(&node, &id, wanted.clone());
    let _cut_off = tokio::time::timeout(Duration::from_millis(3), binds).await;
    node.kill_daemon();
    node.restart().await?;
    assert!(claim(&node, &id, wanted).await?.binding.is_some_and(|binding| binding.bound));
    assert_eq!(mounts(&node, &id, "/srv/late").len(), 1);
    sh(&node, &id, "echo late >/srv/late/note").await?;

    node.kill_daemon();
    std::fs::remove_dir_all(node.state().join("ledger"))?;
    node.restart().await?;
    node.client.reaches(&id, Phase::Ready).await?;
    let listed = node.client.volumes.clone().list_volumes(wire::ListVolumesRequest::default()).await?.into_inner();
    let names: Vec<String> = listed.volumes.into_iter().map(|volume| volume.name).collect();
    assert_eq!(names, ["home", "late"]);
    assert!(stranger.join("precious").exists(), "what is not known is left alone");
    let occupied = make(&node, "stranger").await.unwrap_err().to_string();
    assert!(occupied.contains("no volume of this node"), "{occupied}");
    assert_eq!(sh(&node, &id, "cat ~/note /srv/late/note").await?, "kept\nlate\n");
    let second = node.client.create(&with(vec![mount("home", "/home/agent")?])?).await.unwrap_err().to_string();
    assert!(second.contains(id.as_str()), "it is known who has it: {second}");
    node.client.delete(&id).await?;
    nothing_is_open(&node).await?;
    let next =
        node.client.create_ready(&with(vec![mount("home", "/home/agent")?, mount("late", "/mnt/late")?])?).await?;
    assert_eq!(sh(&node, &next, "cat ~/note /mnt/late/note").await?, "kept\nlate\n");
    node.clear().await
}

#[tokio::test]
async fn a_home_whose_directory_is_gone_is_lost_and_not_made_anew() -> Result<()> {
    let mut node = TestNode::start().await?;
    make(&node, "home").await?;
    node.kill_daemon();
    let (place, away) = (dir(&node, "home"), node.state().join("away"));
    std::fs::rename(&place, &away)?;
    node.restart().await?;
    assert_eq!(get(&node, "home").await?.phase, VolumePhase::Lost);
    let refused = node.client.create(&with(vec![mount("home", "/home/agent")?])?).await.unwrap_err().to_string();
    assert!(refused.contains("is lost"), "{refused}");
    assert!(!place.exists());
    node.kill_daemon();
    std::fs::rename(&away, &place)?;
    node.restart().await?;
    assert_eq!(get(&node, "home").await?.phase, VolumePhase::Available);
    let missing = node.client.create(&with(vec![mount("none", "/mnt/none")?])?).await.unwrap_err().to_string();
    assert!(missing.contains("roost volume create"), "{missing}");
    node.clear().await
}
