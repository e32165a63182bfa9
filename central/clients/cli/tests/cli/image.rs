//! `roost image`.

use crate::central::Central;
use crate::fakes;
use crate::run::Roost;

fn with_node() -> (Central, Roost) {
    let central = Central::start();
    central.state().nodes = vec![fakes::node(fakes::NODE, "gpu-a")];
    let roost = Roost::of(&central);
    (central, roost)
}

#[test]
fn an_archive_is_sent_whole_and_its_steps_told() {
    let (central, roost) = with_node();
    std::fs::write(roost.home().join("image.tar"), vec![7; 3 << 20]).unwrap();
    let ended = roost.run(&["image", "import", "image.tar", "--node", "gpu-a", "--reference", "my/desktop:1"]);
    assert_eq!(ended.stderr, "send\nunpack\n");
    assert_eq!(ended.ok(), "my/desktop:1 imported on gpu-a (cdcdcdcdcdcd, 3 MiB)\n");
    let request = central.requests("POST", &format!("/nodes/{}/images", fakes::NODE)).remove(0);
    assert_eq!(request.header("content-length"), Some("3145728"));
}

#[test]
fn an_archive_can_come_from_standard_input_to_the_only_node() {
    let (_central, roost) = with_node();
    let line = roost.run_with(&["image", "import", "-"], &[7; 1000]).ok();
    assert_eq!(line, "from/archive:latest imported on gpu-a (cdcdcdcdcdcd, 1000 B)\n");
}

#[test]
fn a_bad_archive_is_refused_in_the_nodes_words() {
    let (_central, roost) = with_node();
    let error = roost.run_with(&["image", "import", "-"], b"bad").failed(2);
    assert!(error.contains("error: the archive holds no index.json"), "{error}");
}

#[test]
fn the_node_must_be_known() {
    let (central, roost) = with_node();
    assert!(roost.run(&["image", "import", "-", "--node", "gpu-b"]).failed(3).contains("use one of gpu-a"));
    central.state().nodes.push(fakes::node("node-aaaaaaaaaaaaaaaa", "gpu-b"));
    assert!(roost.run(&["image", "import", "-"]).failed(2).contains("--node"));
    assert!(roost.run(&["image", "import", "/nonexistent.tar", "--node", "gpu-a"]).failed(1).contains("No such file"));
}

#[test]
fn images_are_listed_by_the_names_of_their_nodes() {
    let (_central, roost) = with_node();
    let table = roost.run(&["image", "ls"]).ok();
    let row: Vec<_> = table.lines().nth(1).unwrap().split("   ").map(str::trim).collect();
    assert_eq!(row, ["roost/desktop:latest", "abababababab", "286 MiB", "gpu-a"]);
    assert_eq!(
        roost.run(&["image", "rm", "roost/desktop", "--all-nodes"]).ok(),
        "roost/desktop:latest removed from gpu-a\n"
    );
}

#[test]
fn a_pull_tells_its_steps_and_what_is_where() {
    let (central, roost) = with_node();
    let ended = roost.run(&["image", "pull", "registry.example/app:1", "--node", "gpu-a", "--pin"]);
    assert_eq!(ended.stderr, "gpu-a: download from mirror.example\n");
    assert_eq!(ended.ok(), "registry.example/app:1 is on gpu-a (cdcdcdcdcdcd, 3 MiB)\n");
    let body: serde_json::Value = serde_json::from_slice(&central.requests("POST", "/images/pull")[0].body).unwrap();
    assert_eq!((&body["policy"], &body["pin"], &body["nodes"][0]), (&"always".into(), &true.into(), &"gpu-a".into()));
}

#[test]
fn a_node_that_fails_is_told_and_the_others_are_not_lost() {
    let (_central, roost) = with_node();
    let ended = roost.run(&["image", "pull", "registry.example/app:1", "--all-nodes", "-o", "json"]);
    let outcomes: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(outcomes[0]["image"]["reference"], "registry.example/app:1");
    assert_eq!(outcomes[1]["problem"]["code"], "node-error");
    assert!(ended.failed(1).contains("gpu-b: no space for layer 1"));
}

#[test]
fn a_pull_must_say_where_to() {
    let (_central, roost) = with_node();
    assert!(roost.run(&["image", "pull", "registry.example/app:1"]).failed(2).contains("--all-nodes"));
}

#[test]
fn what_pruning_took_away_is_shown_with_its_size() {
    let (central, roost) = with_node();
    let ended = roost.run(&["image", "prune", "--node", "gpu-a", "--unused-for", "2s"]);
    let body: serde_json::Value = serde_json::from_slice(&central.requests("POST", "/images/prune")[0].body).unwrap();
    assert_eq!((&body["unused_for_s"], &body["nodes"][0]), (&2.into(), &"gpu-a".into()));
    assert!(ended.stderr.contains("2 MiB more are free"), "{}", ended.stderr);
    let table = ended.ok();
    let row: Vec<_> = table.lines().nth(1).unwrap().split("   ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(row[..3], ["gpu-a", "old/app:1", "3 MiB"]);
}

#[test]
fn a_node_that_cannot_prune_is_told_beside_what_the_others_did() {
    let (_central, roost) = with_node();
    let ended = roost.run(&["image", "prune", "--all-nodes"]);
    assert!(ended.stdout.contains("old/app:1"), "{}", ended.stdout);
    assert!(ended.failed(1).contains("gpu-b: containerd does not answer"));
}

#[test]
fn every_verb_finds_the_daemon_where_the_environment_says() {
    let roost = Roost::alone().var("ROOST_NODE_SOCKET", "/nonexistent/here.sock");
    let verbs: [&[&str]; 7] = [
        &["ls"],
        &["pull", "registry.example/app:1"],
        &["import", "image.tar"],
        &["rm", "my/app:1"],
        &["prune"],
        &["export", "my/app:1", "-o", "app.tar"],
        &["pin", "my/app:1"],
    ];
    for verb in verbs {
        let line = [&["image"], verb, &["--node-socket"]].concat();
        assert!(roost.run(&line).failed(7).contains("/nonexistent/here.sock"), "{verb:?}");
        let line = [&line[..], &["/nonexistent/there.sock"]].concat();
        assert!(roost.run(&line).failed(7).contains("/nonexistent/there.sock"), "{verb:?}");
    }
}

#[test]
fn an_export_has_its_name_only_when_it_is_whole() {
    let (_central, roost) = with_node();
    let file = roost.home().join("app.tar");
    let names = || std::fs::read_dir(roost.home()).unwrap().count();
    let line = roost.run(&["image", "export", "my/app:1", "--node", "gpu-a", "-o", "app.tar"]).ok();
    assert_eq!((line.as_str(), std::fs::read(&file).unwrap().as_slice()), ("app.tar (5 B)\n", &b"whole"[..]));
    std::fs::write(&file, "earlier").unwrap();
    let before = names();
    roost.run(&["image", "export", "cut/app:1", "--node", "gpu-a", "-o", "app.tar"]).failed(7);
    assert_eq!(std::fs::read(&file).unwrap(), b"earlier", "half an archive took its place");
    assert_eq!(names(), before, "half an archive is left");
    let piped = roost.run(&["image", "export", "my/app:1", "--node", "gpu-a", "-o", "/dev/null"]);
    assert_eq!(piped.ok(), "/dev/null (5 B)\n");
}
