//! `roost-central` as a process: its commands, and what it keeps when it is
//! killed. Nodes are simulated; nothing here needs root or containerd.

mod commands;
mod restore;
mod storm;

#[path = "../../../central/tests/support/postgres.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared with the tests of central")]
mod postgres;

use std::path::Path;
use std::process::{Command, Stdio};

use roost_tests::Result;
use roost_tests::fleet::{FleetOptions, SimFleet};
use roost_tests::node::binary;

/// What a run of a command printed.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs `roost-central` with the configuration of a fleet.
fn central(fleet: &SimFleet, args: &[&str]) -> Result<Ran> {
    central_with(&fleet.root.join("central.toml"), args)
}

/// Runs `roost-central` with a configuration.
fn central_with(config: &Path, args: &[&str]) -> Result<Ran> {
    let output =
        Command::new(binary("roost-central")?).args(args).arg("--config").arg(config).stdin(Stdio::null()).output()?;
    Ok(Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The same, which must succeed; its standard output.
fn done(fleet: &SimFleet, args: &[&str]) -> Result<String> {
    let ran = central(fleet, args)?;
    if ran.code == 0 { Ok(ran.stdout) } else { Err(format!("roost-central {args:?}: {ran:?}").into()) }
}

/// Runs `roost` at the central of a fleet.
fn roost(fleet: &SimFleet, args: &[&str]) -> Result<Ran> {
    let output = Command::new(binary("roost")?)
        .args(args)
        .env_clear()
        .env("HOME", fleet.root.path())
        .env("ROOST_SERVER", fleet.server())
        .env("ROOST_TOKEN_FILE", fleet.root.join("admin-token"))
        .stdin(Stdio::null())
        .output()?;
    Ok(Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A fleet whose starts take no time; `store` is central's section of that name.
fn options(nodes: u32, sandboxes: u32, store: &str) -> FleetOptions {
    FleetOptions {
        nodes,
        sandboxes,
        link: format!("heartbeat_period_ms = 500\n{store}"),
        sim: ["--start-ms", "0"].map(String::from).to_vec(),
    }
}
