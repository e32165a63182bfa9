//! Creating and deleting leaves nothing behind.

use std::collections::BTreeSet;
use std::path::Path;

use roost_tests::node::spec;
use roost_tests::{Result, TestNode, traces};

/// Sandboxes that come and go, in turn.
const CYCLES: usize = 200;

/// Everything that a sandbox could leave on the host.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: Vec<std::path::PathBuf>,
    cgroups: BTreeSet<String>,
    files: BTreeSet<String>,
    processes: Vec<(u32, String)>,
    stale_sockets: usize,
}

fn files(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// Shims of this test's containerd.
fn shims(node: &TestNode) -> Vec<(u32, String)> {
    let socket = node.containerd.socket().display().to_string();
    traces::processes_with("containerd-shim").into_iter().filter(|(_, line)| line.contains(&socket)).collect()
}

/// Shim sockets on which nobody listens: all containerds of a machine keep
/// them in one directory.
fn stale_sockets() -> usize {
    let open = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    files(Path::new("/run/containerd/s")).iter().filter(|name| !open.contains(name.as_str())).count()
}

fn take(node: &TestNode) -> Traces {
    let mut all = BTreeSet::new();
    for dir in ["sandboxes", "logs", "spool"] {
        all.extend(files(&node.state().join(dir)).into_iter().map(|f| format!("{dir}/{f}")));
        // runc keeps one directory per containerd namespace.
        all.extend(files(&node.root.join("runc/roost")).into_iter().map(|f| format!("runc/roost/{f}")));
    }
    let containerd = node.root.join("c");
    let state = files(&containerd.join("state/io.containerd.runtime.v2.task/roost"));
    all.extend(state.into_iter().map(|f| format!("bundle/{f}")));
    let snapshots = files(&containerd.join("root/io.containerd.snapshotter.v1.overlayfs/snapshots"));
    all.extend(snapshots.into_iter().map(|f| format!("snapshot/{f}")));
    Traces {
        mounts: traces::mounts_under(node.root.path()),
        cgroups: traces::cgroups_below(&node.cgroup_parent()),
        files: all,
        processes: shims(node),
        stale_sockets: stale_sockets(),
    }
}

#[tokio::test]
async fn two_hundred_sandboxes_leave_no_trace() -> Result<()> {
    let node = TestNode::start().await?;
    let spec = spec("bare")?;
    // The first makes what stays: views of the images, runc's directory.
    let first = node.client.create_ready(&spec).await?;
    node.client.delete(&first).await?;
    let before = take(&node);
    assert_eq!(before.mounts, Vec::<std::path::PathBuf>::new());
    for _ in 0..CYCLES {
        let id = node.client.create_ready(&spec).await?;
        node.client.delete(&id).await?;
    }
    // A shim ends a moment after its last task.
    roost_tests::eventually("shims end", std::time::Duration::from_secs(10), || async {
        Ok(take(&node).processes.is_empty().then_some(()))
    })
    .await?;
    assert_eq!(take(&node), before);
    Ok(())
}
