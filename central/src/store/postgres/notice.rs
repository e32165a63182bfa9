//! Changes as the text of notifications: one change a line.
//!
//! A line names what changed and not what it is now: that is read when it
//! arrives, so that the newest state always comes last.

use roost_proto::id::{NodeId, SandboxId, TenantId};

use crate::store::sql::{Transaction, Value};
use crate::store::{Change, StoreError};

/// The channel of LISTEN and NOTIFY, one for a database.
pub(super) const CHANNEL: &str = "roost_changes";
/// Longest text of one notification: PostgreSQL takes less than 8000 bytes.
const TEXT_MAX_BYTES: usize = 7900;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// A sandbox is new or different.
    Sandbox(SandboxId),
    /// A sandbox is gone.
    Gone(TenantId, SandboxId),
    /// The desired state of a node has this generation.
    Desired(NodeId, u64),
    /// A node was removed.
    Removed(NodeId),
    /// A node is to renew its certificate.
    Renew(NodeId),
}

fn line(change: &Change) -> String {
    match change {
        Change::Sandbox(sandbox) => format!("sandbox {}\n", sandbox.id),
        Change::Gone { tenant, id } => format!("gone {tenant} {id}\n"),
        Change::Desired { node_id, generation } => format!("desired {node_id} {generation}\n"),
        Change::Removed(node) => format!("removed {node}\n"),
        Change::Renew(node) => format!("renew {node}\n"),
    }
}

/// Sends the changes with the transaction: nobody hears of them unless it is
/// committed, and then in the order of the commits.
pub(super) fn send(tx: &dyn Transaction, changes: &[Change]) -> Result<(), StoreError> {
    let mut text = String::new();
    for line in changes.iter().map(line) {
        if text.len() + line.len() > TEXT_MAX_BYTES {
            notify(tx, std::mem::take(&mut text))?;
        }
        text += &line;
    }
    if text.is_empty() { Ok(()) } else { notify(tx, text) }
}

fn notify(tx: &dyn Transaction, text: String) -> Result<(), StoreError> {
    let values = [Value::from(CHANNEL), Value::from(text)];
    tx.execute("SELECT pg_notify($1, $2)", &values).map(drop)
}

/// Reads a text; a line of a newer central that is not understood is left out.
pub(super) fn read(text: &str) -> impl Iterator<Item = Notice> {
    text.lines().filter_map(|line| {
        let notice = read_line(line);
        if notice.is_none() {
            tracing::debug!(line, "notification not understood");
        }
        notice
    })
}

fn read_line(line: &str) -> Option<Notice> {
    let mut words = line.split(' ');
    let notice = match words.next()? {
        "sandbox" => Notice::Sandbox(words.next()?.parse().ok()?),
        "gone" => Notice::Gone(words.next()?.parse().ok()?, words.next()?.parse().ok()?),
        "desired" => Notice::Desired(words.next()?.parse().ok()?, words.next()?.parse().ok()?),
        "removed" => Notice::Removed(words.next()?.parse().ok()?),
        "renew" => Notice::Renew(words.next()?.parse().ok()?),
        _ => return None,
    };
    words.next().is_none().then_some(notice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_survives_its_text_and_strange_lines_are_left_out() {
        let (node, id) = (NodeId::random(), SandboxId::random());
        let gone = Change::Gone { tenant: "default".parse().unwrap(), id: id.clone() };
        let desired = Change::Desired { node_id: node.clone(), generation: 7 };
        let (removed, renew) = (line(&Change::Removed(node.clone())), line(&Change::Renew(node.clone())));
        let text =
            format!("{}volume x\n{}{removed}{renew}sandbox {id}\nsandbox {id} more\n", line(&gone), line(&desired));
        let expected = [
            Notice::Gone("default".parse().unwrap(), id.clone()),
            Notice::Desired(node.clone(), 7),
            Notice::Removed(node.clone()),
            Notice::Renew(node),
            Notice::Sandbox(id),
        ];
        assert_eq!(read(&text).collect::<Vec<_>>(), expected);
    }
}
