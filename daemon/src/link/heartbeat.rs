//! What goes into a heartbeat, and when. Pure: time is given as the time
//! since the stream began.
//!
//! The first heartbeat lists everything. After it, a change that matters goes
//! out at once ([`Kind::Delta`]), a few milliseconds batched; load and usage
//! wait for the next period ([`Kind::Periodic`]). A few heartbeats may be
//! under way unacknowledged; with more, changes gather until central answers.
//! A list that is too long for one message goes out in parts ([`Kind::Part`]),
//! where central can take parts; no other heartbeat comes between them.

pub(super) mod parts;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{NodeLoad, NodeStatus, Observed, Phase};
use roost_proto::node::{Heartbeat, HeartbeatAck};
use roost_proto::types::SandboxObserved;

use crate::sandbox::View;

/// Least time between two heartbeats: what a start does within it is one.
const MIN_INTERVAL: Duration = Duration::from_millis(2);
/// Least time between two full heartbeats, so that a central that cannot
/// apply one is not flooded with them.
const FULL_INTERVAL: Duration = Duration::from_secs(1);
/// Heartbeats under way unacknowledged: enough that a slow disk of central
/// does not delay the news of a Ready, few enough that changes batch.
const WINDOW: usize = 4;
/// A central that acknowledges nothing for so long is as good as gone.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// What a heartbeat carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything.
    Full,
    /// The next part of everything.
    Part,
    /// Changes that matter.
    Delta,
    /// Every change since the last periodic one, or nothing.
    Periodic,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Send this.
    Send(Kind),
    /// Nothing before this time.
    WaitUntil(Duration),
    /// Central has not acknowledged in time.
    Dead,
}

/// An acknowledgement of a heartbeat that was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("central acknowledges heartbeat {acked}, the last one was {sent}")]
pub(super) struct UnknownAck {
    pub(super) acked: u64,
    pub(super) sent: u64,
}

/// The heartbeats of one stream.
#[derive(Debug)]
pub(super) struct Heartbeats {
    period: Duration,
    sequence: u64,
    /// Sequence of the last full heartbeat; what was sent before it cannot
    /// ask for another.
    full_sequence: u64,
    needs_full: bool,
    /// Bytes of a part of a full heartbeat; none where central takes no parts.
    part_max_bytes: Option<usize>,
    /// What is still to be sent of a full heartbeat, and the number of the
    /// part that was sent last.
    parts: VecDeque<Vec<SandboxObserved>>,
    part: u32,
    is_dirty: bool,
    unacked: VecDeque<(u64, Duration)>,
    last_sent: Option<Duration>,
    last_full: Option<Duration>,
    last_periodic: Duration,
    /// Changes looked at for deltas, and for periodic heartbeats.
    seen_by_delta: u64,
    seen_by_periodic: u64,
    sandboxes: HashMap<SandboxId, Sent>,
    node: NodeStatus,
}

/// What central was told last of one sandbox.
#[derive(Debug)]
struct Sent {
    change: u64,
    /// Without what changes all the time.
    matter: Observed,
}

impl Heartbeats {
    pub(super) fn new(period: Duration, part_max_bytes: Option<usize>) -> Self {
        Self {
            period,
            part_max_bytes,
            parts: VecDeque::new(),
            part: 0,
            sequence: 0,
            full_sequence: 0,
            needs_full: true,
            is_dirty: false,
            unacked: VecDeque::new(),
            last_sent: None,
            last_full: None,
            last_periodic: Duration::ZERO,
            seen_by_delta: 0,
            seen_by_periodic: 0,
            sandboxes: HashMap::new(),
            node: NodeStatus::default(),
        }
    }

    /// Something of the node has changed.
    pub(super) fn mark_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// Central asks for another period.
    pub(super) fn set_period(&mut self, period: Duration) {
        self.period = period;
    }

    /// Decides what to do at `now`.
    pub(super) fn next(&self, now: Duration) -> Next {
        let dead_at = self.unacked.front().map(|(_, sent)| *sent + ACK_TIMEOUT);
        if dead_at.is_some_and(|dead_at| now >= dead_at) {
            return Next::Dead;
        }
        let periodic_at = self.last_periodic + self.period;
        if self.unacked.len() >= WINDOW {
            return Next::WaitUntil(dead_at.unwrap_or(periodic_at));
        }
        let kind = match (self.needs_full, now >= periodic_at, self.is_dirty) {
            (true, _, _) => Some(Kind::Full),
            _ if !self.parts.is_empty() => Some(Kind::Part),
            (_, true, _) => Some(Kind::Periodic),
            (_, _, true) => Some(Kind::Delta),
            _ => None,
        };
        let free_at = match self.needs_full {
            true => self.last_full.map_or(Duration::ZERO, |sent| sent + FULL_INTERVAL),
            false => self.last_sent.map_or(Duration::ZERO, |sent| sent + MIN_INTERVAL),
        };
        match kind {
            Some(kind) if now >= free_at => Next::Send(kind),
            Some(_) => Next::WaitUntil(free_at),
            None => Next::WaitUntil(dead_at.map_or(periodic_at, |dead_at| dead_at.min(periodic_at))),
        }
    }

