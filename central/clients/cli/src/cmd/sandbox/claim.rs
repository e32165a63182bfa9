//! `roost sandbox claim`.

mod content;

use std::path::PathBuf;
use std::process::ExitCode;

use roost_proto::id::ClaimId;
use roost_proto::model::{BindStep, CreateClaim, Validate};
use roost_proto::node::{BoundFile, ClaimSandboxRequest, claim_sandbox_request::From};
use serde::Serialize;

use super::super::debug::LocalSandbox;
use super::super::{App, socket_path};
use crate::cli::ClaimArgs;
use crate::error::{CliError, Exit};
use crate::node_socket::{NodeSocket, NodeSocketError};
use crate::output::{Printer, human};
use crate::wait::progress::label;

/// The answer of a node.
#[derive(Debug, Serialize)]
struct LocalClaimed {
    /// Which claim.
    claim_id: ClaimId,
    /// What it got.
    sandbox: LocalSandbox,
    /// Exit status of the hook; absent without a hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_exit_code: Option<i32>,
    /// Parts of the binding, in their order.
    steps: Vec<BindStep>,
}

/// Claims a desktop; a hook that ended with another status than 0 makes an
/// exit code of its own.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: ClaimArgs) -> Result<ExitCode, CliError> {
    let body = content::body(&args)?;
    body.validate().map_err(|errors| {
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        CliError::usage(text, "see roost sandbox claim --help")
    })?;
    let id = args.claim_id.clone().unwrap_or_else(ClaimId::random);
    let printer = Printer::new(&app.console, args.output);
    let hook_exit_code = match args.socket.clone() {
        Some(path) => {
            let claimed = claim_local(app, &body, &id, path).await?;
            let name = claimed.sandbox.label();
            let text = || sentence(&name, None, &claimed.steps, claimed.hook_exit_code);
            printer.one(&claimed, &name, text)?;
            claimed.hook_exit_code
        }
        None => {
            let claimed = app.client()?.claim(&body, &id).await?;
            let name = label(&claimed.sandbox);
            let cold = claimed.cold_reason.as_deref().filter(|_| claimed.cold);
            let text = || sentence(&name, cold, &claimed.steps, claimed.hook_exit_code);
            printer.one(&claimed, &name, text)?;
            claimed.hook_exit_code
        }
    };
    Ok(match hook_exit_code {
        None | Some(0) => ExitCode::SUCCESS,
        Some(_) => Exit::Hook.into(),
    })
}

async fn claim_local(
    app: &App,
    body: &CreateClaim,
    id: &ClaimId,
    path: Option<PathBuf>,
) -> Result<LocalClaimed, NodeSocketError> {
    // The hook may take as long as its template allows.
    let socket = NodeSocket::connect_patiently(socket_path(app, path)).await?;
    let file = |file: &roost_proto::model::ClaimFile| BoundFile {
        path: file.path.clone(),
        content: file.content.0.clone(),
        // Checked with the body.
        mode: file.mode_bits().unwrap_or_default(),
    };
    let request = ClaimSandboxRequest {
        from: Some(From::Pool(body.pool.to_string())),
        binding: Some(body.binding(id.clone()).into()),
        name: body.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        tenant: String::new(),
        secrets: body.secrets.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
        files: body.files.iter().map(file).collect(),
        resources: body.resources.clone().map(Into::into),
        lifetime: (!body.lifetime.is_nothing()).then(|| body.lifetime.into()),
    };
    let answer = socket.api().claim_sandbox(request).await?.into_inner();
    let sandbox = LocalSandbox::try_from(roost_proto::convert::require("sandbox", answer.sandbox)?)?;
    let steps = answer.steps.into_iter().map(|s| BindStep { name: s.name, duration_us: s.duration_us }).collect();
    let hook_exit_code = sandbox.observed.binding.as_ref().and_then(|binding| binding.hook_exit_code);
    Ok(LocalClaimed { claim_id: id.clone(), sandbox, hook_exit_code, steps })
}

/// One line for people: what, how fast, and what the hook said.
fn sentence(name: &str, cold: Option<&str>, steps: &[BindStep], hook_exit_code: Option<i32>) -> String {
    let total = steps.iter().map(|step| step.duration_us).sum();
    let parts: Vec<String> =
        steps.iter().map(|step| format!("{} {}", step.name, human::duration_us(step.duration_us))).collect();
    let mut text = format!("{name} claimed, bound in {}", human::duration_us(total));
    if !parts.is_empty() {
        text.push_str(&format!(" ({})", parts.join(", ")));
    }
    if let Some(code) = hook_exit_code {
        text.push_str(&format!(", hook ended with {code}"));
    }
    if let Some(reason) = cold {
        text.push_str(&format!("; started for this claim: {reason}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_told_with_its_parts_its_hook_and_why_it_was_cold() {
        let step = |name: &str, duration_us| BindStep { name: name.into(), duration_us };
        let steps = [step("files", 1_500), step("hook", 2_500)];
        let line = sentence("demo", Some("the pool is empty"), &steps, Some(3));
        assert!(line.starts_with("demo claimed, bound in 4"), "{line}");
        assert!(line.contains("files 1.5") && line.contains("hook ended with 3") && line.ends_with("pool is empty"));
        assert!(!sentence("demo", None, &steps, None).contains("hook ended"));
    }
}
