//! What is saved of a home: whole, consistent, little the second time, and
//! never restored damaged.

use std::path::{Path, PathBuf};

use roost_proto::id::SandboxId;
use roost_proto::model::{Checkpoint, Phase, Volume};
use roost_proto::node as wire;
use roost_tests::{Result, TestNode, eventually};

use super::{LIMIT, MIB, get, make, mount, named, remove, sh, with};

/// A tree with links, hard links, holes and rights, and 12 MB that nothing
/// can pack.
const TREE: &str = "umask 022; mkdir -p ~/a/b; head -c 12000000 /dev/urandom >~/a/large; echo small >~/a/b/small; \
                    ln ~/a/large ~/a/same; ln -s /etc/passwd ~/a/link; truncate -s 100M ~/sparse; echo end >>~/sparse; \
                    chmod 640 ~/a/b/small; chmod 500 ~/a/b; touch -d 2001-02-03T04:05:06 ~/a/b/small; mkfifo ~/fifo; \
                    echo x >~/'a name
with a line'";
/// What of a tree two homes must have in common.
const SHAPE: &str = "cd ~ && find . -printf '%p %y %m %U:%G %s %T@ %l %n\\n' | grep -v '^\\. ' | sort; \
                     find . -type f | sort | xargs -d '\\n' sha256sum | sort; du -k ~/sparse | cut -f1";

async fn save(node: &TestNode, name: &str) -> Result<Checkpoint> {
    Ok(node.client.volumes.clone().checkpoint_volume(named(name)).await?.into_inner().try_into()?)
}

async fn saved(node: &TestNode, name: &str) -> Result<Vec<Checkpoint>> {
    let listed = node.client.volumes.clone().list_checkpoints(named(name)).await?.into_inner().checkpoints;
    listed.into_iter().map(|checkpoint| Ok(checkpoint.try_into()?)).collect()
}

async fn restore(node: &TestNode, from: &str, to: &str) -> Result<Volume> {
    let request = wire::RestoreVolumeRequest { name: to.into(), from: from.into(), ..Default::default() };
    Ok(node.client.volumes.clone().restore_volume(request).await?.into_inner().try_into()?)
}

/// A sandbox whose user's home is a volume.
async fn at_home(node: &TestNode, volume: &str) -> Result<SandboxId> {
    node.client.create_ready(&with(vec![mount(volume, "/home/agent")?])?).await
}

/// The files of pieces in a store.
fn pieces(store: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in std::fs::read_dir(store.join("chunks"))? {
        for file in std::fs::read_dir(dir?.path())? {
            found.push(file?.path());
        }
    }
    Ok(found)
}

#[tokio::test]
async fn a_restored_home_is_the_same_and_what_did_not_change_is_not_moved_again() -> Result<()> {
    let node = TestNode::start().await?;
    make(&node, "home").await?;
    let id = at_home(&node, "home").await?;
    sh(&node, &id, TREE).await?;
    let first = save(&node, "home").await?;
    assert!(first.frozen_us > 0 && first.moved_bytes >= 12_000_000, "{first:?}");
    let second = save(&node, "home").await?;
    assert!(second.moved_bytes * 100 < second.content_bytes, "{second:?}");
    assert!(second.stored_bytes * 100 < first.stored_bytes, "the list of files is small: {second:?}");
    sh(&node, &id, "printf changed | dd of=$HOME/a/large bs=1 seek=6000000 conv=notrunc 2>/dev/null").await?;
    let third = save(&node, "home").await?;
    assert!((1..=8_400_000).contains(&third.moved_bytes), "a change moves the pieces around it: {third:?}");

    let copy = restore(&node, "home", "copy").await?;
    assert_eq!(copy.size_bytes, 64 * MIB);
    let other = at_home(&node, "copy").await?;
    assert_eq!(sh(&node, &other, SHAPE).await?, sh(&node, &id, SHAPE).await?);
    assert_eq!(save(&node, "copy").await?.moved_bytes, 0, "it is all there already, under another name");
    let clone = wire::CloneVolumeRequest { name: "home".into(), to: "clone".into(), ..Default::default() };
    node.client.volumes.clone().clone_volume(clone.clone()).await?;
    let third = at_home(&node, "clone").await?;
    assert_eq!(sh(&node, &third, SHAPE).await?, sh(&node, &id, SHAPE).await?);
    assert_eq!(node.client.volumes.clone().clone_volume(clone).await.unwrap_err().code(), tonic::Code::AlreadyExists);
    node.clear().await
}