    /// Makes the next heartbeat; `None` if a delta turns out to hold nothing
    /// that matters. `changed_since` lists the sandboxes behind a change.
    pub(super) fn build(
        &mut self,
        kind: Kind,
        now: Duration,
        now_unix_ms: u64,
        node: &NodeStatus,
        changed_since: impl FnOnce(u64) -> Vec<View>,
    ) -> Option<Heartbeat> {
        if kind == Kind::Part {
            return self.next_part(now, now_unix_ms);
        }
        let is_full = kind == Kind::Full;
        self.is_dirty = false;
        let views = changed_since(match kind {
            Kind::Full | Kind::Part => 0,
            Kind::Delta => self.seen_by_delta,
            Kind::Periodic => self.seen_by_periodic,
        });
        if is_full {
            self.sandboxes.clear();
        }
        let newest = views.iter().map(|view| view.change).max().unwrap_or_default();
        let mut sandboxes: Vec<_> = views.into_iter().filter_map(|view| self.observe(kind, view)).collect();
        self.seen_by_delta = self.seen_by_delta.max(newest);
        let node = self.node_if_news(kind, node);
        if kind == Kind::Delta && sandboxes.is_empty() && node.is_none() {
            return None;
        }
        if kind != Kind::Delta {
            self.seen_by_periodic = self.seen_by_periodic.max(newest);
            self.last_periodic = now;
        }
        if is_full {
            self.needs_full = false;
            self.full_sequence = self.sequence + 1;
            self.last_full = Some(now);
            self.part = 0;
            self.parts = parts::split(sandboxes, self.part_max_bytes.unwrap_or(usize::MAX));
            sandboxes = self.parts.pop_front().unwrap_or_default();
        }
        let node = node.map(Into::into);
        let part =
            Heartbeat { full: is_full, node, sandboxes, has_more: !self.parts.is_empty(), ..Heartbeat::default() };
        Some(self.sent(part, now, now_unix_ms))
    }

    fn next_part(&mut self, now: Duration, now_unix_ms: u64) -> Option<Heartbeat> {
        let sandboxes = self.parts.pop_front()?;
        self.part += 1;
        let has_more = !self.parts.is_empty();
        let part = Heartbeat { full: true, sandboxes, part: self.part, has_more, ..Heartbeat::default() };
        Some(self.sent(part, now, now_unix_ms))
    }

    /// Numbers a heartbeat and takes note of it.
    fn sent(&mut self, heartbeat: Heartbeat, now: Duration, now_unix_ms: u64) -> Heartbeat {
        self.sequence += 1;
        self.last_sent = Some(now);
        self.unacked.push_back((self.sequence, now));
        Heartbeat { sequence: self.sequence, node_unix_ms: now_unix_ms, ..heartbeat }
    }

    /// The message for a sandbox, if this kind of heartbeat is to carry it.
    fn observe(&mut self, kind: Kind, view: View) -> Option<SandboxObserved> {
        let id = &view.desired.id;
        let matter = Observed { usage: None, revision: 0, ..view.observed.clone() };
        let is_known = self.sandboxes.get(id).is_some_and(|sent| match kind {
            Kind::Full | Kind::Part => false,
            Kind::Delta => sent.matter == matter,
            Kind::Periodic => sent.change == view.change,
        });
        if is_known {
            return None;
        }
        if matter.phase == Phase::Gone {
            self.sandboxes.remove(id);
        } else {
            self.sandboxes.insert(id.clone(), Sent { change: view.change, matter });
        }
        Some(parts::bounded(SandboxObserved::new(id, view.observed)))
    }

    fn node_if_news(&mut self, kind: Kind, node: &NodeStatus) -> Option<NodeStatus> {
        let without_load = |status: &NodeStatus| NodeStatus { load: NodeLoad::default(), ..status.clone() };
        let is_news = match kind {
            Kind::Full | Kind::Part => true,
            Kind::Periodic => self.node != *node,
            Kind::Delta => without_load(&self.node) != without_load(node),
        };
        is_news.then(|| {
            self.node = node.clone();
            node.clone()
        })
    }

    /// Takes an acknowledgement; the round trip of the heartbeat it names.
    pub(super) fn ack(&mut self, ack: &HeartbeatAck, now: Duration) -> Result<Option<Duration>, UnknownAck> {
        if ack.sequence > self.sequence {
            return Err(UnknownAck { acked: ack.sequence, sent: self.sequence });
        }
        let mut round_trip = None;
        while let Some((sequence, sent)) = self.unacked.pop_front_if(|(sequence, _)| *sequence <= ack.sequence) {
            round_trip = (sequence == ack.sequence).then(|| now.saturating_sub(sent));
        }
        // An answer to what was sent before the last full one is stale.
        if ack.resync && ack.sequence >= self.full_sequence {
            self.needs_full = true;
            self.parts.clear();
        }
        Ok(round_trip)
    }
}

#[cfg(test)]
mod tests;
