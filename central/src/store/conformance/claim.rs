//! Pools and claims.

use roost_proto::id::{ClaimId, PoolName};
use roost_proto::model::{BindStep, FleetPool, PoolStanding};

use super::*;
use crate::pools::name_on_node;

fn pool(json: &str) -> FleetPool {
    serde_json::from_str(json).unwrap()
}

fn desks() -> FleetPool {
    pool(r#"{"name":"desks","template":"t","min_ready":1,"max":2}"#)
}

fn name() -> PoolName {
    "desks".parse().unwrap()
}

fn new_claim(key: Option<&str>, node: Option<&NodeId>) -> NewClaim {
    NewClaim {
        id: ClaimId::random(),
        key: key.map(Into::into),
        body_sha256: "body".into(),
        pool: name(),
        name: None,
        node_id: node.cloned(),
        now_unix_ms: 10,
    }
}

/// A desktop as a node holds it once it is claimed.
fn held(bench: &Bench, name: Option<&str>) -> Held {
    let new = bench.new_sandbox(name);
    Held {
        id: new.id,
        name: new.name,
        generation: 2,
        run_state: RunState::Running,
        restart_count: 0,
        spec: new.spec,
        resources: None,
        paused: false,
        lifetime: None,
        ttl_count: 0,
        observed: Observed { phase: Phase::Ready, revision: 5, ..Observed::pending() },
        created_at_unix_ms: 1,
    }
}

fn done(id: &ClaimId, node: &NodeId, held: &Held) -> FinishClaim {
    FinishClaim {
        id: id.clone(),
        node_id: node.clone(),
        held: held.clone(),
        hook_exit_code: Some(3),
        steps: Some(vec![BindStep { name: "files".into(), duration_us: 7 }]),
        now_unix_ms: 20,
    }
}

pub(super) async fn a_pool_needs_its_template_and_resolves_it_for_the_nodes(bench: Bench) {
    let own = bench.own();
    let nowhere = FleetPool { template: "nobody".parse().unwrap(), ..desks() };
    assert!(matches!(own.put_pool(nowhere).await, Err(PutPoolError::NoTemplate(_))));
    let poor = FleetPool { profile: Some("nobody".parse().unwrap()), ..desks() };
    assert!(matches!(own.put_pool(poor).await, Err(PutPoolError::NoProfile(_))));
    assert!(own.put_pool(desks()).await.unwrap());
    assert!(!own.put_pool(desks()).await.unwrap());
    assert!(bench.other().pool(name()).await.unwrap().is_none(), "another tenant sees it");

    let board = bench.store.system().pool_board().await.unwrap();
    let spec = board.wishes[0].spec.as_ref().unwrap();
    assert_eq!((spec.name.clone(), spec.spec.template.as_str()), (name_on_node(&bench.tenant, &name()), "t"));
    assert!(own.delete_template("t".parse().unwrap()).await.unwrap());
    let lame = bench.store.system().pool_board().await.unwrap().wishes.remove(0);
    assert!(lame.spec.unwrap_err().contains("template t"));
    assert!(own.delete_pool(name()).await.unwrap());
    assert!(!own.delete_pool(name()).await.unwrap());
}

pub(super) async fn what_was_put_on_a_node_is_known_until_it_is_gone_there(bench: Bench) {
    let (own, system) = (bench.own(), bench.store.system());
    assert!(system.pool_board().await.unwrap().nodes.is_empty(), "nodes are read without a pool");
    own.put_pool(desks()).await.unwrap();
    let on_node = |standing| NodePool {
        name: name_on_node(&bench.tenant, &name()),
        tenant: bench.tenant.clone(),
        pool: name(),
        standing,
    };
    system.keep_node_pools(bench.node.clone(), vec![on_node(None)], 5).await.unwrap();
    let status = own.pool(name()).await.unwrap().unwrap();
    assert_eq!((status.nodes[0].node.as_str(), status.nodes[0].seen_at_unix_ms), ("n1", None));
    let standing = PoolStanding { ready: 2, ..PoolStanding::default() };
    system.keep_node_pools(bench.node.clone(), vec![on_node(Some(standing.clone()))], 6).await.unwrap();
    let seen = own.pools().await.unwrap().remove(0).nodes.remove(0);
    assert_eq!((seen.standing, seen.seen_at_unix_ms), (standing.clone(), Some(6)));

    own.delete_pool(name()).await.unwrap();
    let board = system.pool_board().await.unwrap();
    assert_eq!(board.nodes[0].held, [on_node(Some(standing))], "nobody would take it from the node");
    own.delete_node(bench.node.clone(), false).await.unwrap();
    assert!(system.pool_board().await.unwrap().nodes.is_empty());
    system.keep_node_pools(bench.node.clone(), vec![on_node(None)], 7).await.unwrap();
}

pub(super) async fn the_same_key_is_the_same_claim_and_another_body_a_conflict(bench: Bench) {
    let own = bench.own();
    let first = own.begin_claim(new_claim(Some("key-1"), Some(&bench.node))).await.unwrap();
    let again = own.begin_claim(new_claim(Some("key-1"), None)).await.unwrap();
    assert_eq!((again.id, again.node_id), (first.id.clone(), Some(bench.node.clone())));
    let other = NewClaim { body_sha256: "other".into(), ..new_claim(Some("key-1"), None) };
    assert!(matches!(own.begin_claim(other).await, Err(BeginClaimError::KeyReused)));
    let elsewhere = bench.other().begin_claim(new_claim(Some("key-1"), None)).await.unwrap();
    assert_ne!(elsewhere.id, first.id, "keys are the tenant's own");
    let (one, two) = (new_claim(None, None), new_claim(None, None));
    assert_ne!(own.begin_claim(one).await.unwrap().id, own.begin_claim(two).await.unwrap().id);
}

pub(super) async fn concurrent_claims_with_one_key_begin_one(bench: Bench) {
    let own = bench.own();
    let begun = (0..8).map(|_| own.begin_claim(new_claim(Some("key-1"), Some(&bench.node))));
    let begun = futures::future::join_all(begun).await;
    let ids: HashSet<_> = begun.into_iter().map(|claim| claim.unwrap().id.to_string()).collect();
    assert_eq!(ids.len(), 1);
}

pub(super) async fn a_claimed_desktop_takes_its_room_once_and_is_confirmed_to_its_node(bench: Bench) {
    let own = bench.own();
    let before = bench.store.system().desired(bench.node.clone(), None).await.unwrap().generation;
    let claim = own.begin_claim(new_claim(Some("key-1"), Some(&bench.node))).await.unwrap();
    let held = held(&bench, Some("mine"));
    let claimed = own.finish_claim(done(&claim.id, &bench.node, &held)).await.unwrap();
    assert_eq!((&claimed.sandbox.id, claimed.hook_exit_code, claimed.cold), (&held.id, Some(3), false));
    assert_eq!(bench.room_used().await, (500, 1024, 1));
    let desired = bench.store.system().desired(bench.node.clone(), Some(before)).await.unwrap();
    assert_eq!(
        desired.sandboxes.iter().map(|s| (s.id.clone(), s.generation)).collect::<Vec<_>>(),
        [(held.id.clone(), 2)]
    );

    own.finish_claim(done(&claim.id, &bench.node, &held)).await.unwrap();
    assert_eq!(bench.room_used().await, (500, 1024, 1), "a repetition takes room");
    let kept = own.begin_claim(new_claim(Some("key-1"), None)).await.unwrap();
    assert!(kept.is_kept && kept.answer.unwrap().sandbox.id == held.id);
    // It is a sandbox like any other.
    let found = bench.find(&held.id).await.unwrap();
    assert_eq!((found.name.unwrap().as_str(), found.observed.phase), ("mine", Phase::Ready));
    own.set_run_state(SandboxKey::Id(held.id.clone()), Intent::Delete.into()).await.unwrap();
    bench.observe(&held.id, Phase::Gone, 9).await;
    assert_eq!(bench.room_used().await, (0, 0, 0));
}

pub(super) async fn what_a_node_gave_that_the_claim_does_not_aim_at_is_deleted_there(bench: Bench) {
    let own = bench.own();
    let second = bench.join("n2").await;
    let claim = own.begin_claim(new_claim(Some("key-1"), Some(&bench.node))).await.unwrap();
    let aim = |from: &NodeId, to: &NodeId| Aim {
        id: claim.id.clone(),
        from: Some(from.clone()),
        to: AimAt::Node(to.clone()),
    };
    assert!(own.aim_claim(aim(&bench.node, &second)).await.unwrap());
    assert!(!own.aim_claim(aim(&bench.node, &second)).await.unwrap(), "two requests went on");
    let late = held(&bench, None);
    let refused = own.finish_claim(done(&claim.id, &bench.node, &late)).await;
    assert!(matches!(refused, Err(FinishClaimError::Superseded)), "{refused:?}");
    let row = bench.find(&late.id).await.unwrap();
    assert_eq!((row.run_state, row.generation), (RunState::Deleted, 3));
    let good = held(&bench, None);
    own.finish_claim(done(&claim.id, &second, &good)).await.unwrap();
    let twice = own.finish_claim(done(&claim.id, &second, &held(&bench, None))).await;
    assert!(matches!(twice, Err(FinishClaimError::Superseded)), "one claim has two desktops: {twice:?}");
}

pub(super) async fn a_name_is_one_sandboxs_also_among_claims(bench: Bench) {
    let own = bench.own();
    let named = |key| NewClaim { name: Some("box".parse().unwrap()), ..new_claim(Some(key), Some(&bench.node)) };
    let claim = own.begin_claim(named("key-1")).await.unwrap();
    assert!(matches!(own.begin_claim(named("key-2")).await, Err(BeginClaimError::NameTaken(_))));
    bench.create(Some("box")).await.unwrap();
    let held = held(&bench, Some("box"));
    let refused = own.finish_claim(done(&claim.id, &bench.node, &held)).await;
    assert!(matches!(refused, Err(FinishClaimError::NameTaken(_))), "{refused:?}");
    let row = bench.find(&held.id).await.unwrap();
    assert_eq!((row.name, row.run_state), (None, RunState::Deleted));
}

pub(super) async fn a_sandbox_that_was_made_for_a_claim_follows_the_node(bench: Bench) {
    let own = bench.own();
    let claim = own.begin_claim(new_claim(Some("key-1"), None)).await.unwrap();
    let made = bench.create(Some("cold")).await.unwrap();
    let to = AimAt::Made { sandbox: made.id.clone(), reason: "none was ready".into() };
    assert!(own.aim_claim(Aim { id: claim.id.clone(), from: None, to }).await.unwrap());
    let resources = roost_proto::model::Resources { cpu_request_millis: 700, ..made.resources().clone() };
    let held = Held { id: made.id.clone(), name: made.name, resources: Some(resources), ..held(&bench, None) };
    let claimed = own.finish_claim(done(&claim.id, &bench.node, &held)).await.unwrap();
    assert_eq!((claimed.cold, claimed.cold_reason.as_deref()), (true, Some("none was ready")));
    assert_eq!((bench.find(&made.id).await.unwrap().generation, bench.room_used().await), (2, (700, 1024, 1)));
}

pub(super) async fn a_claim_that_got_nothing_is_stale_until_it_is_dropped(bench: Bench) {
    let (own, system) = (bench.own(), bench.store.system());
    let claim = own.begin_claim(new_claim(Some("key-1"), Some(&bench.node))).await.unwrap();
    let finished = own.begin_claim(new_claim(Some("key-2"), Some(&bench.node))).await.unwrap();
    own.finish_claim(done(&finished.id, &bench.node, &held(&bench, None))).await.unwrap();
    assert!(system.stale_claims(10, 9).await.unwrap().is_empty());
    let stale: Vec<_> = system.stale_claims(11, 9).await.unwrap().into_iter().map(|claim| claim.id).collect();
    assert_eq!(stale, std::slice::from_ref(&claim.id));
    system.expire(1_000_000).await.unwrap();
    assert!(own.claim(finished.id.clone()).await.unwrap().is_none(), "a kept claim outlives its key");
    own.drop_claim(claim.id.clone()).await.unwrap();
    assert!(own.claim(claim.id).await.unwrap().is_none());
    let again = own.begin_claim(new_claim(Some("key-1"), None)).await.unwrap();
    assert!(!again.is_kept, "a dropped claim leaves its key free");
}
