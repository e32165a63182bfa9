//! The node's part of a support bundle.
//!
//! Secrets are taken out here, where they are known: environments and
//! arguments by their types, their values, the join token and the credentials of
//! registries wherever they occur, and what looks like a secret. See [`roost_proto::support`].

use std::collections::BTreeMap;

use roost_proto::id::SandboxId;
use roost_proto::model::{HostReport, StartRecord, SupportPart};
use roost_proto::support::{Files, Redactor, redacted_spec};
use serde_json::json;
use tokio::sync::Mutex;

use super::debug::Inside;
use crate::api::support::SupportSource;
use crate::doctor;
use crate::host::numbers;
use crate::metrics::Metrics;
use crate::sandbox::Desired;
use crate::sandbox::failure::chain;
use crate::tasks::Tasks;

/// Lines about a full memory that are taken from the kernel's log.
const OOM_LINES: usize = 500;
/// Files of procfs that say how the host does.
const HOST_FILES: [&str; 14] = [
    "/etc/os-release",
    "/proc/cmdline",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/self/limits",
    "/proc/self/status",
    "/proc/sys/fs/file-nr",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/tainted",
    "/proc/uptime",
    "/proc/version",
];
/// Files of procfs about the network of the host.
const NETWORK_FILES: [&str; 5] =
    ["/proc/net/dev", "/proc/net/route", "/proc/net/if_inet6", "/proc/net/sockstat", "/proc/net/snmp"];
/// What is never in a bundle, and where it is.
const NEVER: [(&str, &str); 7] = [
    ("values of environment variables", "they often are secrets; `roost sandbox get -o json` shows them"),
    ("arguments of commands", "they may be secrets; `roost sandbox get -o json` shows them"),
    ("join token, private key and certificate of the node", "secrets; they lie in <root>/identity"),
    ("credentials of registries and proxies", "secrets; they lie in images.credentials_file"),
    ("output of sandboxes", "it is the users' own; `roost sandbox logs` shows it"),
    ("screens and files of sandboxes", "they are the users' own"),
    ("specs of containers", "they carry environments; `ctr container info` shows them"),
];

/// Answers for `roost doctor`, `roost debug trace` and `roost debug bundle`.
#[derive(Debug)]
pub struct Support {
    inside: Inside,
    metrics: Metrics,
    tasks: Tasks,
    /// One bundle at a time: each may take some ten MiB.
    turn: Mutex<()>,
}

impl Support {
    /// Looks into a daemon.
    #[must_use]
    pub fn new(inside: Inside, metrics: Metrics, tasks: Tasks) -> Self {
        Self { inside, metrics, tasks, turn: Mutex::new(()) }
    }

    /// What may be secret: looked for in every text.
    fn secrets(&self) -> Vec<String> {
        let views = self.inside.manager.changed_since(0);
        let mut secrets: Vec<String> = views.iter().flat_map(|view| view.desired.spec.env.values().cloned()).collect();
        let join = self.inside.config.central.as_ref().and_then(|central| central.join_token_file.as_ref());
        // A token that was used and removed is no error.
        secrets.extend(join.and_then(|path| std::fs::read_to_string(path).ok()).map(|text| text.trim().to_owned()));
        secrets
    }

    async fn add_state(&self, files: &mut Files) {
        let inside = &self.inside;
        files.json("config.json", &inside.config);
        files.json("status.json", &*inside.status.borrow());
        files.json("state.json", &inside.dump(without_secrets));
        let records: Vec<_> =
            inside.manager.changed_since(0).iter().filter_map(|v| inside.manager.record(&v.desired.id)).collect();
        let records: Vec<_> = records
            .iter()
            .map(|record| {
                json!({
                    "desired": without_secrets(&record.desired),
                    "first_id": record.first_id,
                    "display_number": record.display_number,
                })
            })
            .collect();
        files.json("ledger.json", &records);
        let tasks: Vec<_> = self
            .tasks
            .list()
            .iter()
            .map(|t| json!({ "name": t.name, "state": t.state, "age_ms": t.age_ms, "state_age_ms": t.state_age_ms }))
            .collect();
        files.json("tasks.json", &tasks);
        files.json("starts.json", &self.metrics.recent_starts(None, None));
        match inside.node.client.overview().await {
            Ok(overview) => files.json("containerd.json", &overview),
            Err(error) => files.leave_out("containerd.json", &chain(&error)),
        }
    }

