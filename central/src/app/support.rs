//! What people ask when something is wrong: nodes through their tunnels, and
//! central itself.
//!
//! Central's part of a bundle is made here without its secrets: it holds
//! tokens only as hashes and gives none of them, environments and arguments
//! are blanked by their types, their values and what looks like a secret
//! wherever they occur; see [`roost_proto::support`].

use std::time::Duration;

use futures::{Stream, StreamExt};
use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{HostReport, LeftOut, Sandbox, StartRecord, SupportPart, Template};
use roost_proto::node::{CollectSupportRequest, ExamineRequest, ListStartsRequest};
use roost_proto::support::{Files, REDACTED, Redactor, redacted_spec};
use serde_json::json;
use tonic::Status;

use super::streams::{call, node_error};
use super::{RequestError, Scope};
use crate::log;
use crate::store::SandboxFilter;

/// A check runs programs and waits for containerd.
const EXAMINE_TIMEOUT: Duration = Duration::from_secs(25);
/// A list from memory.
const STARTS_TIMEOUT: Duration = Duration::from_secs(10);
/// Time until a collection has begun.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Most sandboxes that a bundle lists: beyond it a list helps nobody.
const MAX_SANDBOXES: u32 = 10_000;
/// What is never in a bundle, and where it is.
const NEVER: [(&str, &str); 4] = [
    ("values of environment variables", "they often are secrets; `roost sandbox get -o json` shows them"),
    ("arguments of commands", "they may be secrets; `roost sandbox get -o json` shows them"),
    ("tokens and their hashes, the key of the CA", "secrets; they lie in central's database and in <state_dir>/ca"),
    ("the database", "it holds all of the above: back it up, and do not send it"),
];

impl Scope {
    /// Has a node check its host.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn examine_node(&self, node: &NodeId, sandboxes: Option<u32>) -> Result<HostReport, RequestError> {
        self.node(node).await?;
        let mut client = self.central.sessions.support(node)?;
        let request = ExamineRequest { sandboxes: sandboxes.unwrap_or_default() };
        let report = call(node, EXAMINE_TIMEOUT, client.examine(request)).await?;
        HostReport::try_from(report).map_err(|error| node_error(node, Status::data_loss(error.to_string())))
    }

    /// The last starts of a node, the oldest first.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn node_starts(
        &self,
        node: &NodeId,
        sandbox: Option<&SandboxId>,
        last: Option<u32>,
    ) -> Result<Vec<StartRecord>, RequestError> {
        self.node(node).await?;
        let mut client = self.central.sessions.support(node)?;
        let sandbox_id = sandbox.map(ToString::to_string).unwrap_or_default();
        let request = ListStartsRequest { sandbox_id, last: last.unwrap_or_default() };
        let answer = call(node, STARTS_TIMEOUT, client.list_starts(request)).await?;
        let starts = answer.starts.into_iter().map(StartRecord::try_from).collect::<Result<_, _>>();
        starts.map_err(|error| node_error(node, Status::data_loss(error.to_string())))
    }

    /// A node's part of a support bundle, as it comes.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn collect_node(
        &self,
        node: &NodeId,
        log_lines: Option<u32>,
    ) -> Result<impl Stream<Item = Result<SupportPart, RequestError>> + Send + use<>, RequestError> {
        self.node(node).await?;
        let mut client = self.central.sessions.support(node)?;
        let request = CollectSupportRequest { log_lines: log_lines.unwrap_or_default() };
        let parts = call(node, BEGIN_TIMEOUT, client.collect_support(request)).await?;
        let node = node.clone();
        let ending = self.ending().cancelled_owned();
        Ok(parts.take_until(ending).map(move |part| {
            let part = part.map_err(|status| node_error(&node, status))?;
            SupportPart::try_from(part).map_err(|error| node_error(&node, Status::data_loss(error.to_string())))
        }))
    }

    /// Central's own part of a support bundle.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn collect(&self, log_lines: Option<u32>) -> Result<Vec<SupportPart>, RequestError> {
        let sandboxes = self.store().sandboxes(SandboxFilter::default(), MAX_SANDBOXES).await?;
        let templates = self.store().templates().await?;
        let env = sandboxes.iter().flat_map(|sandbox| sandbox.spec.env.values());
        let secrets = env.chain(templates.iter().flat_map(|template| template.env.values())).cloned();
        // Of the configuration only this file holds a secret of ours; a URL
        // with a password in it is refused.
        let password = self.central.config_shown.pointer("/store/password_file").and_then(serde_json::Value::as_str);
        let password = password.and_then(|path| std::fs::read_to_string(path).ok());
        let secrets = secrets.chain(password.map(|text| text.trim().to_owned()));
        let mut files = match Redactor::new(secrets) {
            Ok(redactor) => Files::new(redactor),
            // Without it nothing may leave.
            Err(error) => {
                let why = log::chain(&error);
                tracing::error!(error = why, "support bundle cannot be redacted");
                let left = LeftOut { what: "everything of central".into(), why };
                return Ok(vec![SupportPart::Begin { files: 0 }, SupportPart::LeftOut(left)]);
            }
        };
        files.json(
            "versions.json",
            &json!({
                "roost_central": env!("CARGO_PKG_VERSION"), "protocol": roost_proto::PROTOCOL_VERSION,
            }),
        );
        files.json("config.json", &self.central.config_shown);
        files.json("nodes.json", &self.nodes().await?);
        files.json("sandboxes.json", &sandboxes.into_iter().map(shown).collect::<Vec<_>>());
        files.json("templates.json", &templates.into_iter().map(shown_template).collect::<Vec<_>>());
        files.json("profiles.json", &self.store().profiles().await?);
        files.json(
            "images.json",
            &self
                .images()
                .await?
                .iter()
                .map(|held| {
                    json!({
                        "image": held.image, "nodes": held.nodes,
                    })
                })
                .collect::<Vec<_>>(),
        );
        let phases = self.central.store.system().count_phases().await?;
        files.json("state.json", &json!({ "sessions": self.central.sessions.count(), "sandboxes_by_phase": phases }));
        files.try_text("metrics.txt", crate::admin::metrics_text(&self.central).await);
        let (lines, before) = log::ring().last(log_lines.and_then(|lines| usize::try_from(lines).ok()));
        files.text("log.txt", &(lines.join("\n") + "\n"));
        if before > 0 {
            files.leave_out(&format!("{before} older lines of the log"), "memory keeps the last ones; see the journal");
        }
        for (what, why) in NEVER {
            files.leave_out(what, why);
        }
        Ok(files.into_parts())
    }
}

/// A sandbox without what may be secret.
fn shown(mut sandbox: Sandbox) -> Sandbox {
    sandbox.spec = redacted_spec(&sandbox.spec);
    sandbox
}

fn shown_template(mut template: Template) -> Template {
    template.env.values_mut().for_each(|value| REDACTED.clone_into(value));
    template.command.iter_mut().skip(1).for_each(|argument| REDACTED.clone_into(argument));
    template
}
