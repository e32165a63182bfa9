//! A central whose database went back in time, and nodes that go on.

use std::path::Path;

use roost_proto::convert::WireEnum;
use roost_proto::model::{Phase, RunState};
use roost_proto::node::central_message::Body as FromCentral;
use roost_proto::node::{DesiredSandbox, DesiredState, Sandbox};

use crate::harness::{Central, soon};
use crate::node::{Node, Session, seen};

/// What the node keeps of a wish.
fn record(wish: &DesiredSandbox) -> Sandbox {
    Sandbox {
        desired: Some(wish.clone()),
        observed: Some(seen(&wish.sandbox_id, Phase::Ready, 3)),
        from_central: true,
        created_at_unix_ms: 7,
    }
}

/// Keeps the database as it is now.
fn keep(state: &Path, copy: &Path) {
    let database = rusqlite::Connection::open(state.join("central.db")).unwrap();
    database.execute("VACUUM INTO $1", [copy.to_str().unwrap()]).unwrap();
}

/// Puts a kept database in the place of the present one, by hand.
fn put_back(copy: &Path, state: &Path) {
    for name in ["central.db", "central.db-wal", "central.db-shm"] {
        let path = state.join(name);
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::copy(copy, state.join("central.db")).unwrap();
}

/// A central whose database is that of an earlier moment, without a mark: a
/// node with two sandboxes, of which the second is not in that database.
async fn went_back() -> (Central, Node, Vec<DesiredSandbox>) {
    let central = Central::start().await;
    let (node, mut session) = Node::ready(&central, "n1", 4).await;
    let mut wishes = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let (state, old) = (central.config.state_dir.clone(), dir.path().join("old.db"));
    for name in ["known", "lost"] {
        let made = central.post("/sandboxes", &format!(r#"{{"template":"bare","name":"{name}"}}"#)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let mut desired = session.desired().await;
        wishes.push(desired.sandboxes.remove(0));
        let id = wishes.last().unwrap().sandbox_id.clone();
        session.heartbeat(false, None, &[seen(&id, Phase::Ready, 3)]).await;
        if name == "known" {
            keep(&state, &old);
        }
    }
    drop(session);
    let central = central.restart_after(|| put_back(&old, &state)).await;
    (central, node, wishes)
}

/// Connects with what the node has made durable and answers central's question.
async fn connect(node: &Node, central: &Central, generation: u64, held: &[Sandbox]) -> (Session, DesiredState) {
    let mut session = node.at(central).connect(generation).await;
    session.api.held.lock().unwrap().extend(held.iter().cloned());
    let FromCentral::OpenTunnel(open) = session.next().await.unwrap() else { panic!("the node was not asked first") };
    session.open_tunnel(open.tunnel_id);
    let desired = session.desired().await;
    (session, desired)
}

#[tokio::test]
async fn what_a_restored_database_does_not_know_stays_on_its_node_and_can_be_adopted() {
    let (central, node, wishes) = went_back().await;
    central.get("/sandboxes/lost").await.assert_problem(404, "sandbox-not-found");
    let held: Vec<_> = wishes.iter().map(record).collect();
    let (mut session, desired) = connect(&node, &central, 2, &held).await;
    assert!(desired.full && desired.generation > 2, "{desired:?}");
    let lost = desired.sandboxes.iter().find(|s| s.sandbox_id == wishes[1].sandbox_id).expect("it would be deleted");
    assert_eq!((lost.generation, lost.run_state), (wishes[1].generation, wishes[1].run_state));
    assert_eq!(lost.spec, wishes[1].spec);

    let shown = central.get(&format!("/nodes/{}", node.id)).await.json();
    let conditions = shown["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "OrphanedSandboxes" && c["is_true"] == true), "{shown}");
    let orphans = central.get(&format!("/orphans?node={}", node.id)).await.json();
    assert_eq!(orphans["items"][0]["sandbox"]["name"], "lost");
    assert_eq!(orphans["items"].as_array().unwrap().len(), 1);
    assert!(!session.heartbeat(true, None, &[seen(&wishes[1].sandbox_id, Phase::Ready, 4)]).await);

    let adopted = central.post(&format!("/orphans/{}/adopt", wishes[1].sandbox_id), "{}").await;
    assert_eq!(adopted.status, 200, "{}", adopted.text());
    let sandbox = central.get("/sandboxes/lost").await.json();
    assert_eq!(
        (sandbox["id"].as_str(), &sandbox["observed"]["phase"]),
        (Some(&*wishes[1].sandbox_id), &"Ready".into())
    );
    assert_eq!(central.post("/sandboxes/lost/stop", "").await.status, 202);
    let stop = session.desired().await;
    assert_eq!(stop.sandboxes[0].run_state, RunState::Stopped.to_wire());
    assert!(stop.sandboxes[0].generation > wishes[1].generation);
}

#[tokio::test]
async fn an_orphan_is_deleted_when_its_operator_says_so_and_only_then() {
    let (central, node, wishes) = went_back().await;
    let held: Vec<_> = wishes.iter().map(record).collect();
    let (mut session, _) = connect(&node, &central, 2, &held).await;
    let path = format!("/orphans/{}", wishes[1].sandbox_id);
    assert_eq!(central.delete(&path).await.status, 202);
    central.delete(&path).await.assert_problem(404, "orphan-not-found");
    let desired = session.desired().await;
    assert_eq!((desired.full, desired.sandboxes[0].run_state), (false, RunState::Deleted.to_wire()));
    session.heartbeat(true, None, &[seen(&wishes[1].sandbox_id, Phase::Gone, 9)]).await;
    soon("the end of the orphan", async {
        while central.get(&format!("/nodes/{}", node.id)).await.json()["sandboxes"] != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The database has caught up with the node's generation by wishes of its own:
/// the numbers are the same, what they stand for is not.
#[tokio::test]
async fn a_generation_that_was_given_twice_hides_nothing() {
    let (central, node, wishes) = went_back().await;
    // One node that is ahead tells of the restore.
    let mut ahead = node.at(&central).connect(2).await;
    assert!(matches!(ahead.next().await.unwrap(), FromCentral::OpenTunnel(_)));
    drop(ahead);
    let made = central.post("/sandboxes", r#"{"template":"bare","name":"new"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let held: Vec<_> = wishes.iter().map(record).collect();
    let (_session, desired) = connect(&node, &central, 2, &held).await;
    assert!(desired.full);
    let ids: Vec<_> = desired.sandboxes.iter().map(|s| s.sandbox_id.as_str()).collect();
    assert!(ids.contains(&made.json()["id"].as_str().unwrap()), "the new one never reaches its node");
    assert_eq!(ids.len(), 3, "and nothing is deleted: {ids:?}");
}

#[tokio::test]
async fn a_node_that_cannot_be_asked_is_told_nothing() {
    let (central, node, _) = went_back().await;
    let mut session = node.at(&central).connect(2).await;
    let FromCentral::OpenTunnel(_) = session.next().await.unwrap() else { panic!("the node was not asked first") };
    // The tunnel is never opened; heartbeats are taken meanwhile, and no desired
    // state comes between them.
    for _ in 0..3 {
        assert!(!session.heartbeat(true, None, &[]).await);
    }
    let shown = central.get(&format!("/nodes/{}", node.id)).await.json();
    let conditions = shown["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "StoreRestored"), "{shown}");
}

#[tokio::test]
async fn a_node_that_joined_after_the_backup_is_readmitted_with_its_sandboxes() {
    let central = Central::start().await;
    let state = central.config.state_dir.clone();
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old.db");
    keep(&state, &old);
    let (node, mut session) = Node::ready(&central, "late", 4).await;
    central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    let wish = session.desired().await.sandboxes.remove(0);
    drop(session);
    let central = central.restart_after(|| put_back(&old, &state)).await;

    let path = format!("/nodes/{}/readmit", node.id);
    central.post(&path, r#"{"name":"<b>"}"#).await.assert_problem(422, "invalid-field");
    let taken_back = central.post(&path, r#"{"name":"late"}"#).await;
    assert_eq!(taken_back.status, 201, "{}", taken_back.text());
    central.post(&path, r#"{"name":"late"}"#).await.assert_problem(409, "node-exists");
    let (_session, desired) = connect(&node, &central, 1, &[record(&wish)]).await;
    assert_eq!(desired.sandboxes[0].sandbox_id, wish.sandbox_id);
    let orphans = central.get("/orphans").await.json();
    assert_eq!(orphans["items"][0]["sandbox"]["id"], wish.sandbox_id.as_str());
}
