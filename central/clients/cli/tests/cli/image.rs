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
