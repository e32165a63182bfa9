//! The kept output of sandboxes, and what follows.

use super::*;

async fn logs(room: &Room, id: &SandboxId, follow: bool, tail_lines: Option<u32>) -> Streaming<wire::LogChunk> {
    let request = wire::LogsRequest { sandbox_id: id.to_string(), source: 0, follow, tail_lines };
    room.client().await.logs(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn the_last_lines_reach_back_into_the_rotated_part() {
    let room = Room::open();
    let id = room.sandbox();
    std::fs::write(room.log(&id, "workload.log.1"), "1\n2\n3\n").unwrap();
    std::fs::write(room.log(&id, "workload.log"), "4\n5\n").unwrap();
    for (tail, expected) in [(None, "1\n2\n3\n4\n5\n"), (Some(3), "3\n4\n5\n"), (Some(1), "5\n"), (Some(0), "")] {
        let mut stream = logs(&room, &id, false, tail).await;
        assert_eq!(read_until(&mut stream, "never").await, expected, "tail {tail:?}");
    }
}

#[tokio::test]
async fn a_follower_misses_nothing_across_both_ways_of_rotation() {
    let room = Room::open();
    let id = room.sandbox();
    let (log, old) = (room.log(&id, "workload.log"), room.log(&id, "workload.log.1"));
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let mut stream = logs(&room, &id, true, None).await;
    append("first\n");
    assert_eq!(read_until(&mut stream, "first\n").await, "first\n");

    append("before the rename\n");
    std::fs::rename(&log, &old).unwrap();
    append("after the rename\n");
    let expected = "before the rename\nafter the rename\n";
    assert_eq!(read_until(&mut stream, "after the rename\n").await, expected);

    append("before the truncation\n");
    std::fs::copy(&log, &old).unwrap();
    std::fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    append("x\n");
    assert_eq!(read_until(&mut stream, "\nx\n").await, "before the truncation\nx\n");

    append("last words\n");
    room.node.observe(&id, |observed| observed.phase = Phase::Gone);
    assert_eq!(read_until(&mut stream, "never").await, "last words\n", "and the stream ends");
}

/// Descriptors of this process that are of a file.
fn descriptors_of(path: &std::path::Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.unwrap().path().read_link().ok());
    links.filter(|link| link == path).count()
}

#[tokio::test]
async fn a_follower_whose_client_left_holds_nothing() {
    let room = Room::open();
    let id = room.sandbox();
    let log = room.log(&id, "workload.log");
    std::fs::write(&log, "one\n").unwrap();
    let mut stream = logs(&room, &id, true, None).await;
    assert_eq!(read_until(&mut stream, "one\n").await, "one\n");
    // Two for the moment in which it looks for a rotation.
    assert!(descriptors_of(&log) >= 1, "it follows");
    drop(stream);
    eventually("the log is closed", || descriptors_of(&log) == 0).await;
}

#[tokio::test]
async fn the_log_of_an_unknown_sandbox_is_not_found() {
    let room = Room::open();
    let request = wire::LogsRequest { sandbox_id: SandboxId::random().to_string(), ..wire::LogsRequest::default() };
    let unknown = room.client().await.logs(request).await.unwrap_err();
    assert_eq!((unknown.code(), word(&unknown)), (Code::NotFound, "sandbox-not-found"));
}
