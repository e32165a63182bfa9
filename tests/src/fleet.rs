//! Central and a fleet of simulated nodes.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::node::binary;
use crate::process::Process;
use crate::system::{configure, free_ports, launch};
use crate::{Rest, Result, Root, eventually};

/// Log of central: as in the field, since thousands of nodes log as well.
const LOG_FILTER: &str = "info";
/// How long a fleet may take to connect on a loaded machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(300);

/// What is played, and at which central.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Nodes.
    pub nodes: u32,
    /// Most sandboxes of each.
    pub sandboxes: u32,
    /// More fields of central's section `[link]`.
    pub link: String,
    /// More arguments of the simulator.
    pub sim: Vec<String>,
}

/// Central and its simulated nodes under one temporary root.
#[derive(Debug)]
pub struct SimFleet {
    /// Central.
    pub central: Process,
    /// The simulator.
    pub sim: Sim,
    /// Directory of both.
    pub root: Root,
    options: FleetOptions,
    ports: [u16; 3],
}

/// The running simulator; it is ended when dropped.
#[derive(Debug)]
pub struct Sim {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sim {
    /// Has the fleet do something; its state afterwards.
    ///
    /// # Errors
    /// When the simulator has ended or refuses.
    pub fn obey(&mut self, command: &str) -> Result<Value> {
        writeln!(self.commands, "{command}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).map_err(|e| format!("the simulator ended: {e}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(error.into()),
            None => Ok(answer),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl SimFleet {
    /// Starts central and the fleet, and waits until all nodes are connected.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start(options: FleetOptions) -> Result<Self> {
        let (root, ports) = (Root::create()?, free_ports()?);
        let central = launch(&root, ports, &options.link, LOG_FILTER).await?;
        // The last that central writes at its first start, after its CA.
        let token_file = root.join("admin-token");
        eventually("central has started", CONNECT_LIMIT, || async { Ok(token_file.exists().then_some(())) }).await?;
        let tokens = Command::new(binary("roost-central")?)
            .args(["join-token", "--count", &options.nodes.to_string(), "--config"])
            .arg(root.join("central.toml"))
            .output()?;
        if !tokens.status.success() {
            return Err(format!("no join tokens: {}", String::from_utf8_lossy(&tokens.stderr)).into());
        }
        std::fs::write(root.join("join-tokens"), tokens.stdout)?;
        let sim = play(&root, ports, &options)?;
        let mut fleet = Self { central, sim, root, options, ports };
        fleet.all_connected().await?;
        Ok(fleet)
    }

    /// Waits until central hears every node.
    ///
    /// # Errors
    /// When it does not.
    pub async fn all_connected(&mut self) -> Result<()> {
        let nodes = u64::from(self.options.nodes);
        let mut last = Value::Null;
        let connected = eventually("every node is connected", CONNECT_LIMIT, || {
            let status = self.sim.obey("status");
            last = status.as_ref().ok().cloned().unwrap_or_default();
            async move { Ok((status?["connected"].as_u64() == Some(nodes)).then_some(())) }
        });
        connected.await.map_err(|error| format!("{error}: {last}").into())
    }

    /// A connection to the API.
    ///
    /// # Errors
    /// When central does not answer.
    pub async fn rest(&self) -> Result<Rest> {
        Rest::connect(self.ports[0], &std::fs::read_to_string(self.token_file())?).await
    }

    /// Where the API is.
    #[must_use]
    pub fn server(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// Central's fields of `[link]` from its next start on, and the sections
    /// behind it. Commands beside it read them at once.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn set_link(&mut self, link: &str) -> Result<()> {
        self.options.link = link.to_owned();
        configure(&self.root, self.ports, link, LOG_FILTER).map(drop)
    }

    fn token_file(&self) -> PathBuf {
        self.root.join("admin-token")
    }

    /// Starts central again after it was ended.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_central(&mut self) -> Result<()> {
        self.central = launch(&self.root, self.ports, &self.options.link, LOG_FILTER).await?;
        Ok(())
    }

    /// Ends the simulator alone.
    pub fn stop_sim(&mut self) {
        let _ended = self.sim.child.kill();
        let _status = self.sim.child.wait();
    }

    /// Central's database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.root.join("central/central.db")
    }

    /// Ends the simulator and plays the same nodes again; they have forgotten
    /// what ran on them.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_sim(&mut self) -> Result<()> {
        self.stop_sim();
        self.sim = play(&self.root, self.ports, &self.options)?;
        self.all_connected().await
    }
}

fn play(root: &Root, ports: [u16; 3], options: &FleetOptions) -> Result<Sim> {
    let log = std::fs::File::options().create(true).append(true).open(root.join("sim.log"))?;
    let mut child = Command::new(binary("roostd-sim")?)
        .args(["--commands", "--nodes", &options.nodes.to_string(), "--sandboxes", &options.sandboxes.to_string()])
        .args(["--central", &format!("https://127.0.0.1:{}", ports[1])])
        .arg("--join-token-file")
        .arg(root.join("join-tokens"))
        .arg("--state-dir")
        .arg(root.join("sim"))
        .args(&options.sim)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let commands = child.stdin.take().ok_or("the simulator has no input")?;
    let answers = BufReader::new(child.stdout.take().ok_or("the simulator has no output")?);
    Ok(Sim { child, commands, answers })
}
