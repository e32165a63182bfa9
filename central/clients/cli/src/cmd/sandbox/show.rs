//! `roost sandbox get`.

use roost_proto::id::SandboxName;
use roost_proto::model::{Observed, Resources, Restart, RestartPolicy, Sandbox, SandboxSpec};

use super::super::debug::trace::chart::{Look, chart};
use super::super::{App, Several};
use super::{find, list};
use crate::error::CliError;
use crate::output::{Card, Console, OutputArgs, Printer, Text, human};
use crate::wait::judge::{start_us, status};
use crate::wait::progress::label;

/// Shows everything about sandboxes.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, names: Vec<SandboxName>, output: OutputArgs) -> Result<(), CliError> {
    let printer = Printer::new(&app.console, output);
    let mut several = Several::new(app);
    let mut found = Vec::new();
    for name in &names {
        found.extend(several.take(find(app, name).await)?);
    }
    match found.as_slice() {
        [] => {}
        many if many.len() > 1 && printer.is_data() => printer.data(&many)?,
        all => {
            for (index, sandbox) in all.iter().enumerate() {
                let gap = if index > 0 { "\n" } else { "" };
                let node = if printer.is_data() { String::new() } else { node_name(app, sandbox).await };
                printer.one(sandbox, &label(sandbox), || format!("{gap}{}", card(sandbox, &node, &app.console)))?;
            }
        }
    }
    several.finish()
}

/// The node's name beside its id, where it can be seen.
async fn node_name(app: &App, sandbox: &Sandbox) -> String {
    let id = &sandbox.node_id;
    let Ok(client) = app.client() else { return id.to_string() };
    client.get_node(id).await.map_or_else(|_| id.to_string(), |node| format!("{} ({id})", node.name))
}

fn card(sandbox: &Sandbox, node: &str, console: &Console) -> String {
    let now = human::now_unix_ms();
    let observed = &sandbox.observed;
    let mut card = Card::new();
    card.field("Name", sandbox.name.as_ref().map(ToString::to_string).unwrap_or_default())
        .field("Id", sandbox.id.to_string())
        .field("Status", Text::new(status(observed), list::tone(observed.phase)))
        .field("Message", observed.message.clone().unwrap_or_default())
        .field("Wanted", format!("{:?} (generation {})", sandbox.run_state, sandbox.generation))
        .field("Node", node)
        .field("Created", human::moment(sandbox.created_at_unix_ms, now))
        .field("Ready", observed.ready_at_unix_ms.map(|at| human::moment(at, now)).unwrap_or_default())
        .field("Exit code", observed.exit_code.map(|code| code.to_string()).unwrap_or_default());
    time_fields(&mut card, sandbox, now);
    recovery_fields(&mut card, observed, now);
    spec_fields(&mut card, &sandbox.spec, sandbox.resources());
    usage_fields(&mut card, sandbox);
    stage_block(&mut card, observed, console);
    card.draw(console)
}

/// When its time is over, and which times it has.
fn time_fields(card: &mut Card, sandbox: &Sandbox, now: u64) {
    if let Some(ends) = sandbox.observed.ends {
        card.field("Ends", format!("{}: {} ({})", human::moment(ends.at_unix_ms, now), ends.action, ends.reason));
    }
    let lifetime = sandbox.lifetime();
    let span = |ms: u64| human::duration_us(ms.saturating_mul(1000));
    let mut times = Vec::new();
    if lifetime.ttl_ms > 0 {
        times.push(format!("time to live {}", span(lifetime.ttl_ms)));
    }
    if lifetime.max_ms > 0 {
        times.push(format!("at most {}", span(lifetime.max_ms)));
    }
    if lifetime.idle_timeout_ms > 0 {
        let cpu = human::cores(lifetime.idle_cpu_millis);
        let (idle, action) = (span(lifetime.idle_timeout_ms), lifetime.idle_action);
        times.push(format!("{action} after {idle} unused (CPU below {cpu})"));
    }
    card.field("Lifetime", times.join(", "));
}

