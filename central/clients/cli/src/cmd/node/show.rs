//! `roost node get` and `roost debug node`.

use roost_proto::model::{Node, NodeCap, NodeStatus, Pressure, Stall};

use super::super::{App, Several};
use super::{find, status};
use crate::error::CliError;
use crate::output::table::Drawing;
use crate::output::{Card, Column, Console, OutputArgs, Printer, Text, Tone, human};

/// Shows everything about nodes.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, names: &[String], output: OutputArgs) -> Result<(), CliError> {
    let client = app.client()?;
    let printer = Printer::new(&app.console, output);
    let mut several = Several::new(app);
    let mut found = Vec::new();
    for name in names {
        found.extend(several.take(find(client, name).await)?);
    }
    match found.as_slice() {
        [] => {}
        many if many.len() > 1 && printer.is_data() => printer.data(&many)?,
        all => {
            for (index, node) in all.iter().enumerate() {
                let gap = if index > 0 { "\n" } else { "" };
                printer.one(node, &node.name, || format!("{gap}{}", card(node, &app.console)))?;
            }
        }
    }
    several.finish()
}

fn card(node: &Node, console: &Console) -> String {
    let now = human::now_unix_ms();
    let mut card = Card::new();
    card.field("Name", node.name.clone())
        .field("Id", node.id.to_string())
        .field("Status", status(node))
        .field("Enrolled", human::moment(node.enrolled_at_unix_ms, now))
        .field("Heartbeat", node.last_heartbeat_unix_ms.map(|at| human::moment(at, now)).unwrap_or_default())
        .field("Sandboxes", format!("{} of {}", node.sandboxes, node.status.capacity.sandboxes_max))
        .field("CPU requested", human::cores(node.cpu_requested_millis))
        .field("Memory requested", human::size(node.memory_requested_bytes))
        .field("NodeLink", node.protocol_version.map(|version| format!("version {version}")).unwrap_or_default());
    if let Some(certificate) = &node.certificate {
        let end = human::moment(certificate.not_after_unix_ms, now);
        let key = certificate.ca_key_id.get(..8).unwrap_or(&certificate.ca_key_id);
        card.field("Certificate", format!("until {end}, of CA {key}"));
    }
    status_fields(&mut card, &node.status, console);
    card.draw(console)
}

/// What a node says of itself.
pub(crate) fn status_fields(card: &mut Card, status: &NodeStatus, console: &Console) {
    let (facts, capacity, load) = (&status.facts, status.capacity, status.load);
    let load_pressure = load.pressure;
    if facts.hostname.is_empty() {
        return;
    }
    let allocatable = format!(
        "{} cores, {}, {}",
        human::cores(capacity.cpu_allocatable_millis),
        human::size(capacity.memory_allocatable_bytes),
        human::count(usize::try_from(capacity.sandboxes_max).unwrap_or(usize::MAX), "sandbox", "sandboxes")
    );
    let load = format!(
        "{}, {} of memory used, {} available, {} of disk free",
        human::cores(load.load1_milli),
        human::size(load.memory_used_bytes),
        human::size(load.memory_available_bytes),
        human::size(load.disk_free_bytes)
    );
    if let Some(offset_ms) = status.load.clock_offset_ms {
        let (size, side) = (offset_ms.unsigned_abs(), if offset_ms > 0 { "behind" } else { "ahead of" });
        card.field("Clock", if offset_ms == 0 { "as central's".into() } else { format!("{size} ms {side} central's") });
    }
    card.field("Host", format!("{}, {} CPUs, {}", facts.hostname, facts.cpus, human::size(facts.memory_bytes)))
        .field("Kernel", format!("{} {}, cgroup {}", facts.kernel, facts.architecture, facts.cgroup_version))
        .field("Versions", format!("roostd {}, containerd {}", facts.daemon_version, facts.containerd_version))
        .field("Allocatable", allocatable)
        .field("Load", load)
        .field("Cap", status.cap.map(cap).unwrap_or_default())
        .field("Pressure", load_pressure.map(pressure).unwrap_or_default());
    conditions(card, status, console);
    abilities(card, status, console);
    images(card, status, console);
}

/// What the kernel lets all sandboxes together use.
fn cap(cap: NodeCap) -> String {
    let (cpu, memory) = (human::cores(cap.cpu_millis), human::size(cap.memory_bytes));
    format!("{cpu} cores, {memory}, {} processes for all sandboxes together", cap.pids)
}

/// Shares of the last ten seconds in which something waited, and in which
/// everything did.
fn pressure(pressure: Pressure) -> String {
    let percent = |ppm: u32| format!("{}.{} %", ppm / 10_000, ppm % 10_000 / 1_000);
    let one = |(resource, stall): (&str, Stall)| match stall.full_avg10_ppm {
        Some(full) => format!("{resource} {} (all {})", percent(stall.some_avg10_ppm), percent(full)),
        None => format!("{resource} {}", percent(stall.some_avg10_ppm)),
    };
    pressure.measured().map(one).collect::<Vec<_>>().join(", ")
}

fn conditions(card: &mut Card, status: &NodeStatus, console: &Console) {
    if status.conditions.is_empty() {
        return;
    }
    const COLUMNS: [Column; 4] =
        [Column::new("TYPE"), Column::new("HOLDS"), Column::new("REASON"), Column::new("MESSAGE")];
    let rows = status.conditions.iter().map(|condition| {
        let tone = match condition.is_healthy() {
            true => Tone::Good,
            false if condition.stops_placement() => Tone::Bad,
            false => Tone::Busy,
        };
        let holds = Text::new(if condition.is_true { "yes" } else { "no" }, tone);
        vec![condition.kind.clone().into(), holds, condition.reason.clone().into(), condition.message.clone().into()]
    });
    card.section("Conditions").block(&Drawing::new(console, false, true).draw(&COLUMNS, rows.collect()).0);
}

/// What the node can and cannot do: what it can in few words, why not in full.
fn abilities(card: &mut Card, status: &NodeStatus, console: &Console) {
    if status.abilities.is_empty() {
        return;
    }
    const COLUMNS: [Column; 3] = [Column::new("ABILITY"), Column::new("USABLE"), Column::new("DETAIL")];
    let rows = status.abilities.iter().map(|ability| {
        let usable = if ability.is_usable { Text::new("yes", Tone::Good) } else { Text::new("no", Tone::Dim) };
        let parts = [ability.detail.as_str(), ability.reason.as_str()];
        let detail: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        vec![ability.name.clone().into(), usable, detail.join(": ").into()]
    });
    card.section("Can do").block(&Drawing::new(console, false, true).draw(&COLUMNS, rows.collect()).0);
}

fn images(card: &mut Card, status: &NodeStatus, console: &Console) {
    if status.images.is_empty() {
        return;
    }
    const COLUMNS: [Column; 3] = [Column::new("REFERENCE"), Column::new("SIZE"), Column::new("DIGEST")];
    let rows = status.images.iter().map(|image| {
        let digest = human::short_digest(&image.digest).to_owned();
        vec![image.reference.to_string().into(), human::size(image.size_bytes).into(), digest.into()]
    });
    card.section("Images").block(&Drawing::new(console, false, true).draw(&COLUMNS, rows.collect()).0);
}
