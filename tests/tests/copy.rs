//! Files in and out of running sandboxes, and their output as it grows: by the
//! command at the node's socket, and by the API where a copy is to break.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Phase, Restart, RestartPolicy};
use roost_proto::node::upload_files_input::Input;
use roost_proto::node::{self as wire};
use roost_tests::client::request;
use roost_tests::node::{binary, spec};
use roost_tests::system::System;
use roost_tests::{Result, TestNode, eventually};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const LIMIT: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

async fn sh(node: &TestNode, id: &SandboxId, script: &str) -> Result<String> {
    let result = node.client.exec(id, &["/bin/sh", "-c", script]).await?;
    assert_eq!(result.exit_code, 0, "{script}: {result:?}");
    Ok(result.stdout)
}

/// `roost sandbox cp` at the node's socket.
fn cp(node: &TestNode, words: &[&str]) -> Result<Output> {
    let socket = node.root.join("roostd.sock");
    let mut command = Command::new(binary("roost")?);
    command.args(["sandbox", "cp"]).args(words).arg("--node-socket").arg(socket);
    Ok(command.env_clear().env("HOME", node.root.path()).stdin(Stdio::null()).output()?)
}

fn copied(node: &TestNode, words: &[&str]) -> Result<()> {
    let output = cp(node, words)?;
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn refused(node: &TestNode, words: &[&str]) -> Result<String> {
    let output = cp(node, words)?;
    assert!(!output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A tree with what file systems allow.
fn odd_tree(tree: &Path) -> Result<()> {
    std::fs::create_dir_all(tree.join("sub/empty"))?;
    std::fs::write(tree.join(OsStr::from_bytes(b"new\nline \xff\"")), "odd")?;
    std::fs::write(tree.join("-rf"), vec![7; 3 * MIB])?;
    std::fs::write(tree.join("run"), "#!/bin/sh\necho ran\n")?;
    std::fs::hard_link(tree.join("run"), tree.join("sub/again"))?;
    symlink("../-rf", tree.join("sub/link"))?;
    symlink("/nowhere", tree.join("dangling"))?;
    std::fs::set_permissions(tree.join("run"), std::fs::Permissions::from_mode(0o4750))?;
    std::fs::set_permissions(tree.join("sub/empty"), std::fs::Permissions::from_mode(0o500))?;
    let old = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    std::fs::File::options().write(true).open(tree.join("run"))?.set_times(old)?;
    Ok(())
}

#[tokio::test]
async fn a_tree_goes_in_as_the_users_and_comes_out_as_it_was() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&spec("bare")?).await?;
    let (tree, back) = (node.root.join("tree"), node.root.join("back"));
    odd_tree(&tree)?;
    copied(&node, &[&tree.display().to_string(), &format!("{id}:/home/agent/new")])?;
    let listing =
        sh(&node, &id, "cd /home/agent/new && stat -c '%U %a %Y' run && ./run && readlink sub/link dangling").await?;
    // The setuid bit was for another owner.
    assert_eq!(listing, "agent 750 1000000000\nran\n../-rf\n/nowhere\n");
    assert_eq!(sh(&node, &id, "cd /home/agent/new && stat -c %i run sub/again | uniq | wc -l").await?, "1\n");
    assert_eq!(
        sh(&node, &id, "find /home/agent/new ! -user agent | wc -l; find / -name '.roost-*' 2>/dev/null | wc -l")
            .await?,
        "0\n0\n"
    );

    copied(&node, &[&format!("{id}:/home/agent/new"), &back.display().to_string()])?;
    assert_eq!(std::fs::read(back.join("-rf"))?, vec![7; 3 * MIB]);
    assert_eq!(std::fs::read(back.join(OsStr::from_bytes(b"new\nline \xff\"")))?, b"odd");
    assert_eq!(std::fs::read_link(back.join("sub/link"))?, Path::new("../-rf"));
    let (run, again) = (back.join("run").metadata()?, back.join("sub/again").metadata()?);
    assert_eq!((run.mode() & 0o7777, run.mtime(), run.ino()), (0o750, 1_000_000_000, again.ino()));
    assert_eq!(back.join("sub/empty").metadata()?.mode() & 0o7777, 0o500);

    // What exists is copied into, the content of a directory beside it.
    copied(
        &node,
        &[
            &tree.join("run").display().to_string(),
            &tree.join("sub").display().to_string(),
            &format!("{id}:/home/agent/new/"),
        ],
    )?;
    copied(&node, &[&format!("{}/.", tree.display()), &format!("{id}:/tmp")])?;
    assert_eq!(
        sh(&node, &id, "ls -d /home/agent/new/sub/empty /tmp/run /tmp/sub").await?,
        "/home/agent/new/sub/empty\n/tmp/run\n/tmp/sub\n"
    );
    node.clear().await
}

#[tokio::test]
async fn links_of_the_sandbox_lead_neither_side_out() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&spec("bare")?).await?;
    let evil = node.root.join("passwd");
    std::fs::write(&evil, "evil")?;
    let evil = evil.display().to_string();
    let host = std::fs::read("/etc/passwd")?;
    let inside = sh(&node, &id, "cat /etc/passwd").await?;
    sh(&node, &id, "cd /home/agent && ln -s /etc x && ln -s ../../../../../../../var/tmp up && mkdir tree && ln -s /etc tree/passwd").await?;
    // The link in the path leads into the sandbox's own /etc, which is root's.
    let error = refused(&node, &[&evil, &format!("{id}:/home/agent/x/passwd")])?;
    assert!(error.contains("Permission denied"), "{error}");
    copied(&node, &[&evil, &format!("{id}:/home/agent/up/roost-copy-test")])?;
    assert!(!Path::new("/var/tmp/roost-copy-test").exists(), "a link led to the host");
    assert_eq!(sh(&node, &id, "cat /var/tmp/roost-copy-test").await?, "evil");
    // A link in the tree is not followed, and one in a file's place replaced.
    let tree = node.root.join("tree");
    std::fs::create_dir_all(tree.join("passwd"))?;
    std::fs::write(tree.join("passwd/shadow"), "evil")?;
    let error = refused(&node, &[&tree.display().to_string(), &format!("{id}:/home/agent")])?;
    assert!(error.contains("links are not followed"), "{error}");
    assert_eq!(sh(&node, &id, "cat /etc/passwd").await?, inside);
    assert_eq!(std::fs::read("/etc/passwd")?, host);

    let out = node.root.join("out");
    copied(&node, &[&format!("{id}:/home/agent/x"), &out.display().to_string()])?;
    assert_eq!(std::fs::read_link(&out)?, Path::new("/etc"), "a link is copied as a link");
    let followed = node.root.join("followed");
    copied(&node, &["-L", &format!("{id}:/home/agent/x/hostname"), &followed.display().to_string()])?;
    assert_eq!(std::fs::read_to_string(&followed)?, sh(&node, &id, "cat /etc/hostname").await?);
    // What its user may not read is named, and the rest is copied.
    let etc = node.root.join("etc");
    let error = refused(&node, &[&format!("{id}:/etc"), &etc.display().to_string()])?;
    assert!(error.contains("etc/shadow: cannot be read: Permission denied"), "{error}");
    assert_eq!(std::fs::read_to_string(etc.join("passwd"))?, inside);
    node.clear().await
}

