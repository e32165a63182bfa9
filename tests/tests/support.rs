//! Doctor, abilities, traces and support bundles on a real node and central.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use roost_tests::system::System;
use roost_tests::{Result, eventually};
use serde_json::Value;

/// How long a step that waits for processes may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Secrets of many shapes. Each is planted somewhere and must not be found in
/// the bundle.
const IN_ENVIRONMENT: &str = "correct-horse-battery-staple";
const SHORT_IN_ENVIRONMENT: &str = "hunter2";
const IN_ARGUMENT: &str = "planted-argument-4711";
const IN_URL: &str = "planted-url-password";
const IN_TOKEN: &str = "sk-planted0123456789abcdef";
/// Too short to be looked for anywhere, were it not known as a password.
const OF_REGISTRY: &str = "horse7";
/// What replaced it while the daemon ran.
const OF_REGISTRY_LATER: &str = "zebra-9";

/// The files of a bundle by their path below its one directory.
fn unpack(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut tar = tar::Archive::new(zstd::Decoder::new(std::fs::File::open(path)?)?);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        files.insert(name.split_once('/').ok_or("no directory")?.1.to_owned(), text);
    }
    Ok(files)
}

/// A template whose environment and command hold secrets.
fn apply_template(system: &System) -> Result<()> {
    let text = format!(
        "name = \"secretive\"\nimage = \"roost/desktop\"\nprofile = \"small\"\nwindow_manager = \"none\"\n\
         command = [\"/bin/sh\", \"-c\", \"sleep 1000000; : {IN_ARGUMENT}\"]\n\
         [env]\nAPI_KEY = \"{IN_ENVIRONMENT}\"\nPIN = \"{SHORT_IN_ENVIRONMENT}\"\n\
         DATABASE = \"postgres://u:{IN_URL}@db/x\"\nOPENAI = \"{IN_TOKEN}\"\n"
    );
    let path = system.node.root.join("secretive.toml");
    std::fs::write(&path, text)?;
    system.roost(&["template", "apply", "-f", &path.display().to_string()])?.success()
}

fn write_credentials(path: &Path, password: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("[registry.\"localhost:9\"]\nusername = \"node\"\npassword = \"{password}\"\n"))?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}

