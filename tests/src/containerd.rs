//! A containerd of our own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::Process;
use crate::{Result, eventually};

/// How long it may take to answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A private containerd; it ends with its owner.
#[derive(Debug)]
pub struct Containerd {
    dir: PathBuf,
    process: Process,
}

impl Containerd {
    /// Starts one that keeps everything below `dir`.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let config = dir.join("config.toml");
        std::fs::write(&config, config_text(dir))?;
        let process = launch(dir)?;
        let containerd = Self { dir: dir.to_owned(), process };
        containerd.answers().await?;
        Ok(containerd)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Kills it; its shims and their containers go on.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Lets it hang: its connections stay, and nobody answers.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on after [`Containerd::freeze`].
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it again after [`Containerd::kill`].
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn restart(&mut self) -> Result<()> {
        self.process = launch(&self.dir)?;
        self.answers().await
    }

    async fn answers(&self) -> Result<()> {
        let socket = self.socket();
        eventually("containerd answers", START_LIMIT, || async {
            let Ok(channel) = containerd_client::connect(&socket).await else { return Ok(None) };
            let mut client = containerd_client::services::v1::version_client::VersionClient::new(channel);
            Ok(client.version(()).await.ok().map(drop))
        })
        .await
    }
}

fn launch(dir: &Path) -> Result<Process> {
    let config = dir.join("config.toml").display().to_string();
    Process::start(Path::new("/usr/bin/containerd"), &["--config", &config], &dir.join("containerd.log"))
}

fn config_text(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{dir}/containerd.sock\"\n\
         [ttrpc]\naddress = \"{dir}/containerd.sock.ttrpc\"\n\
         [debug]\nlevel = \"warn\"\n"
    )
}
