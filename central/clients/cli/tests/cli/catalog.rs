//! `roost template` and `roost profile`.

use crate::central::Central;
use crate::run::Roost;

const TEMPLATE: &str = "name = \"mine\"\nimage = \"roost/desktop\"\nprofile = \"small\"\n\n[env]\nA = \"1\"\n";

#[test]
fn what_is_applied_is_listed_shown_and_removed() {
    let central = Central::start();
    let roost = Roost::of(&central);
    std::fs::write(roost.home().join("t.toml"), TEMPLATE).unwrap();
    assert_eq!(roost.run(&["template", "apply", "-f", "t.toml"]).ok(), "template mine applied\n");
    let table = roost.run(&["template", "ls"]).ok();
    assert!(table.lines().nth(1).unwrap().starts_with("mine   roost/desktop:latest   small"), "{table}");
    let shown = roost.run(&["template", "get", "mine"]).ok();
    assert_eq!(roost.run_with(&["template", "apply", "-f", "-"], shown.as_bytes()).ok(), "template mine applied\n");
    assert_eq!(central.state().templates["mine"].env["A"], "1");
    assert_eq!(roost.run(&["template", "rm", "mine"]).ok(), "template mine deleted\n");
    roost.run(&["template", "rm", "mine"]).failed(3);
}

#[test]
fn nothing_is_sent_when_one_file_is_wrong() {
    let central = Central::start();
    let roost = Roost::of(&central);
    std::fs::write(roost.home().join("good.toml"), "name = \"good\"\n").unwrap();
    std::fs::write(roost.home().join("bad.toml"), "name = \"bad\"\n[resources]\nshm_bytes = 1\n").unwrap();
    let error = roost.run(&["profile", "apply", "-f", "good.toml", "-f", "bad.toml"]).failed(2);
    assert!(error.contains("bad.toml is not a valid profile: resources.shm_bytes"), "{error}");
    assert!(central.state().profiles.is_empty());
}

#[test]
fn the_manifests_that_roost_ships_are_valid() {
    let central = Central::start();
    let roost = Roost::of(&central);
    let config = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../deploy/config");
    for (noun, folder) in [("template", "templates"), ("profile", "profiles")] {
        for file in std::fs::read_dir(config.join(folder)).unwrap() {
            roost.run(&[noun, "apply", "-f", file.unwrap().path().to_str().unwrap()]).ok();
        }
    }
    assert!(central.state().templates.contains_key("desktop"));
}
