//! `roost sandbox cp`, through central and at a node's socket.

use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use roost_proto::node::download_files_piece::Piece;
use roost_proto::node::upload_files_input::Input;
use roost_proto::node::upload_files_progress::Progress;
use roost_proto::node::*;
use tar::{Builder, EntryType, Header};
use tonic::{Response, Status, Streaming};

use crate::central::{Central, Recorded};
use crate::debug::Node;
use crate::run::Roost;
use crate::server::{Reply, body, problem};

type Many<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The archive that a sandbox gives for a path; none for one that is not there.
fn given(path: &str) -> Option<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut add = |kind, name: &str, link: &str, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o4750);
        header.set_uid(1000);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.append(&header, content).unwrap();
    };
    match path {
        "/home/out" => {
            add(EntryType::Directory, "out", "", b"");
            add(EntryType::Regular, "out/a.txt", "", b"hello");
            add(EntryType::Symlink, "out/l", "/etc/passwd", b"");
        }
        "/home/a.txt" | "/torn" => add(EntryType::Regular, "a.txt", "", b"hello"),
        "/hostile/dots" => add(EntryType::Regular, "../evil", "", b"x"),
        "/hostile/absolute" => add(EntryType::Regular, "/tmp/evil", "", b"x"),
        "/hostile/link" => {
            add(EntryType::Directory, "out", "", b"");
            add(EntryType::Symlink, "out/l", "..", b"");
            add(EntryType::Regular, "out/l/evil", "", b"x");
        }
        "/hostile/device" => add(EntryType::Char, "null", "", b""),
        _ => return None,
    }
    Some(archive.into_inner().unwrap())
}

fn report() -> CopyReport {
    CopyReport { files: 1, ..CopyReport::default() }
}

/// Names and contents of an archive that was sent.
fn listed(archive: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (String::from_utf8_lossy(&entry.path_bytes()).into_owned(), text)
    });
    entries.collect()
}

/// The daemon's side of an upload: says in its report what came.
pub(crate) async fn take(
    mut input: Streaming<UploadFilesInput>,
) -> Result<Response<Many<UploadFilesProgress>>, Status> {
    let (mut start, mut archive) = (UploadFilesStart::default(), Vec::new());
    while let Some(message) = input.message().await? {
        match message.input {
            Some(Input::Start(said)) => start = said,
            Some(Input::Data(data)) => archive.extend(data),
            None => {}
        }
    }
    let reason = format!("{} {} {:?}", start.path, start.rename, listed(&archive));
    let problems = vec![CopyProblem { path: "what came".into(), reason }];
    let done = CopyReport { problems, problem_count: 1, ..report() };
    let progress = UploadFilesProgress { progress: Some(Progress::Done(done)) };
    Ok(Response::new(Box::pin(futures::stream::iter([Ok(progress)]))))
}

/// The daemon's side of a download.
pub(crate) fn give(request: &DownloadFilesRequest) -> Result<Response<Many<DownloadFilesPiece>>, Status> {
    let archive = given(&request.path).ok_or_else(|| Status::not_found(format!("{} is not there", request.path)))?;
    let pieces = [Piece::Data(archive), Piece::Done(report())];
    let pieces = pieces.map(|piece| Ok(DownloadFilesPiece { piece: Some(piece) }));
    Ok(Response::new(Box::pin(futures::stream::iter(pieces))))
}

/// Central's side of both.
pub(crate) fn route(request: &Recorded) -> Reply {
    let path = request.param("path").unwrap();
    if request.method == "PUT" {
        let line = match path {
            "/full" => {
                r#"{"problem":{"type":"/problems/no-space","title":"t","status":507,"code":"no-space","detail":"no room is left for /full/a"}}"#
            }
            _ => r#"{"done":{"files":2,"directories":1,"links":0,"bytes":10}}"#,
        };
        return http::Response::builder().body(body(format!("{line}\n"))).unwrap();
    }
    assert_eq!(request.header("te"), Some("trailers"));
    let Some(archive) = given(path) else { return problem(404, "path-not-found", "it is not there", &[]) };
    let mut trailers = HeaderMap::new();
    if path == "/torn" {
        let detail = r#"{"type":"/problems/x","title":"t","status":409,"code":"sandbox-not-ready","detail":"it stopped running"}"#;
        trailers.insert("roost-problem", detail.parse().unwrap());
    } else {
        let report = r#"{"files":1,"directories":0,"links":0,"bytes":5}"#;
        trailers.insert("roost-copy", report.parse().unwrap());
    }
    let frames = [Ok(Frame::data(Bytes::from(archive))), Ok(Frame::trailers(trailers))];
    let response = http::Response::builder().header("trailer", "roost-copy, roost-problem");
    response.body(StreamBody::new(futures::stream::iter(frames)).boxed_unsync()).unwrap()
}

fn with_demo() -> (Central, Roost) {
    let central = Central::start();
    let roost = Roost::of(&central);
    roost.run(&["sandbox", "create", "desktop", "--name", "demo"]).ok();
    (central, roost)
}

