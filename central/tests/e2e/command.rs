//! The program itself: its commands, its end.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::harness::soon;

fn roost_central(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roost-central"));
    command.args(arguments).arg("--config").arg(config).kill_on_drop(true);
    command
}

async fn run(config: &Path, arguments: &[&str]) -> Output {
    soon("a command", roost_central(config, arguments).output()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn write_config(dir: &Path, extra: &str) -> PathBuf {
    let path = dir.join("central.toml");
    let listen = "listen = \"127.0.0.1:0\"";
    let text = format!(
        "state_dir = \"{}/state\"\n{extra}\n[log]\nformat = \"json\"\n[api]\n{listen}\n[link]\n{listen}\n[admin]\n{listen}\n",
        dir.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_faulty_configuration_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let good = write_config(dir.path(), "");
    assert!(run(&good, &["check-config"]).await.status.success());
    let bad = write_config(dir.path(), "colour = 1");
    let output = run(&bad, &["check-config"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("colour"), "{output:?}");
    assert!(!dir.path().join("state").exists(), "check-config made something");
    let output = run(Path::new("/nonexistent.toml"), &[]).await;
    assert!(text(&output.stderr).contains("/nonexistent.toml"), "{output:?}");
}

#[tokio::test]
async fn it_serves_until_sigterm_and_prints_its_first_token_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), "");
    for is_first in [true, false] {
        let mut central =
            roost_central(&config, &["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(central.stderr.take().unwrap()).lines();
        soon("the start", async {
            while !log.next_line().await.unwrap().expect("it ended").contains("central serves") {}
        })
        .await;
        let joined = run(&config, &["join-token", "--expires-in", "5m"]).await;
        let token = text(&joined.stdout);
        assert!(token.starts_with("rjt_") && token.split_once('.').is_some_and(|(_, ca)| ca.len() == 64), "{joined:?}");
        let too_long = run(&config, &["join-token", "--expires-in", "30d"]).await;
        assert!(!too_long.status.success() && text(&too_long.stderr).contains("a week"), "{too_long:?}");
        assert!(text(&run(&config, &["admin-token"]).await.stdout).starts_with("rat_"));

        let pid = central.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let output = soon("the end", central.wait_with_output()).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stdout).starts_with("rat_"), is_first);
    }
}

#[tokio::test]
async fn a_database_is_exported_imported_and_checked_by_command() {
    use std::os::unix::fs::PermissionsExt;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = write_config(from.path(), "");
    let store = format!("[store]\nurl = \"{}\"\n", crate::postgres::Server::shared().database());
    let target = write_config(to.path(), &store);
    let token = text(&run(&source, &["admin-token"]).await.stdout);
    assert!(token.starts_with("rat_"), "{token}");
    let file = from.path().join("out.roost").display().to_string();
    let exported = run(&source, &["store", "export", "--out", &file]).await;
    assert!(exported.status.success() && text(&exported.stdout).contains("2 rows"), "{exported:?}");
    assert_eq!(text(&exported.stderr), "", "a bar in a pipe");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = run(&source, &["store", "export", "--out", &file]).await;
    assert!(again.status.code() == Some(1) && text(&again.stderr).contains(&file), "{again:?}");

    let imported = run(&target, &["store", "import", "--in", &file]).await;
    assert!(imported.status.success(), "{imported:?}");
    let again = run(&target, &["store", "import", "--in", &file]).await;
    assert!(again.status.code() == Some(1) && text(&again.stderr).contains("--force"), "{again:?}");
    let checked = run(&target, &["store", "check", "-o", "json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert!(checked.status.success() && report["schema"] == report["newest"], "{report}");
    assert!(!text(&imported.stdout).contains(&token) && !text(&exported.stdout).contains(&token));
}
