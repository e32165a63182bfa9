//! `roost sandbox exec`.

use crate::central::Central;
use crate::fakes;
use crate::run::Roost;

fn ready() -> (Central, Roost) {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    (central, roost)
}

#[test]
fn the_programs_output_and_exit_code_are_passed_through() {
    let (_central, roost) = ready();
    assert_eq!(roost.run(&["sandbox", "exec", "demo", "--", "echo", "a b", "--c"]).ok(), "a b --c\n");
    let ended = roost.run(&["sandbox", "exec", "demo", "--", "warn", "exit=42"]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (42, "", "careful\n"));
}

#[test]
fn input_goes_in_and_its_end_is_told() {
    let (_central, roost) = ready();
    // More than any buffer between the two holds.
    let input: Vec<u8> = (0..2_000_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let ended = roost.run_with(&["sandbox", "exec", "-i", "demo", "--", "cat", "exit=3"], &input);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.raw == input, "{} of {} bytes came back", ended.raw.len(), input.len());
}

#[test]
fn without_i_the_program_sees_the_end_of_its_input() {
    let (_central, roost) = ready();
    let ended = roost.run_with(&["sandbox", "exec", "demo", "--", "cat"], b"not passed on");
    assert_eq!(ended.ok(), "");
}

#[test]
fn a_program_that_cannot_run_is_told_as_a_problem() {
    let (_central, roost) = ready();
    let error = roost.run(&["sandbox", "exec", "demo", "--", "missing"]).failed(3);
    assert!(error.starts_with("error: there is no program \"missing\" in the image\n"), "{error}");
    let error = roost.run(&["sandbox", "exec", "other", "--", "echo"]).failed(3);
    assert!(error.starts_with("error: there is no sandbox \"other\"\n"), "{error}");
}

#[test]
fn a_connection_that_ends_before_the_program_is_an_error() {
    let (_central, roost) = ready();
    let error = roost.run(&["sandbox", "exec", "demo", "--", "break"]).failed(7);
    assert!(error.starts_with("error: the connection broke during the program's run"), "{error}");
}

#[test]
fn a_terminal_is_refused_where_there_is_none() {
    let (_central, roost) = ready();
    let error = roost.run(&["sandbox", "exec", "-it", "demo", "--", "cat"]).failed(2);
    assert!(error.contains("leave -t out in scripts"), "{error}");
}

#[test]
fn the_request_says_how_to_run_the_program() {
    let (central, roost) = ready();
    roost.run(&["sandbox", "exec", "-w", "/tmp", "demo", "--", "echo", "x"]).ok();
    let request = central.requests("GET", "/sandboxes/demo/exec").remove(0);
    assert_eq!(request.header("sec-websocket-protocol"), Some("v5.channel.k8s.io"));
    let params = ["tty", "stdin", "working_dir"].map(|name| request.param(name));
    assert_eq!(params, [Some("false"), Some("false"), Some("/tmp")]);
}