#[test]
fn local_trees_go_in_as_one_archive_under_their_names() {
    let (central, roost) = with_demo();
    std::fs::create_dir(roost.home().join("src")).unwrap();
    std::fs::write(roost.home().join("src/a"), "one").unwrap();
    std::fs::write(roost.home().join("b:c"), "two").unwrap();
    let line = roost.run(&["sandbox", "cp", "src", "./b:c", "demo:/home/agent"]).ok();
    assert_eq!(line, "2 files, 1 directory copied to demo:/home/agent (10 B)\n");
    roost.run(&["sandbox", "cp", "src/.", "demo:/home/new"]).ok();
    let requests = central.requests("PUT", "/sandboxes/demo/files");
    let names = |request: &Recorded| listed(&request.body).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!((requests[0].param("path"), requests[0].param("rename")), (Some("/home/agent"), Some("false")));
    assert_eq!(listed(&requests[0].body)[1], ("src/a".into(), "one".into()));
    assert_eq!(names(&requests[0]), ["src", "src/a", "b:c"]);
    assert_eq!((requests[1].param("rename"), names(&requests[1])), (Some("true"), vec![".".into(), "a".into()]));
}

#[test]
fn an_archive_on_standard_input_goes_in_as_it_is() {
    let (central, roost) = with_demo();
    let archive = given("/home/out").unwrap();
    roost.run_with(&["sandbox", "cp", "-", "demo:/home"], &archive).ok();
    let request = central.requests("PUT", "/sandboxes/demo/files").remove(0);
    assert_eq!(&request.body[..], archive);
    assert_eq!(request.param("rename"), Some("false"));
}

#[test]
fn a_tree_comes_out_with_times_and_links_and_without_setuid() {
    let (_central, roost) = with_demo();
    let json = roost.run(&["sandbox", "cp", "demo:/home/out", "new", "-o", "json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["files"], &json["directories"], &json["links"], &json["bytes"]),
        (&1.into(), &1.into(), &1.into(), &5.into())
    );
    let new = roost.home().join("new");
    assert_eq!(std::fs::read(new.join("a.txt")).unwrap(), b"hello");
    let facts = new.join("a.txt").metadata().unwrap();
    assert_eq!(facts.permissions().mode() & 0o7777, 0o750);
    assert_eq!(facts.modified().unwrap(), std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000));
    assert_eq!(std::fs::read_link(new.join("l")).unwrap(), std::path::Path::new("/etc/passwd"));
    // The directory is there now: the next copy goes into it.
    roost.run(&["sandbox", "cp", "demo:/home/a.txt", "new/"]).ok();
    roost.run(&["sandbox", "cp", "demo:/home/out", "new"]).ok();
    assert!(new.join("out/a.txt").exists());
    let raw = roost.run(&["sandbox", "cp", "demo:/home/out", "-"]);
    assert_eq!(raw.raw, given("/home/out").unwrap());
}

#[test]
fn a_hostile_archive_writes_nothing_outside_of_the_target() {
    let (_central, roost) = with_demo();
    let inside = roost.home().join("inside");
    std::fs::create_dir(&inside).unwrap();
    // As an earlier copy may have left it.
    symlink(roost.home(), inside.join("out")).unwrap();
    for (path, text) in [
        ("/hostile/dots", "`..`"),
        ("/hostile/absolute", "absolute"),
        ("/hostile/link", "link"),
        ("/hostile/device", "device"),
        ("/home/out", "link"),
    ] {
        let error = roost.run(&["sandbox", "cp", &format!("demo:{path}"), "inside"]).failed(1);
        assert!(error.contains(text), "{path}: {error}");
    }
    std::fs::remove_file(inside.join("out")).unwrap();
    assert!(roost.run(&["sandbox", "cp", "demo:/hostile/link", "inside"]).failed(1).contains("link"));
    let home: Vec<_> = std::fs::read_dir(roost.home()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(home, ["inside"]);
    assert!(!std::path::Path::new("/tmp/evil").exists());
}

#[test]
fn refusals_have_their_exit_codes_and_a_torn_copy_is_none() {
    let (_central, roost) = with_demo();
    roost.run(&["sandbox", "cp", "demo:/nothing", "."]).failed(3);
    roost.run(&["sandbox", "cp", "nothing", "demo:/x"]).failed(3);
    roost.run(&["sandbox", "cp", "demo:/home/a.txt", "no/such/place"]).failed(3);
    std::fs::write(roost.home().join("a"), "a").unwrap();
    let full = roost.run(&["sandbox", "cp", "a", "demo:/full"]).failed(4);
    assert!(full.contains("no room is left for /full/a"), "{full}");
    let torn = roost.run(&["sandbox", "cp", "demo:/torn", "torn"]).failed(4);
    assert!(torn.contains("it stopped running"), "{torn}");
    roost.run(&["sandbox", "cp", "a", "b"]).failed(2);
}

#[test]
fn a_node_takes_and_gives_files_without_central_and_problems_fail_the_copy() {
    let node = Node::start();
    std::fs::write(node.roost.home().join("a"), "one").unwrap();
    let socket = node.roost.home().join("roostd.sock");
    let cp =
        |from: &str, to: &str| node.roost.run(&["sandbox", "cp", from, to, "--node-socket", socket.to_str().unwrap()]);
    let error = cp("a", "demo:/home/b").failed(1);
    assert_eq!(error, "error: what came: /home/b true [(\"a\", \"one\")]\n");
    assert!(cp("demo:/home/a.txt", "got").ok().contains("1 file copied to got"));
    assert_eq!(std::fs::read(node.roost.home().join("got")).unwrap(), b"hello");
    cp("demo:/nothing", "x").failed(3);
    cp("nobody:/home/a.txt", "x").failed(3);
}