#[tokio::test]
async fn a_checkpoint_is_of_one_moment_and_the_sandbox_goes_on_also_after_a_kill_in_between() -> Result<()> {
    let mut node = TestNode::start().await?;
    make(&node, "home").await?;
    let id = at_home(&node, "home").await?;
    let count = "i=0; while :; do i=$((i+1)); echo $i >>~/first; echo $i >>~/second; done";
    sh(&node, &id, &format!("setsid sh -c '{count}' >/dev/null 2>&1 </dev/null & until [ -s ~/second ]; do :; done"))
        .await?;
    for _ in 0..3 {
        assert!(save(&node, "home").await?.frozen_us > 0);
    }
    restore(&node, "home", "copy").await?;
    let other = at_home(&node, "copy").await?;
    let lines = sh(&node, &other, "wc -l <~/first; wc -l <~/second").await?;
    let lines: Vec<u64> = lines.split_whitespace().filter_map(|count| count.parse().ok()).collect();
    assert!(lines[0] == lines[1] || lines[0] == lines[1] + 1, "not of one moment: {lines:?}");
    let goes_on = || async {
        let before: u64 = sh(&node, &id, "wc -l <~/first").await?.trim().parse()?;
        eventually("the sandbox goes on", LIMIT, || async {
            let now: u64 = sh(&node, &id, "wc -l <~/first").await?.trim().parse()?;
            Ok((now > before).then_some(()))
        })
        .await
    };
    goes_on().await?;
    // As a daemon leaves it that is killed while it reads.
    let cgroup = format!("{}/{id}/workload", node.cgroup_parent());
    let v1 = PathBuf::from("/sys/fs/cgroup/freezer").join(&cgroup).join("freezer.state");
    let v2 = PathBuf::from("/sys/fs/cgroup").join(&cgroup).join("cgroup.freeze");
    node.kill_daemon();
    if v2.exists() {
        std::fs::write(v2, "1")?
    } else {
        std::fs::write(v1, "FROZEN")?
    }
    node.restart().await?;
    node.client.reaches(&id, Phase::Ready).await?;
    let before: u64 = sh(&node, &id, "wc -l <~/first").await?.trim().parse()?;
    eventually("the sandbox goes on", LIMIT, || async {
        Ok((sh(&node, &id, "wc -l <~/first").await?.trim().parse::<u64>()? > before).then_some(()))
    })
    .await?;
    node.clear().await
}

#[tokio::test]
async fn what_takes_too_long_lets_the_sandbox_go_and_says_so() -> Result<()> {
    let mut node = TestNode::start().await?;
    node.kill_daemon();
    node.configure("[checkpoints]\nfreeze_max_ms = 1\n");
    node.restart().await?;
    make(&node, "home").await?;
    let id = at_home(&node, "home").await?;
    sh(&node, &id, "head -c 30000000 /dev/urandom >~/new").await?;
    let churn = "while :; do head -c 20000000 /dev/urandom >~/churn; done";
    sh(&node, &id, &format!("setsid sh -c '{churn}' >/dev/null 2>&1 </dev/null & until [ -s ~/churn ]; do :; done"))
        .await?;
    let error = save(&node, "home").await.unwrap_err().to_string();
    assert!(error.contains("freeze_max_ms"), "{error}");
    assert_eq!(sh(&node, &id, "echo goes on").await?, "goes on\n");
    assert!(saved(&node, "home").await?.is_empty());
    node.clear().await
}

#[tokio::test]
async fn a_damaged_checkpoint_is_found_out_and_nothing_of_it_stays() -> Result<()> {
    let node = TestNode::start().await?;
    make(&node, "home").await?;
    let id = at_home(&node, "home").await?;
    sh(&node, &id, "head -c 3000000 /dev/urandom >~/precious").await?;
    save(&node, "home").await?;
    let pieces = pieces(&node.state().join("checkpoints"))?;
    let damaged = pieces.first().ok_or("nothing was saved")?;
    let mut bytes = std::fs::read(damaged)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(damaged, bytes)?;
    let error = restore(&node, "home", "copy").await.unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
    assert!(get(&node, "copy").await.is_err());
    assert!(std::fs::read_dir(node.state().join("volumes/.new"))?.next().is_none());
    assert!(!node.state().join("volumes/local/copy").exists());
    node.clear().await
}

#[tokio::test]
async fn old_checkpoints_go_with_their_pieces_and_the_last_one_outlives_the_volume_and_its_node() -> Result<()> {
    let mut node = TestNode::start().await?;
    let store = node.root.join("store");
    let sections = format!("[checkpoints]\ndirectory = \"{}\"\nkeep = 2\ngrace_s = 0\n", store.display());
    node.kill_daemon();
    node.configure(&sections);
    node.restart().await?;
    make(&node, "home").await?;
    let id = at_home(&node, "home").await?;
    for _ in 0..4 {
        sh(&node, &id, "head -c 2000000 /dev/urandom >~/file").await?;
        save(&node, "home").await?;
    }
    assert_eq!(saved(&node, "home").await?.len(), 2);
    let stored: u64 = pieces(&store)?.iter().map(|path| path.metadata().map_or(0, |facts| facts.len())).sum();
    assert!((3_900_000..4_200_000).contains(&stored), "two files of four are left: {stored}");
    let sum = sh(&node, &id, "sha256sum <~/file").await?;
    node.client.delete(&id).await?;
    let request = wire::DeleteVolumeRequest { name: "home".into(), checkpoint: true, ..Default::default() };
    let last = node.client.volumes.clone().delete_volume(request).await?.into_inner().checkpoint;
    assert_eq!(last.ok_or("no last checkpoint")?.moved_bytes, 0);
    assert!(get(&node, "home").await.is_err());

    let mut other = TestNode::start().await?;
    other.kill_daemon();
    other.configure(&sections);
    other.restart().await?;
    restore(&other, "home", "home").await?;
    let id = at_home(&other, "home").await?;
    assert_eq!(sh(&other, &id, "sha256sum <~/file").await?, sum);
    other.clear().await?;
    remove(&other, "home").await?;
    node.clear().await
}