#[tokio::test]
async fn a_bundle_of_central_and_node_holds_much_and_no_secret() -> Result<()> {
    let mut system = System::start().await?;
    let credentials = system.node.root.join("registries.toml");
    write_credentials(&credentials, OF_REGISTRY)?;
    system.node.configure(&format!("[images]\ncredentials_file = {credentials:?}\nattempts = 1\n"));
    system.node.kill_daemon();
    system.node.restart().await?;
    system.node_is_online().await?;
    apply_template(&system)?;
    system.roost(&["sandbox", "create", "secretive", "--name", "one", "--wait"])?.success()?;
    // A log filter is logged as it was given: a way into the log for a text.
    let socket = system.node.root.join("roostd.sock").display().to_string();
    let filter = format!("info,{IN_ENVIRONMENT}=debug,{OF_REGISTRY}=debug,{OF_REGISTRY_LATER}=debug");
    system.roost(&["debug", "log-level", "--node-socket", &socket, &filter])?.success()?;
    // A pull reads the credentials, though nobody answers it.
    let pulled = system.roost(&["image", "pull", "localhost:9/app", "--node-socket", &socket])?;
    assert_ne!(pulled.code, 0);
    write_credentials(&credentials, OF_REGISTRY_LATER)?;

    let node = system.roost(&["node", "ls", "-o", "name"])?.stdout.trim().to_owned();
    let out = system.node.root.join("bundle.tar.zst");
    let out_text = out.display().to_string();
    let args =
        ["debug", "bundle", "--node-socket", &socket, "--socket", "--central", "--node", &node, "--out", &out_text];
    system.roost(&args)?.success()?;
    let files = unpack(&out)?;

    let directory = format!("node-{node}");
    for (source, names) in [
        ("local", &["log.txt", "state.json", "ledger.json", "doctor.txt", "cgroups.json", "mounts.txt"][..]),
        (directory.as_str(), &["config.json", "containerd.json", "tasks.json", "metrics.txt", "starts.json"]),
        ("central", &["config.json", "log.txt", "sandboxes.json", "templates.json", "nodes.json", "metrics.txt"]),
    ] {
        for name in names {
            let text = files
                .get(&format!("{source}/{name}"))
                .ok_or_else(|| format!("no {source}/{name} in {:?}", files.keys()))?;
            assert!(text.len() > 2, "{source}/{name} is empty");
        }
    }
    assert!(files["local/log.txt"].contains("sandbox changed phase"), "{}", files["local/log.txt"]);
    let log = &files["local/log.txt"];
    assert!(log.contains("log filter changed") && log.contains("[redacted]"), "{log}");
    assert!(files["local/state.json"].contains("API_KEY"), "names of variables stay");
    assert!(files["local/containerd.json"].contains("-workload"));
    let manifest: Value = serde_json::from_str(&files["manifest.json"])?;
    assert!(manifest["left_out"]["local"].as_array().is_some_and(|left| left.len() >= 5), "{manifest}");

    let admin = std::fs::read_to_string(system.node.root.join("admin-token"))?;
    let join = std::fs::read_to_string(system.node.root.join("join-token"))?;
    let identity: Value = serde_json::from_slice(&std::fs::read(system.node.state().join("identity/identity.json"))?)?;
    let mut secrets =
        vec![IN_ENVIRONMENT, SHORT_IN_ENVIRONMENT, IN_ARGUMENT, IN_URL, IN_TOKEN, admin.trim(), join.trim()];
    secrets.extend([OF_REGISTRY, OF_REGISTRY_LATER]);
    secrets.extend(join.trim().split_once('.').map(|(secret, _)| secret));
    let keys: Vec<&str> = identity.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str()).collect();
    let key_lines =
        keys.iter().filter(|text| text.contains("PRIVATE KEY")).flat_map(|text| text.lines().skip(1).take(1));
    secrets.extend(key_lines);
    for (name, text) in &files {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret:?} is in {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_node_tells_what_it_can_do_and_how_its_starts_went() -> Result<()> {
    let system = System::start().await?;
    let node = system.roost(&["node", "ls", "-o", "name"])?.stdout.trim().to_owned();
    let abilities = eventually("the abilities are known", LIMIT, || async {
        let shown = system.roost(&["node", "get", &node, "-o", "json"])?.json()?;
        let abilities = shown["status"]["abilities"].as_array().cloned().unwrap_or_default();
        Ok(abilities.iter().any(|a| a["name"] == "runtime/runc").then_some(abilities))
    })
    .await?;
    let usable = |name: &str| abilities.iter().find(|a| a["name"] == name).map(|a| a["is_usable"] == true);
    assert_eq!(usable("runtime/runc"), Some(true));
    assert_eq!(usable("idmapped-overlay"), Some(true));
    assert_eq!(usable("display/xvfb"), Some(true));
    assert_eq!(usable("display/xvfb-glx"), Some(false), "its image was not imported");
    let card = system.roost(&["node", "get", &node])?.stdout;
    assert!(card.contains("runtime/runc") && card.contains("needs the image roost/display-glx:latest"), "{card}");

    let report = system.roost(&["doctor", "--node", &node, "--sandboxes", "10", "-o", "json"])?.json()?;
    let check =
        |name: &str| report["checks"].as_array().and_then(|all| all.iter().find(|c| c["name"] == name).cloned());
    for name in ["kernel", "idmapped-overlay", "limits", "containerd", "snapshotter", "oci-runtime", "ports"] {
        assert_eq!(check(name).map(|c| c["verdict"].clone()), Some("ok".into()), "{name}: {report}");
    }

    for name in ["a", "b"] {
        system.roost(&["sandbox", "create", "bare", "--name", name, "--wait"])?.success()?;
    }
    let all = system.roost(&["debug", "trace", "--node", &node, "-o", "json"])?.json()?;
    assert_eq!((all["ready"].as_u64(), all["starts"].as_array().map(Vec::len)), (Some(2), Some(2)));
    let one = system.roost(&["debug", "trace", "a", "--node", &node, "--last", "5", "-o", "json"])?.json()?;
    assert_eq!((one["ready"].as_u64(), one["starts"][0]["name"].as_str()), (Some(1), Some("a")));
    Ok(())
}

#[tokio::test]
async fn a_host_is_checked_before_anything_runs_and_nothing_stays() -> Result<()> {
    let root = roost_tests::Root::create()?;
    let config = root.join("roostd.toml");
    let text = format!(
        "root = \"{0}/r\"\n[containerd]\nsocket = \"{0}/none.sock\"\n[api]\nsocket = \"{0}/roostd.sock\"\n[admin]\nlisten = \"127.0.0.1:0\"\n",
        root.path().display()
    );
    std::fs::write(&config, text)?;
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo");
    let before = mounts()?.lines().count();
    let roostd = roost_tests::node::binary("roostd")?;
    let args = ["doctor", "--sandboxes", "10", "--output", "json", "--config", &config.display().to_string()];
    let output = std::process::Command::new(roostd).args(args).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let verdict = |name: &str| {
        let check = report["checks"].as_array().and_then(|all| all.iter().find(|check| check["name"] == name));
        check.map(|check| check["verdict"].clone()).unwrap_or_default()
    };
    assert_eq!(verdict("idmapped-overlay"), "ok", "{report}");
    assert_eq!(verdict("containerd"), "warn", "installed, and nothing answers: {report}");
    let has_failed = report["checks"].as_array().is_some_and(|all| all.iter().any(|check| check["verdict"] == "fail"));
    assert_eq!(output.status.code(), Some(i32::from(has_failed)));
    assert_eq!(mounts()?.lines().count(), before, "no mount stays");
    let names: Vec<_> = std::fs::read_dir(root.path())?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["roostd.toml"], "no file stays");
    Ok(())
}