/// An upload that is fed by hand: first one file of so many bytes.
async fn begin(
    node: &TestNode,
    id: &SandboxId,
    path: &str,
    size: u64,
) -> Result<(mpsc::Sender<wire::UploadFilesInput>, tonic::Streaming<wire::UploadFilesProgress>)> {
    let (inputs_tx, inputs) = mpsc::channel(4);
    let input = |input| wire::UploadFilesInput { input: Some(input) };
    let start = wire::UploadFilesStart { sandbox_id: id.to_string(), path: path.into(), rename: false };
    inputs_tx.send(input(Input::Start(start))).await?;
    let mut header = tar::Header::new_gnu();
    header.set_path("large")?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    inputs_tx.send(input(Input::Data(header.as_bytes().to_vec()))).await?;
    let answers = node.client.api.clone().upload_files(ReceiverStream::new(inputs)).await?.into_inner();
    Ok((inputs_tx, answers))
}

async fn feed(to: &mpsc::Sender<wire::UploadFilesInput>, pieces: usize) -> bool {
    for _ in 0..pieces {
        let data = wire::UploadFilesInput { input: Some(Input::Data(vec![0x55; MIB / 4])) };
        if to.send(data).await.is_err() {
            return false;
        }
    }
    true
}

async fn temporary(node: &TestNode, id: &SandboxId) -> Result<String> {
    sh(node, id, "find /home/agent -name '.roost-*' | wc -l").await
}

