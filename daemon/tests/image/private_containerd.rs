//! A containerd of the test's own: root, state and socket under one
//! temporary directory, gone with it.

// Several suites share this file, and none uses all of it.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use containerd_client::services::v1::snapshots::ListSnapshotsRequest;
use containerd_client::services::v1::{ListContentRequest, ListRequest, ListStatusesRequest};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roostd::containerd::image::{DEFAULT_SNAPSHOTTER, Images, SpoolConfig};
use roostd::containerd::{Client, GcLease, lease};

/// Longest wait for something that should be at once.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct PrivateContainerd {
    process: Child,
    directory: tempfile::TempDir,
    pub(crate) client: Client,
}

impl PrivateContainerd {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    /// With a disk of so many bytes for blobs and snapshots.
    pub(crate) async fn on_disk_of(size_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let options = format!("size={size_bytes}");
        nix::mount::mount(Some("tmpfs"), &root, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(&*options)).unwrap();
        Self::start_in(directory).await
    }

    async fn start_in(directory: tempfile::TempDir) -> Self {
        let path = |name: &str| directory.path().join(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("containerd.sock"),
        );
        fs::write(path("config.toml"), config).unwrap();
        fs::create_dir(path("spool")).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(path("config.toml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().expect("these tests need root and Debian's package containerd");
        let client = Client::connect(&path("containerd.sock"), "roost-test").unwrap();
        let started = Self { process, directory, client };
        wait_for("containerd to answer", async || started.client.version().await.is_ok()).await;
        started.client.ensure_namespace().await.unwrap();
        started
    }

    pub(crate) fn images(&self) -> Images {
        Images::new(self.client.clone(), DEFAULT_SNAPSHOTTER)
    }

    pub(crate) fn spool(&self) -> SpoolConfig {
        SpoolConfig { directory: self.directory.path().join("spool"), max_bytes: 1 << 30, reserve_bytes: 0 }
    }

    /// Has containerd collect garbage now.
    pub(crate) async fn collect_garbage(&self) {
        let gc = GcLease::create(&self.client, "test", Duration::from_secs(60)).await.unwrap();
        lease::delete(&self.client, gc.id(), true).await.unwrap();
    }

    pub(crate) async fn snapshots(&self) -> Vec<String> {
        let message =
            ListSnapshotsRequest { snapshotter: DEFAULT_SNAPSHOTTER.into(), ..ListSnapshotsRequest::default() };
        let mut stream = self.client.snapshots().list(self.client.request(message)).await.unwrap().into_inner();
        let mut names = Vec::new();
        while let Some(piece) = stream.message().await.unwrap() {
            names.extend(piece.info.into_iter().map(|info| info.name));
        }
        names
    }

    pub(crate) async fn blobs(&self) -> usize {
        let request = self.client.request(ListContentRequest::default());
        let mut stream = self.client.content().list(request).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(piece) = stream.message().await.unwrap() {
            count += piece.info.len();
        }
        count
    }

    pub(crate) async fn partial_writes(&self) -> usize {
        let request = self.client.request(ListStatusesRequest::default());
        self.client.content().list_statuses(request).await.unwrap().into_inner().statuses.len()
    }

    pub(crate) async fn leases(&self) -> usize {
        let request = self.client.request(ListRequest::default());
        self.client.leases().list(request).await.unwrap().into_inner().leases.len()
    }

    /// Waits until no import holds anything and only `blobs` and `snapshots`
    /// are left after a collection.
    pub(crate) async fn expect_left(&self, blobs: usize, snapshots: usize) {
        wait_for("the import's lease to go", async || self.leases().await == 0).await;
        self.collect_garbage().await;
        assert_eq!(self.partial_writes().await, 0, "partial writes");
        assert_eq!((self.blobs().await, self.snapshots().await.len()), (blobs, snapshots), "blobs and snapshots");
    }

    /// The contents of every unpacked file of that name.
    pub(crate) fn unpacked(&self, name: &str) -> Vec<Vec<u8>> {
        let snapshots = self.directory.path().join("root/io.containerd.snapshotter.v1.overlayfs/snapshots");
        let files = fs::read_dir(snapshots).unwrap().map(|entry| entry.unwrap().path().join("fs").join(name));
        files.filter(|file| file.exists()).map(|file| fs::read(file).unwrap()).collect()
    }
}

impl Drop for PrivateContainerd {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.process.wait();
        for mount in mounts_below(self.directory.path()) {
            let _ = umount2(&mount, MntFlags::MNT_DETACH);
        }
    }
}

/// Mount points under a directory, deepest first.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(directory)).collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

/// Waits for a condition, at most for [`PATIENCE`].
pub(crate) async fn wait_for(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}
