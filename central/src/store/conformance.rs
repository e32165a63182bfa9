//! What every store must do, written against the traits.
//!
//! A new implementation adds one line to `suite!`.

mod catalog;
mod claim;
mod node;
mod resources;
mod restore;
mod sandbox;
mod timing;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use roost_proto::id::{JoinTokenId, NodeId, SandboxId, TenantId};
use roost_proto::model::{
    ImageInfo, NodeCapacity, NodeCertificate, NodeCondition, NodeStatus, Observed, Phase, Profile, RunState, Template,
    resolve,
};

use super::*;
use crate::place::{PlaceError, Request, Strategy, choose};
use crate::secret::Secret;

/// Keeps every change in order, and counts the gaps.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Vec<Change>>, std::sync::atomic::AtomicUsize);

impl ChangeSink for Recorder {
    fn committed(&self, changes: Vec<Change>) {
        crate::changes::lock(&self.0).extend(changes);
    }

    fn gap(&self) {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// How long a change may take to be told: far above what it takes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

impl Recorder {
    /// What was told of sandboxes, in order: phases, and "gone".
    fn told(&self) -> Vec<String> {
        let changes = crate::changes::lock(&self.0);
        let told = changes.iter().filter_map(|change| match change {
            Change::Sandbox(sandbox) => Some(sandbox.observed.phase.to_string()),
            Change::Gone { .. } => Some("gone".into()),
            Change::Desired { .. } | Change::Removed(_) | Change::Renew(_) => None,
        });
        told.collect()
    }

    /// How often a gap was told of.
    pub(super) fn gaps(&self) -> usize {
        self.1.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The generations that nodes were told of, each once.
    pub(super) fn generations(&self) -> std::collections::BTreeSet<u64> {
        let changes = crate::changes::lock(&self.0);
        let told = changes.iter().filter_map(|change| match change {
            Change::Desired { generation, .. } => Some(*generation),
            _ => None,
        });
        told.filter(|generation| *generation > 0).collect()
    }

    /// Waits for what must be told of sandboxes.
    pub(super) async fn wait_for(&self, is_enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let waiting = async {
            loop {
                let told = self.told();
                if is_enough(&told) {
                    return told;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("waited in vain, was told {:?}", self.told()))
    }
}

/// A store under test, with one tenant, one node and one template.
pub(super) struct Bench {
    pub(super) store: Arc<dyn Store>,
    changes: Arc<Recorder>,
    pub(super) tenant: TenantId,
    pub(super) node: NodeId,
    /// What the store lives in.
    _dir: Option<tempfile::TempDir>,
}

impl Bench {
    pub(super) async fn new(store: Arc<dyn Store>, changes: Arc<Recorder>, dir: Option<tempfile::TempDir>) -> Self {
        let tenant: TenantId = "default".parse().unwrap();
        let system = store.system();
        system.ensure_tenant(tenant.clone(), 1).await.unwrap();
        system.ensure_tenant("other".parse().unwrap(), 1).await.unwrap();
        let mut bench = Self { store, changes, tenant, node: NodeId::random(), _dir: dir };
        bench.node = bench.join("n1").await;
        bench.report(&status(4)).await;
        let own = bench.own();
        own.put_profile(profile()).await.unwrap();
        own.put_template(template()).await.unwrap();
        bench
    }

    pub(super) fn own(&self) -> Box<dyn TenantStore> {
        self.store.tenant(&self.tenant)
    }

    fn other(&self) -> Box<dyn TenantStore> {
        self.store.tenant(&"other".parse().unwrap())
    }

    async fn token(&self) -> Secret {
        let secret = Secret::random("rjt");
        let new = NewJoinToken {
            id: JoinTokenId::random(),
            secret: secret.hash(),
            created_at_unix_ms: 1,
            expires_at_unix_ms: 1_000,
        };
        self.own().create_join_token(new).await.unwrap();
        secret
    }

    async fn enrol(&self, secret: &Secret, name: &str, now_unix_ms: u64) -> Result<NodeId, EnrolError> {
        let node_id = NodeId::random();
        let enrolment = Enrolment { token: secret.hash(), node_id: node_id.clone(), name: name.into(), now_unix_ms };
        self.store.system().enrol(enrolment).await.map(|()| node_id)
    }

    async fn join(&self, name: &str) -> NodeId {
        let secret = self.token().await;
        self.enrol(&secret, name, 2).await.unwrap()
    }

    fn batch(&self) -> HeartbeatBatch {
        HeartbeatBatch {
            fence: Fence::default(),
            node_id: self.node.clone(),
            instance_id: "i1".into(),
            reset_revisions: false,
            listed: None,
            acked_generation: 0,
            status: None,
            observed: Vec::new(),
            now_unix_ms: 5,
        }
    }

    pub(super) async fn report(&self, status: &NodeStatus) {
        let batch = HeartbeatBatch { status: Some(status.clone()), ..self.batch() };
        self.store.system().apply_heartbeat(batch).await.unwrap();
    }

    pub(super) async fn observe(&self, id: &SandboxId, phase: Phase, revision: u64) {
        let observed = Observed { phase, revision, ..Observed::pending() };
        let batch = HeartbeatBatch { observed: vec![(id.clone(), observed)], ..self.batch() };
        self.store.system().apply_heartbeat(batch).await.unwrap();
    }

    async fn list_exactly(&self, ids: &[&SandboxId], acked_generation: u64) {
        let listed: HashSet<_> = ids.iter().map(|&id| id.clone()).collect();
        let batch = HeartbeatBatch { listed: Some(listed), acked_generation, ..self.batch() };
        self.store.system().apply_heartbeat(batch).await.unwrap();
    }

    pub(super) fn new_sandbox(&self, name: Option<&str>) -> NewSandbox {
        NewSandbox {
            hint: None,
            id: SandboxId::random(),
            name: name.map(|name| name.parse().unwrap()),
            spec: resolve(&template(), &profile(), &Default::default()),
            idempotency: None,
            now_unix_ms: 10,
        }
    }

    pub(super) async fn create(&self, name: Option<&str>) -> Result<Sandbox, CreateSandboxError> {
        self.own().create_sandbox(self.new_sandbox(name), place()).await.map(|created| created.sandbox)
    }

    async fn set(&self, id: &SandboxId, new: NewResources) -> Result<Created, UpdateSandboxError> {
        self.own().set_resources(SandboxKey::Id(id.clone()), new).await
    }

    pub(super) async fn find(&self, id: &SandboxId) -> Option<Sandbox> {
        self.own().sandbox(SandboxKey::Id(id.clone())).await.unwrap()
    }

    pub(super) async fn room_used(&self) -> (u64, u64, u64) {
        let node = self.own().node(self.node.clone()).await.unwrap().unwrap();
        (node.cpu_requested_millis, node.memory_requested_bytes, node.sandboxes)
    }
}

pub(super) fn profile() -> Profile {
    serde_json::from_str(r#"{"name":"p","resources":{"cpu_request_millis":500,"memory_request_bytes":1024}}"#).unwrap()
}

fn template() -> Template {
    serde_json::from_str(r#"{"name":"t","image":"roost/desktop","profile":"p"}"#).unwrap()
}

fn image() -> ImageInfo {
    ImageInfo::new("roost/desktop".parse().unwrap(), "sha256:0".into(), 7, 1)
}

/// A healthy node with room for `sandboxes` of the profile.
pub(super) fn status(sandboxes: u32) -> NodeStatus {
    NodeStatus {
        capacity: NodeCapacity {
            cpu_allocatable_millis: sandboxes * 500,
            memory_allocatable_bytes: u64::from(sandboxes) * 1024,
            sandboxes_max: sandboxes,
        },
        images: vec![image()],
        ..NodeStatus::default()
    }
}

pub(super) fn place() -> PlaceFn {
    let request = Request { cpu_millis: 500, memory_bytes: 1024, image: image().reference, may_pull: false };
    let online = |_: &NodeId| roost_proto::model::NodePhase::Online;
    Box::new(move |rooms| choose(rooms, online, &request, Strategy::Spread))
}

/// Instantiates the suite for one store.
macro_rules! suite {
    ($module:ident, $make:expr) => {
        mod $module {
            macro_rules! case {
                ($part:ident::$name:ident) => {
                    #[tokio::test]
                    async fn $name() {
                        super::$part::$name($make.await).await;
                    }
                };
            }
            case!(sandbox::a_sandbox_reads_back_as_it_was_created);
            case!(sandbox::another_tenant_sees_and_changes_nothing);
            case!(sandbox::a_name_is_unique_while_its_sandbox_lives);
            case!(sandbox::the_same_key_gets_the_first_answer_and_another_body_a_conflict);
            case!(sandbox::concurrent_creations_never_oversubscribe_a_node);
            case!(sandbox::pages_list_each_sandbox_once_in_order);
            case!(sandbox::filters_narrow_a_list);
            case!(sandbox::a_wish_raises_the_generations_and_a_repeated_one_does_not);
            case!(sandbox::a_failed_sandbox_is_started_again);
            case!(resources::new_limits_reach_the_node_and_count_in_its_room);
            case!(resources::a_node_without_room_refuses_larger_requests_with_the_numbers);
            case!(resources::a_change_needs_the_generation_that_its_caller_saw);
            case!(resources::the_same_key_changes_once);
            case!(node::deltas_hold_what_changed_since_their_base);
            case!(node::observations_only_move_forward);
            case!(node::a_session_that_was_fenced_changes_nothing);
            case!(node::a_new_daemon_process_begins_its_revisions_anew);
            case!(node::a_deleted_sandbox_frees_its_room_when_its_node_says_gone);
            case!(node::a_full_list_ends_what_the_node_was_told_to_delete);
            case!(node::a_join_token_is_good_once);
            case!(node::an_expired_or_unknown_token_is_refused);
            case!(node::a_taken_node_name_is_made_unique);
            case!(node::a_node_that_holds_sandboxes_stays);
            case!(node::a_lost_node_takes_its_sandboxes_with_it);
            case!(node::a_pressure_keeps_sandboxes_away_while_it_is_true);
            case!(node::a_failing_condition_and_a_lost_image_keep_sandboxes_away);
            case!(node::images_are_grouped_by_reference_and_digest);
            case!(catalog::a_profile_in_use_stays_and_names_its_users);
            case!(catalog::a_template_needs_its_profile);
            case!(catalog::a_new_admin_token_replaces_the_old_one);
            case!(catalog::replicas_that_start_together_make_one_admin_token);
            case!(node::the_replica_of_the_last_session_is_known);
            case!(catalog::a_rotated_admin_token_works_beside_its_successor_for_a_while);
            case!(node::the_certificate_of_a_node_is_kept);
            case!(node::heartbeat_times_and_old_rows);
            case!(node::a_generation_is_raised_above_the_nodes_own);
            case!(restore::a_restored_database_compares_every_node_once);
            case!(restore::what_the_database_does_not_know_is_kept_as_it_is_until_somebody_decides);
            case!(restore::an_orphan_is_adopted_under_its_name_or_another);
            case!(restore::an_orphan_that_nobody_wants_is_deleted_by_its_node);
            case!(restore::a_wish_after_the_restore_is_never_taken_for_one_from_before);
            case!(restore::a_node_cannot_claim_the_sandbox_of_another);
            case!(restore::a_node_that_joined_after_the_backup_is_taken_back_by_its_id);
            case!(claim::a_pool_needs_its_template_and_resolves_it_for_the_nodes);
            case!(claim::what_was_put_on_a_node_is_known_until_it_is_gone_there);
            case!(claim::the_same_key_is_the_same_claim_and_another_body_a_conflict);
            case!(claim::concurrent_claims_with_one_key_begin_one);
            case!(claim::a_claimed_desktop_takes_its_room_once_and_is_confirmed_to_its_node);
            case!(claim::what_a_node_gave_that_the_claim_does_not_aim_at_is_deleted_there);
            case!(claim::a_name_is_one_sandboxs_also_among_claims);
            case!(claim::a_sandbox_that_was_made_for_a_claim_follows_the_node);
            case!(claim::a_claim_that_got_nothing_is_stale_until_it_is_dropped);
            case!(timing::a_pause_reaches_the_node_and_every_other_wish_ends_it);
            case!(timing::what_does_not_run_cannot_be_paused);
            case!(timing::what_an_idle_timeout_ended_is_begun_again_by_a_newer_generation);
            case!(timing::each_new_time_to_live_is_counted_also_if_it_is_the_same);
            case!(timing::a_sandbox_whose_time_is_over_goes_and_is_remembered_with_the_reason);
            case!(timing::a_deletion_that_was_asked_for_leaves_no_ending);
            case!(sandbox::changes_come_in_the_order_of_the_commits);
        }
    };
}
suite!(sqlite, super::super::sqlite::tests::bench());
suite!(postgres, super::super::postgres::tests::bench());
