use std::sync::Mutex;

use super::*;
use roost_proto::id::SandboxId;
use roost_proto::model::{NodeCap, NodeCapacity, Phase, Pool, PoolSpec, PoolUpdate, Pressure, Stage, Stall, Usage};

/// A source that lists what the test put there.
#[derive(Debug, Default)]
struct Listed(Mutex<Vec<SandboxSample>>);

impl SampleSource for Listed {
    fn sandboxes(&self) -> Vec<SandboxSample> {
        self.0.lock().unwrap().clone()
    }
    fn node(&self) -> NodeSample {
        NodeSample {
            capacity: NodeCapacity {
                cpu_allocatable_millis: 1500,
                memory_allocatable_bytes: 8 << 30,
                sandboxes_max: 100,
            },
            cap: Some(NodeCap { cpu_millis: 1500, memory_bytes: 8 << 30, pids: 30_000 }),
            conditions: vec![("DiskPressure".into(), true)],
            pressure: None,
            pools: vec![pool()],
            cpu_requested_millis: 750,
            memory_requested_bytes: 1 << 30,
            id_ranges_in_use: 2,
            ledger_commits: 10,
            ledger_commit_us: 5000,
            ledger_bytes: 4096,
            is_link_connected: true,
            heartbeat_rtt_us: Some(1500),
            clock_offset_ms: Some(-2500),
            certificate_not_after_unix_ms: Some(1_700_000_000_000),
        }
    }
}

fn pool() -> Pool {
    let spec = serde_json::from_str(r#"{"template":"bare","image":"roost/desktop"}"#).unwrap();
    let spec = PoolSpec {
        name: "desks".parse().unwrap(),
        spec,
        min_ready: 4,
        max: 9,
        starts_at_once: 1,
        demand_window_ms: 0,
        update: PoolUpdate::OnReplenish,
    };
    Pool { spec, ready: 3, starting: 1, outdated: 2, hits: 7, misses: 5, oldest_ready_ms: 1500, problem: None }
}

fn sample(phase: Phase, usage: Option<Usage>) -> SandboxSample {
    let (template, tenant) = ("desktop".parse().unwrap(), "default".parse().unwrap());
    SandboxSample { id: SandboxId::random(), template, tenant, phase, usage }
}

fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no line {line:?} in:\n{text}");
}

#[test]
fn every_value_of_a_live_sandbox_is_scraped_and_vanishes_with_it() {
    let metrics = Metrics::new(Tasks::default());
    let stall = Stall { some_avg10_ppm: 250_000, full_avg10_ppm: Some(0) };
    let pressure = Pressure { memory: Some(stall), ..Pressure::default() };
    let usage = Usage {
        memory_bytes: 1000,
        cpu_us: 2_500_000,
        shm_bytes: 64,
        pids: 7,
        disk_bytes: Some(12),
        pressure: Some(pressure),
    };
    let source = Arc::new(Listed::default());
    metrics.attach(Arc::clone(&source) as Arc<dyn SampleSource>);
    let live = sample(Phase::Ready, Some(usage));
    let labels = format!("sandbox=\"{}\",template=\"desktop\",tenant=\"default\"", live.id);
    let id = live.id.to_string();
    *source.0.lock().unwrap() = vec![live, sample(Phase::Pending, None)];

    let text = metrics.encode().unwrap();
    assert_line(&text, &format!("roost_sandbox_memory_bytes{{{labels}}} 1000"));
    assert_line(&text, &format!("roost_sandbox_cpu_seconds_total{{{labels}}} 2.5"));
    assert_line(&text, &format!("roost_sandbox_shm_bytes{{{labels}}} 64"));
    assert_line(&text, &format!("roost_sandbox_disk_bytes{{{labels}}} 12"));
    assert_line(&text, &format!("roost_sandbox_pids{{{labels}}} 7"));
    let waits =
        |kind, value| format!("roost_sandbox_pressure_ratios{{{labels},resource=\"memory\",kind=\"{kind}\"}} {value}");
    assert_line(&text, &waits("some", "0.25"));
    assert_line(&text, &waits("full", "0.0"));
    assert!(!text.contains("resource=\"io\""), "what is not measured is absent");
    assert_line(&text, &format!("roost_sandbox_phase{{{labels},phase=\"Ready\"}} 1"));
    assert_line(&text, "roost_sandboxes{phase=\"Ready\"} 1");
    assert_line(&text, "roost_sandboxes{phase=\"Pending\"} 1");
    assert_line(&text, "roost_sandboxes{phase=\"Failed\"} 0");

    source.0.lock().unwrap().clear();
    let text = metrics.encode().unwrap();
    assert!(!text.contains(&id), "{text}");
    assert_line(&text, "roost_sandboxes{phase=\"Ready\"} 0");
}