/// What ended by itself in it, and what followed.
fn recovery_fields(card: &mut Card, observed: &Observed, now: u64) {
    if let Some(at) = observed.next_restart_at_unix_ms {
        card.field("Next restart", format!("in {}", human::duration_us(at.saturating_sub(now).saturating_mul(1000))));
    }
    if let Some(end) = &observed.last_end {
        let code = end.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        let text = format!("{}: {}{code}, {}", end.part, end.reason, human::moment(end.at_unix_ms, now));
        card.field("Last end", text);
        card.field("Restarts", observed.restarts.to_string());
    }
    let memory = &observed.out_of_memory;
    if memory.kills > 0 {
        let victim = memory.last.as_ref().map(|v| {
            format!(", last {:?} (pid {}) of the {}, {}", v.process, v.pid, v.part, human::moment(v.at_unix_ms, now))
        });
        let count = usize::try_from(memory.kills).unwrap_or(usize::MAX);
        let killed = human::count(count, "process", "processes");
        card.field("Out of memory", format!("{killed} killed{}", victim.unwrap_or_default()));
    }
}

/// What a sandbox is to be.
pub(crate) fn spec_fields(card: &mut Card, spec: &SandboxSpec, resources: &Resources) {
    let display = spec.display;
    let glx = if display.glx { ", GLX" } else { "" };
    let limit = match resources.cpu_limit_millis {
        0 => "no limit".into(),
        millis => format!("limit {}", human::cores(millis)),
    };
    card.field("Template", spec.template.to_string())
        .field("Image", spec.image.to_string())
        .field("Command", spec.command.join(" "))
        .field("Window manager", format!("{:?}", spec.window_manager).to_lowercase())
        .field("Made again", policies(&spec.restart))
        .field("Screen", format!("{}x{}{glx}", display.width_px, display.height_px))
        .field("CPU", format!("request {}, {limit}", human::cores(resources.cpu_request_millis)))
        .field(
            "Memory",
            format!(
                "request {}, limit {}, /dev/shm {}",
                human::size(resources.memory_request_bytes),
                human::size(resources.memory_limit_bytes),
                human::size(resources.shm_bytes)
            ),
        )
        .field("Disk", disk_limit(resources))
        .field("Processes", format!("limit {}", resources.pids_limit))
        .field("Environment", spec.env.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
}

/// Empty without a limit: the field is left out.
fn disk_limit(resources: &Resources) -> String {
    match resources.disk_limit_bytes {
        0 => String::new(),
        bytes => format!("limit {}", human::size(bytes)),
    }
}

/// `application never, window manager on-failure, display never`.
fn policies(restart: &Restart) -> String {
    let word = |policy| match policy {
        RestartPolicy::Never => "never",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Always => "always",
    };
    format!(
        "application {}, window manager {}, display {}",
        word(restart.application),
        word(restart.window_manager),
        word(restart.display)
    )
}

fn usage_fields(card: &mut Card, sandbox: &Sandbox) {
    if let Some(usage) = sandbox.observed.usage {
        let disk = usage.disk_bytes.map(|bytes| format!("{} on the disk, ", human::size(bytes)));
        let text = format!(
            "{} memory, {}{} CPU time, {} in /dev/shm, {}",
            human::size(usage.memory_bytes),
            disk.unwrap_or_default(),
            human::duration_us(usage.cpu_us),
            human::size(usage.shm_bytes),
            human::count(usize::try_from(usage.pids).unwrap_or(usize::MAX), "process", "processes")
        );
        card.field("Uses", text);
    }
    card.field("Starts", sandbox.observed.starts.to_string());
}

fn stage_block(card: &mut Card, observed: &Observed, console: &Console) {
    let Some(total) = start_us(observed) else { return };
    card.section(&format!("Last start, {}", human::duration_us(total)));
    let look = Look::of(console);
    let look = Look { width: look.width.map(|width| width.saturating_sub(2)), ..look };
    card.block(&chart(&observed.stages, look));
}
