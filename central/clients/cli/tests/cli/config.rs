//! `roost config`, and which server is called as whom.

use std::os::unix::fs::PermissionsExt as _;

use crate::central::{Central, TOKEN};
use crate::run::Roost;

fn set_context(roost: &Roost, name: &str, url: &str) {
    roost.run_with(&["config", "set-context", name, "--server", url, "--token-stdin"], TOKEN.as_bytes()).ok();
}

#[test]
fn a_context_is_made_used_and_shown_without_its_token() {
    let central = Central::start();
    let roost = Roost::alone();
    set_context(&roost, "lab", &central.url());
    roost.run(&["sandbox", "ls"]).ok();
    let path = roost.home().join(".config/roost/config.toml");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let view = roost.run(&["config", "view"]).ok();
    assert!(view.contains("[contexts.lab]") && view.contains("\"***\"") && !view.contains(TOKEN), "{view}");
    assert_eq!(roost.run(&["config", "current-context"]).ok(), "lab\n");
    assert!(!roost.run(&["config", "get-contexts", "-o", "json"]).ok().contains(TOKEN));
}

#[test]
fn contexts_are_switched_and_deleted() {
    let roost = Roost::alone();
    set_context(&roost, "a", "http://127.0.0.1:1");
    set_context(&roost, "b", "https://roost.lab");
    roost.run(&["config", "use-context", "b"]).ok();
    assert_eq!(roost.run(&["config", "current-context"]).ok(), "b\n");
    assert!(roost.run(&["config", "use-context", "c"]).failed(2).contains("there is: a, b"));
    roost.run(&["config", "delete-context", "b"]).ok();
    assert!(roost.run(&["config", "current-context"]).failed(2).contains("use-context"));
}

#[test]
fn a_changed_server_does_not_inherit_the_token() {
    let central = Central::start();
    let roost = Roost::alone();
    set_context(&roost, "lab", "http://127.0.0.1:1");
    roost.run(&["config", "set-context", "lab", "--server", &central.url()]).ok();
    let error = roost.run(&["sandbox", "ls"]).failed(5);
    assert!(error.contains("context \"lab\" has no token"), "{error}");
    assert!(central.requests("GET", "/sandboxes").iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_contexts_token_is_not_sent_to_another_server() {
    let central = Central::start();
    let roost = Roost::alone();
    set_context(&roost, "lab", "http://127.0.0.1:1");
    roost.run(&["sandbox", "ls", "--server", &central.url()]).failed(5);
    assert!(central.requests("GET", "/sandboxes").iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_token_file_is_read_at_each_call() {
    let central = Central::start();
    let roost = Roost::alone();
    let file = roost.home().join("token");
    std::fs::write(&file, "old\n").unwrap();
    roost.run(&["config", "set-context", "lab", "--server", &central.url(), "--token-file", "token"]).ok();
    roost.run(&["sandbox", "ls"]).failed(5);
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    roost.run(&["sandbox", "ls"]).ok();
}

#[test]
fn a_file_that_others_can_read_is_warned_of() {
    let central = Central::start();
    let roost = Roost::alone();
    set_context(&roost, "lab", &central.url());
    let path = roost.home().join(".config/roost/config.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ended = roost.run(&["sandbox", "ls"]);
    assert!(ended.stderr.starts_with("warning: ") && ended.stderr.contains("chmod 600"), "{}", ended.stderr);
}

#[test]
fn a_token_does_not_travel_over_plain_http() {
    let roost = Roost::alone().var("ROOST_TOKEN", "x").var("ROOST_SERVER", "http://192.0.2.1:7070");
    let error = roost.run(&["sandbox", "ls"]).failed(2);
    assert!(error.contains("refusing to send the token over plain http to http://192.0.2.1:7070"), "{error}");
    assert!(error.contains("--insecure"), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_told_with_what_was_tried() {
    let roost = Roost::alone();
    set_context(&roost, "lab", "http://127.0.0.1:1");
    let error = roost.run(&["sandbox", "ls"]).failed(7);
    assert!(error.starts_with("error: cannot reach the server at http://127.0.0.1:1: Connection refused"), "{error}");
    assert!(error.contains("the address comes from context \"lab\"") && error.contains("use-context"), "{error}");
}

#[test]
fn a_broken_file_is_told_with_its_line() {
    let roost = Roost::alone();
    let path = roost.home().join("c.toml");
    std::fs::write(&path, "[contexts.lab]\nserver = \"http://x\"\ntokn = \"secret\"\n").unwrap();
    let error = roost.var("ROOST_CONFIG", path.to_str().unwrap()).run(&["sandbox", "ls"]).failed(2);
    assert!(error.contains("line 3: unknown field `tokn`") && !error.contains("secret"), "{error}");
}

#[test]
fn https_is_trusted_by_the_contexts_certificates_only() {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    let central = Central::start_tls(&ca_file);
    let roost = Roost::alone();
    set_context(&roost, "lab", &central.url());
    let error = roost.run(&["sandbox", "ls"]).failed(7);
    assert!(error.contains("the TLS handshake failed") || error.contains("certificate"), "{error}");
    roost.run(&["config", "set-context", "lab", "--ca-file", ca_file.to_str().unwrap()]).ok();
    roost.run(&["sandbox", "ls"]).ok();
    central.state().put(crate::fakes::ready(crate::fakes::named("demo")));
    assert_eq!(roost.run(&["sandbox", "exec", "demo", "--", "echo", "hi"]).ok(), "hi\n");
}

#[test]
fn version_and_completion_need_no_server() {
    let roost = Roost::alone();
    assert!(roost.run(&["version", "--client"]).ok().contains(env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        assert!(roost.run(&["completion", shell]).ok().contains("screenshot"), "{shell}");
    }
    let central = Central::start();
    assert!(Roost::of(&central).run(&["version"]).ok().contains("server  0.1.0"));
}
