//! A real `roostd` on a private containerd, with the real images.

use std::path::{Path, PathBuf};
use std::time::Duration;

use roost_proto::model::{Profile, SandboxSpec, Template, resolve};
use roost_proto::node::{ListPoolsRequest, RemovePoolRequest};

use crate::process::Process;
use crate::wait::patience;
use crate::{Cgroup, Containerd, NodeClient, Result, Root, eventually};

/// How long a daemon may take to answer on its socket.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What a spec may say at most, in milliseconds.
const MAX_START_TIMEOUT_MS: u32 = 600_000;

/// A node under a temporary root; it ends with its owner.
#[derive(Debug)]
pub struct TestNode {
    /// A client of its socket; replaced by [`TestNode::restart`].
    pub client: NodeClient,
    /// The daemon.
    pub daemon: Process,
    /// Its containerd.
    pub containerd: Containerd,
    /// Where all of it lies; dropped last.
    pub root: Root,
    /// Further sections of the daemon's configuration.
    sections: String,
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| "/".into(), Path::to_owned)
}

/// A binary of the workspace, built beside this one.
///
/// # Errors
/// When it is not there: `tests/run.sh` builds it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.exists());
    found.ok_or_else(|| format!("{name} is not built: run `cargo build --workspace`, or tests/run.sh").into())
}

/// Where the images lie.
#[must_use]
pub fn image_dir() -> PathBuf {
    std::env::var_os("ROOST_IMAGES").map_or_else(|| "/var/cache/roost/images".into(), PathBuf::from)
}

/// The spec of a shipped template with its own profile.
///
/// # Errors
/// When the shipped files cannot be read.
pub fn spec(template: &str) -> Result<SandboxSpec> {
    let config = repository().join("deploy/config");
    let read = |path: PathBuf| std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()));
    let template: Template = toml::from_str(&read(config.join(format!("templates/{template}.toml")))?)?;
    let profile: Profile = toml::from_str(&read(config.join(format!("profiles/{}.toml", template.profile)))?)?;
    let mut spec = resolve(&template, &profile, &std::collections::BTreeMap::new());
    spec.start_timeout_ms = spec.start_timeout_ms.saturating_mul(patience()?).min(MAX_START_TIMEOUT_MS);
    Ok(spec)
}

impl TestNode {
    /// Starts containerd, with the images in it, and the daemon.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start() -> Result<Self> {
        Self::start_in(Root::create()?, "").await
    }

    /// The same with the daemon's own root on a disk of `mib`, and further
    /// sections in its configuration.
    ///
    /// # Errors
    /// When the disk cannot be made, or one of them does not come up.
    pub async fn start_on_small_disk(mib: u64, sections: &str) -> Result<Self> {
        let root = Root::create()?;
        crate::root::mount_disk(&root.join("disk"), &root.join("r"), mib)?;
        Self::start_in(root, sections).await
    }

    async fn start_in(root: Root, sections: &str) -> Result<Self> {
        crate::seed::plant(&root.join("c")).await?;
        let containerd = Containerd::start(&root.join("c")).await?;
        let (daemon, client) = launch(&root, &containerd, sections).await?;
        Ok(Self { client, daemon, containerd, root, sections: sections.to_owned() })
    }

    /// The counters of one of its cgroups; the empty name is the parent.
    #[must_use]
    pub fn cgroup(&self, name: &str) -> Cgroup {
        Cgroup::new(&self.cgroup_parent(), name)
    }

    /// The daemon's root directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("r")
    }

    /// The parent cgroup of its sandboxes.
    #[must_use]
    pub fn cgroup_parent(&self) -> String {
        cgroup_parent(&self.root)
    }

    /// Adds sections to the daemon's configuration, for its next start; they
    /// win over the harness's.
    pub fn configure(&mut self, sections: &str) {
        self.sections.push_str(sections);
    }

    /// Kills the daemon; its sandboxes go on.
    pub fn kill_daemon(&mut self) {
        self.daemon.kill();
    }

    /// Starts the daemon again and connects to it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        (self.daemon, self.client) = launch(&self.root, &self.containerd, &self.sections).await?;
        Ok(())
    }

    /// Copies the logs of daemon and containerd to where they outlive the node.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        for log in ["roostd.log", "c/containerd.log"] {
            let name = Path::new(log).file_name().unwrap_or_default();
            std::fs::copy(self.root.join(log), to.join(name))?;
        }
        eprintln!("harness: logs are kept in {}", to.display());
        Ok(())
    }

    /// Removes every pool and deletes every sandbox, so that nothing outlives
    /// the node.
    ///
    /// # Errors
    /// When one of them does not go.
    pub async fn clear(&self) -> Result<()> {
        let mut api = self.client.api.clone();
        for pool in api.list_pools(ListPoolsRequest {}).await?.into_inner().pools {
            let name = pool.spec.map(|spec| spec.name).unwrap_or_default();
            api.remove_pool(RemovePoolRequest { name }).await?;
        }
        let ids = self.client.list().await?;
        let deletes = ids.keys().map(|id| async move { self.client.delete(&id.parse()?).await });
        futures::future::try_join_all(deletes).await.map(drop)
    }
}