    fn add_log(&self, files: &mut Files, lines: Option<usize>) {
        let (lines, before) = self.inside.log.ring().last(lines);
        files.text("log.txt", &(lines.join("\n") + "\n"));
        if before > 0 {
            files.leave_out(
                &format!("{before} older lines of the log"),
                "memory keeps the last ones; see the journal or the file that takes standard error",
            );
        }
    }
}

/// What of this blocks: files of the kernel.
fn add_host(files: &mut Files, cgroups: Vec<String>) {
    let numbers: BTreeMap<_, _> = cgroups.into_iter().map(|path| (path.clone(), numbers::cgroup(&path))).collect();
    files.json("cgroups.json", &numbers);
    let oom = numbers::oom_lines(OOM_LINES).map(|lines| lines.join("\n") + "\n");
    files.try_text("kernel-oom.txt", oom.map_err(|error| chain(&error)));
    files.try_text("mounts.txt", std::fs::read_to_string("/proc/self/mountinfo"));
    for (path, list) in [("host.txt", &HOST_FILES[..]), ("network.txt", &NETWORK_FILES[..])] {
        let part = |file: &&str| {
            let text = std::fs::read_to_string(file).unwrap_or_else(|error| format!("({error})\n"));
            format!("== {file}\n{text}\n")
        };
        files.text(path, &list.iter().map(part).collect::<String>());
    }
}

/// A wish without what may be secret.
fn without_secrets(desired: &Desired) -> Desired {
    Desired { spec: redacted_spec(&desired.spec), ..desired.clone() }
}

#[tonic::async_trait]
impl SupportSource for Support {
    async fn examine(&self, sandboxes: Option<u32>) -> HostReport {
        let config = &self.inside.config;
        doctor::examine(config, sandboxes.unwrap_or_else(|| doctor::configured_sandboxes(config)), true).await
    }

    fn starts(&self, sandbox: Option<&SandboxId>, last: Option<usize>) -> Vec<StartRecord> {
        self.metrics.recent_starts(sandbox, last)
    }

    async fn collect(&self, log_lines: Option<usize>) -> Vec<SupportPart> {
        let _turn = self.turn.lock().await;
        let passwords = self.inside.node.puller.secrets().await;
        let redactor = match Redactor::with_passwords(self.secrets(), passwords) {
            Ok(redactor) => redactor,
            // Without it nothing may leave.
            Err(error) => {
                let why = chain(&error);
                tracing::error!(error = why, "support bundle cannot be redacted");
                let left = roost_proto::model::LeftOut { what: "everything of this node".into(), why };
                return vec![SupportPart::Begin { files: 0 }, SupportPart::LeftOut(left)];
            }
        };
        let mut files = Files::new(redactor);
        let report = self.examine(None).await;
        files.json(
            "versions.json",
            &json!({
                "roostd": env!("CARGO_PKG_VERSION"), "protocol": roost_proto::PROTOCOL_VERSION, "kernel": report.kernel,
            }),
        );
        files.text("doctor.txt", &doctor::print::text(&report));
        files.json("doctor.json", &report);
        self.add_state(&mut files).await;
        self.add_log(&mut files, log_lines);
        files.try_text("metrics.txt", self.metrics.encode());
        for (what, why) in NEVER {
            files.leave_out(what, why);
        }
        let node = &self.inside.node;
        let cgroups = node.cgroups.list().iter().map(|name| node.cgroups.path(name)).collect();
        let work = move || {
            add_host(&mut files, cgroups);
            Ok(files.into_parts())
        };
        crate::host::blocking(work).await.unwrap_or_default()
    }
}