#[test]
fn node_totals_are_in_base_units() {
    let metrics = Metrics::new(Tasks::default());
    metrics.attach(Arc::new(Listed::default()));
    let text = metrics.encode().unwrap();
    assert_line(&text, "roost_node_cpu_requested_cores 0.75");
    assert_line(&text, "roost_node_cpu_allocatable_cores 1.5");
    assert_line(&text, "roost_node_memory_requested_bytes 1073741824");
    assert_line(&text, "roost_node_id_ranges 2");
    assert_line(&text, "roost_node_cpu_cap_cores 1.5");
    assert_line(&text, "roost_node_memory_cap_bytes 8589934592");
    assert_line(&text, "roost_node_pids_cap 30000");
    assert_line(&text, "roost_node_condition{type=\"DiskPressure\"} 1");
    assert!(!text.contains("roost_node_pressure_ratios{"), "what is not measured is absent");
    for (series, value) in [("min_ready", "4"), ("ready", "3"), ("starting", "1"), ("outdated", "2"), ("failing", "0")]
    {
        assert_line(&text, &format!("roost_pool_{series}{{pool=\"desks\"}} {value}"));
    }
    assert_line(&text, "roost_pool_hits_total{pool=\"desks\"} 7");
    assert_line(&text, "roost_pool_misses_total{pool=\"desks\"} 5");
    assert_line(&text, "roost_pool_oldest_ready_seconds{pool=\"desks\"} 1.5");
    assert_line(&text, "roost_ledger_size_bytes 4096");
    assert_line(&text, "roost_ledger_commits_total 10");
    assert_line(&text, "roost_ledger_commit_seconds_total 0.005");
    assert_line(&text, "roost_link_connected 1");
    assert_line(&text, "roost_heartbeat_lag_seconds 0.0015");
    assert_line(&text, "roost_clock_offset_seconds -2.5");
    assert_line(&text, "roost_certificate_not_after_seconds 1700000000.0");
}

#[test]
fn a_start_is_counted_by_stage_result_and_reason() {
    let metrics = Metrics::new(Tasks::default());
    metrics.start_succeeded(&[
        StageTiming { stage: Stage::DisplayServer, begin_us: 100_000, duration_us: 30_000 },
        StageTiming { stage: Stage::Workload, begin_us: 130_000, duration_us: 70_000 },
    ]);
    metrics.start_failed("image-missing");
    metrics.sandbox_failed("display-exited");
    let text = metrics.encode().unwrap();
    assert_line(&text, "roost_sandbox_start_stage_duration_seconds_sum{stage=\"display_server\"} 0.03");
    assert_line(&text, "roost_sandbox_start_duration_seconds_bucket{le=\"0.15\"} 0");
    assert_line(&text, "roost_sandbox_start_duration_seconds_bucket{le=\"0.25\"} 1");
    assert_line(&text, "roost_sandbox_starts_total{result=\"ready\"} 1");
    assert_line(&text, "roost_sandbox_starts_total{result=\"failed\"} 1");
    assert_line(&text, "roost_sandbox_start_failures_total{reason=\"image-missing\"} 1");
    assert_line(&text, "roost_sandbox_failures_total{reason=\"display-exited\"} 1");
}

#[tokio::test]
async fn tasks_are_counted_by_kind_without_a_source() {
    let tasks = Tasks::default();
    let metrics = Metrics::new(tasks.clone());
    let task = tasks.spawn("reconcile", std::future::pending::<()>());
    let text = metrics.encode().unwrap();
    assert_line(&text, "roost_tasks{kind=\"reconcile\"} 1");
    assert_line(&text, "roost_task_panics_total 0");
    assert!(!text.contains("roost_node"), "{text}");
    task.abort();
}

#[test]
fn the_process_is_described_and_the_text_ends_as_open_metrics() {
    let text = Metrics::new(Tasks::default()).encode().unwrap();
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_threads"] {
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        assert!(value.unwrap().parse::<f64>().unwrap() >= 0.0, "{name}");
    }
    assert!(text.ends_with("# EOF\n"));
}