#[tokio::test]
async fn a_copy_that_breaks_off_or_fills_the_disk_leaves_nothing_half() -> Result<()> {
    let node = TestNode::start().await?;
    let mut limited = spec("bare")?;
    limited.resources.disk_limit_bytes = 128 << 20;
    let id = node.client.create_ready(&limited).await?;

    let (to, answers) = begin(&node, &id, "/home/agent", 64 << 20).await?;
    assert!(feed(&to, 32).await);
    eventually("a part is written", LIMIT, || async { Ok((temporary(&node, &id).await? == "1\n").then_some(())) })
        .await?;
    drop((to, answers));
    eventually("the part is gone", LIMIT, || async { Ok((temporary(&node, &id).await? == "0\n").then_some(())) })
        .await?;

    let (to, mut answers) = begin(&node, &id, "/home/agent", 400 << 20).await?;
    let feeding = tokio::spawn(async move { feed(&to, 1600).await });
    let refused = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Err("the disk took more than its limit".into()),
            Err(status) => break status,
        }
    };
    drop(answers);
    assert!(!feeding.await?, "the rest is not taken");
    assert!(refused.message().contains("no room is left for /home/agent/large"), "{refused}");
    assert_eq!(refused.metadata().get("roost-code").map(|word| word.as_bytes()), Some(&b"path-no-space"[..]));
    assert_eq!(sh(&node, &id, "ls -A /home/agent | grep -c -e large -e .roost- || true").await?, "0\n");
    assert_eq!(sh(&node, &id, "head -c 50000000 /dev/zero >~/again && stat -c %s ~/again").await?, "50000000\n");
    node.clear().await
}

#[tokio::test]
async fn a_sandbox_that_does_not_run_is_refused_with_the_next_step_and_ends_a_copy() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&spec("bare")?).await?;
    let (to, mut answers) = begin(&node, &id, "/home/agent", 64 << 20).await?;
    assert!(feed(&to, 8).await);
    node.client.api.clone().stop_sandbox(request(&id)).await?;
    let ended = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Err("half a file was taken for a whole one".into()),
            Err(status) => break status,
        }
    };
    assert!(ended.message().contains("stopped running"), "{ended}");
    node.client.reaches(&id, Phase::Stopped).await?;
    let error = refused(&node, &["/etc/hostname", &format!("{id}:/tmp")])?;
    assert!(error.contains("is Stopped: start it first"), "{error}");
    let error = refused(&node, &[&format!("{id}:/tmp"), "/tmp/never"])?;
    assert!(error.contains("is Stopped: start it first"), "{error}");
    node.client.api.clone().start_sandbox(request(&id)).await?;
    node.client.reaches(&id, Phase::Ready).await?;
    assert_eq!(temporary(&node, &id).await?, "0\n");
    node.clear().await
}