impl Drop for TestNode {
    /// A test that failed may leave sandboxes: their processes are found by
    /// their cgroup.
    fn drop(&mut self) {
        self.daemon.stop();
        crate::traces::kill_cgroup(&self.cgroup_parent());
        self.containerd.stop();
        crate::traces::remove_cgroup(&self.cgroup_parent());
    }
}

fn cgroup_parent(root: &Root) -> String {
    root.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Starts a daemon below `root`, with further `sections` of its
/// configuration, which win over the harness's, and connects to its socket.
///
/// # Errors
/// When it does not answer in time, or ends.
pub async fn launch(root: &Root, containerd: &Containerd, sections: &str) -> Result<(Process, NodeClient)> {
    let config = root.join("roostd.toml");
    std::fs::write(&config, merged(&config_text(root, containerd), sections)?)?;
    let config = config.display().to_string();
    let mut daemon = Process::start(&binary("roostd")?, &["--config", &config], &root.join("roostd.log"))?;
    let socket = root.join("roostd.sock");
    let client = eventually("roostd answers on its socket", START_LIMIT, || {
        let ended = (!daemon.is_running()).then(|| daemon.output());
        let socket = socket.clone();
        async move {
            match ended {
                Some(output) => Err(format!("roostd ended: {output}").into()),
                // A fork that outlives a killed daemon for a moment has its
                // listener: only an answer counts.
                None => match NodeClient::connect(&socket).await {
                    Ok(client) => Ok(client.node().await.ok().map(|_| client)),
                    Err(_) => Ok(None),
                },
            }
        }
    })
    .await?;
    Ok((daemon, client))
}

/// `base` with the values of `over` in it.
fn merged(base: &str, over: &str) -> Result<String> {
    let mut table: toml::Table = base.parse()?;
    for (name, value) in over.parse::<toml::Table>()? {
        match (table.get_mut(&name), value) {
            (Some(toml::Value::Table(section)), toml::Value::Table(values)) => section.extend(values),
            (_, value) => drop(table.insert(name, value)),
        }
    }
    Ok(toml::to_string(&table)?)
}

/// The OCI runtime of the tests, `runc` unless the environment names another.
#[must_use]
pub fn oci_runtime() -> String {
    std::env::var("ROOST_TEST_OCI_RUNTIME").unwrap_or_else(|_| "runc".into())
}

fn config_text(root: &Root, containerd: &Containerd) -> String {
    format!(
        "root = \"{}\"\nrunc_state = \"{}\"\n[containerd]\nsocket = \"{}\"\nruntime_binary = \"{}\"\n[sandboxes]\ncgroup_parent = \"{}\"\nfirst_id = 1073741824\n\
         [api]\nsocket = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nfilter = \"info,roostd=debug\"\n",
        root.join("r").display(),
        root.join("runc").display(),
        containerd.socket().display(),
        oci_runtime(),
        cgroup_parent(root),
        root.join("roostd.sock").display(),
    )
}
