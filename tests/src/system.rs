//! A central, a node that joined it, and the `roost` command.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::node::{binary, repository};
use crate::process::Process;
use crate::{Rest, Result, Root, TestNode, eventually};

/// Log of central in tests.
const LOG_FILTER: &str = "info,roost_central=debug";
/// How long central and a joining node may take.
const START_LIMIT: Duration = Duration::from_secs(60);

/// All parts, under the node's temporary root.
#[derive(Debug)]
pub struct System {
    /// The central API.
    pub central: Process,
    /// The node.
    pub node: TestNode,
    ports: [u16; 3],
}

/// What a run of the command printed.
#[derive(Debug)]
pub struct Answer {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: i32,
}

impl Answer {
    /// Nothing, if it went well.
    ///
    /// # Errors
    /// What the command said.
    pub fn success(self) -> Result<()> {
        if self.code == 0 { Ok(()) } else { Err(format!("exit code {}: {}", self.code, self.stderr).into()) }
    }

    /// The printed JSON, if it went well.
    ///
    /// # Errors
    /// What the command said, or that it is no JSON.
    pub fn json(self) -> Result<Value> {
        let value = serde_json::from_str(&self.stdout).map_err(|e| format!("{e}: {}{}", self.stdout, self.stderr))?;
        self.success()?;
        Ok(value)
    }
}

impl System {
    /// Starts central, then a node that joins it.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start() -> Result<Self> {
        let mut node = TestNode::start().await?;
        let ports = free_ports()?;
        let central = launch(&node.root, ports, "", LOG_FILTER).await?;
        let mut system = Self {
            central,
            ports,
            node: {
                node.kill_daemon();
                node
            },
        };
        let token = eventually("central gives a join token", START_LIMIT, || async {
            let answer = system.roost(&["node", "join-token", "--expires-in", "10m"])?;
            Ok((answer.code == 0).then_some(answer.stdout))
        })
        .await?;
        std::fs::write(system.node.root.join("join-token"), token)?;
        let section = format!(
            "[central]\naddress = \"https://127.0.0.1:{}\"\njoin_token_file = \"{}\"\n",
            ports[1],
            system.node.root.join("join-token").display()
        );
        system.node.configure(&section);
        system.node.restart().await?;
        system.node_is_online().await?;
        Ok(system)
    }

    /// Starts central again after a kill.
    ///
    /// # Errors
    /// When it does not come up, or the node does not come back.
    pub async fn restart_central(&mut self) -> Result<()> {
        self.central = launch(&self.node.root, self.ports, "", LOG_FILTER).await?;
        self.node_is_online().await
    }

    /// Waits until central sees the node online, healthy and with its images.
    ///
    /// # Errors
    /// When that does not come.
    pub async fn node_is_online(&self) -> Result<()> {
        eventually("the node is Online with its images", START_LIMIT, || async {
            let nodes = self.roost(&["node", "ls", "-o", "json"])?.json()?;
            let list = nodes.get("items").unwrap_or(&nodes).clone();
            let is_online = list[0]["phase"] == "Online";
            let has_images = list[0]["status"]["images"].as_array().is_some_and(|images| images.len() == 2);
            let conditions = list[0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_healthy = !conditions.is_empty()
                && conditions.iter().all(|c| {
                    let is_pressure = c["type"].as_str().is_some_and(|kind| kind.ends_with("Pressure"));
                    c["is_true"] == !is_pressure
                });
            Ok((is_online && has_images && is_healthy).then_some(()))
        })
        .await
    }

    /// Runs the `roost` command as a user would, without a terminal.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn roost(&self, args: &[&str]) -> Result<Answer> {
        let output = Command::new(binary("roost")?)
            .args(args)
            .env_clear()
            .env("HOME", self.node.root.path())
            .env("ROOST_SERVER", format!("http://127.0.0.1:{}", self.ports[0]))
            .env("ROOST_TOKEN_FILE", self.token_file())
            .stdin(Stdio::null())
            .output()?;
        Ok(Answer {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        })
    }

    /// A connection to the REST API as its admin.
    ///
    /// # Errors
    /// When central does not listen.
    pub async fn rest(&self) -> Result<Rest> {
        Rest::connect(self.ports[0], &std::fs::read_to_string(self.token_file())?).await
    }

    fn token_file(&self) -> PathBuf {
        self.node.root.join("admin-token")
    }
}

/// Sandboxes go while both sides are there to remove them.
impl Drop for System {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ignored = self.roost(&["sandbox", "rm", "--all", "--wait"]);
        }
    }
}

/// Ports that nobody has now. Central binds them a moment later.
pub(crate) fn free_ports() -> Result<[u16; 3]> {
    let listeners = [0; 3].map(|_| std::net::TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// Starts central on these ports for API, NodeLink and metrics, and waits until
/// it answers; `link` is laid into its section of that name, `filter` is its log's.
pub(crate) async fn launch(root: &Root, ports: [u16; 3], link: &str, filter: &str) -> Result<Process> {
    let config = configure(root, ports, link, filter)?;
    let args = ["serve", "--config", &config.display().to_string()];
    let mut central = Process::start(&binary("roost-central")?, &args, &root.join("central.log"))?;
    eventually("central answers", START_LIMIT, || {
        let ended = (!central.is_running()).then(|| central.output());
        async move {
            match ended {
                Some(output) => Err(format!("roost-central ended: {output}").into()),
                None => Ok(tokio::net::TcpStream::connect(("127.0.0.1", ports[0])).await.ok().map(drop)),
            }
        }
    })
    .await?;
    Ok(central)
}

/// Writes central's configuration; where it is.
pub(crate) fn configure(root: &Root, ports: [u16; 3], link: &str, filter: &str) -> Result<PathBuf> {
    let config = root.join("central.toml");
    let text = format!(
        "state_dir = \"{}\"\nseed_dir = \"{}\"\nadmin_token_file = \"{}\"\n[api]\nlisten = \"127.0.0.1:{}\"\n\
         [link]\nlisten = \"127.0.0.1:{}\"\n{link}\n[admin]\nlisten = \"127.0.0.1:{}\"\n[log]\nfilter = \"{filter}\"\n",
        root.join("central").display(),
        repository().join("deploy/config").display(),
        root.join("admin-token").display(),
        ports[0],
        ports[1],
        ports[2],
    );
    std::fs::write(&config, text)?;
    Ok(config)
}