#[tokio::test]
async fn files_go_through_central_and_files_that_change_meanwhile_are_copied() -> Result<()> {
    let system = System::start().await?;
    system.roost(&["sandbox", "create", "bare", "--name", "box", "--wait"])?.success()?;
    let path = |name: &str| system.node.root.join(name).display().to_string();
    std::fs::write(path("large"), vec![9; 40 * MIB])?;
    system.roost(&["sandbox", "cp", &path("large"), "box:/home/agent/"])?.success()?;
    let script = "sha256sum <large; (while :; do echo more >>log; done) >/dev/null 2>&1 </dev/null & sleep 0.2";
    let inside = system.roost(&["sandbox", "exec", "box", "--", "/bin/sh", "-c", &format!("cd; {script}")])?;
    let json = system.roost(&["sandbox", "cp", "box:/home/agent", &path("home"), "-o", "json"])?.json()?;
    assert!(json["files"].as_u64() >= Some(2) && json["problem_count"] == 0, "{json}");
    assert_eq!(std::fs::read(path("home/large"))?, vec![9; 40 * MIB]);
    assert!(std::fs::read_to_string(path("home/log"))?.starts_with("more\n"));
    assert_eq!(inside.code, 0, "{}", inside.stderr);
    let missing = system.roost(&["sandbox", "cp", "box:/no/such", &path("x")])?;
    assert_eq!((missing.code, missing.stderr.contains("/no/such is not there")), (3, true), "{}", missing.stderr);
    system.roost(&["sandbox", "stop", "box", "--wait"])?.success()?;
    let stopped = system.roost(&["sandbox", "cp", "box:/home/agent", &path("x")])?;
    assert!(stopped.code == 4 && stopped.stderr.contains("start it first"), "{}", stopped.stderr);
    Ok(())
}

#[tokio::test]
async fn a_follower_of_the_output_misses_no_line_and_ends_with_the_sandbox() -> Result<()> {
    // Large enough for the reserve of the disk.
    let node = TestNode::start_on_small_disk(6144, "[sandboxes]\nlog_max_bytes = 65536\n").await?;
    let mut spec = spec("bare")?;
    // Some rotations in a life of the program, a little beyond the limit each.
    let script = "i=0; while [ $i -lt 5000 ]; do echo \"line $i of this life of the program\"; i=$((i+1)); [ $((i % 20)) = 0 ] && sleep 0.1; done; exit 1";
    spec.command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    spec.restart = Restart { application: RestartPolicy::OnFailure, backoff_ms: 100, ..Restart::default() };
    let id = node.client.create_ready(&spec).await?;
    let logs = wire::LogsRequest { sandbox_id: id.to_string(), source: 0, follow: true, tail_lines: None };
    let mut chunks = node.client.api.clone().logs(logs).await?.into_inner();
    let mut text = Vec::new();
    let second_life = async {
        while let Some(chunk) = chunks.message().await? {
            text.extend(chunk.data);
            if text.windows(8).filter(|window| *window == b"line 50 ").count() == 2 {
                return Ok(());
            }
        }
        Err("the output ended too early")?
    };
    let ended: Result<()> = tokio::time::timeout(3 * LIMIT, second_life).await?;
    ended?;
    let numbers: Vec<u32> = String::from_utf8(text)?
        .lines()
        .filter_map(|line| line.strip_prefix("line ")?.split(' ').next()?.parse().ok())
        .collect();
    let begin = numbers.iter().skip(1).position(|number| *number == 0).ok_or("no second life")? + 1;
    assert_eq!(numbers[..begin], (0..5000).collect::<Vec<_>>()[..], "of the first life");
    assert!(numbers[begin..].iter().zip(0..).all(|(number, expected)| *number == expected), "of the second life");
    node.client.delete(&id).await?;
    let rest = async {
        while chunks.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    tokio::time::timeout(LIMIT, rest).await??;
    node.clear().await
}
