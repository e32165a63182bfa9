//! How the connection does, for people, metrics and conditions.

use roost_proto::id::NodeId;
use roost_proto::model::NodeCondition;
use serde::Serialize;

use super::identity::Identity;

pub(super) const NOT_ENROLLED: &str =
    "the node has no certificate: make a join token (`roost node join-token`), configure it and restart";
pub(super) const CERTIFICATE_EXPIRED: &str =
    "the node's certificate has expired: make a join token (`roost node join-token`), configure it and restart";
pub(super) const NODE_REMOVED: &str = "central does not know the node any more: if it was restored from a backup, `roost node readmit` takes the node back; \
     else make a join token (`roost node join-token`), configure it and restart";

pub(super) const HOLDS_SANDBOXES: &str = "the node cannot join again while it holds sandboxes of its earlier enrolment: \
     they would be deleted; if that is wanted, set central.abandon_sandboxes = true and restart";

/// Where the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkPhase {
    /// Tries to reach central.
    Connecting,
    /// Central has welcomed the node.
    Connected {
        /// Unix time of the welcome, in milliseconds.
        since_unix_ms: u64,
    },
}

/// How the connection does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkState {
    /// Where it is.
    pub phase: LinkPhase,
    /// Address of central.
    pub address: String,
    /// Id that central gave this node.
    pub node_id: Option<NodeId>,
    /// End of the node's certificate, Unix time in milliseconds.
    pub certificate_not_after_unix_ms: Option<u64>,
    /// Why the node cannot connect until somebody helps: it has no valid
    /// certificate, and no join token to get one.
    pub problem: Option<&'static str>,
    /// Why the last connection ended or failed.
    pub last_error: Option<String>,
    /// Time between the last heartbeat and its acknowledgement, in microseconds.
    pub rtt_us: Option<u64>,
    /// How far central's clock is ahead of ours, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// Connections that central welcomed since the daemon started.
    pub connects: u64,
    /// Times that the node tried to enrol or connect since the daemon started.
    pub attempts: u64,
    /// Version of NodeLink that the stream speaks; none while not connected.
    pub protocol_version: Option<u32>,
}

/// Difference of the clocks from which on times in logs mislead people.
pub const CLOCK_SKEW_LIMIT_MS: u64 = 5_000;

impl LinkState {
    pub(super) fn new(address: String, identity: Option<&Identity>) -> Self {
        Self {
            phase: LinkPhase::Connecting,
            address,
            node_id: identity.map(|identity| identity.node_id.clone()),
            certificate_not_after_unix_ms: identity.map(|identity| identity.not_after_unix_ms),
            problem: None,
            last_error: None,
            rtt_us: None,
            clock_offset_ms: None,
            connects: 0,
            attempts: 0,
            protocol_version: None,
        }
    }

    /// Whether central hears the node now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, LinkPhase::Connected { .. })
    }

    /// The state as a named fact with its reason.
    #[must_use]
    pub fn condition(&self) -> NodeCondition {
        let (reason, message) = match (self.phase, self.problem) {
            (LinkPhase::Connected { .. }, _) => ("Connected", String::new()),
            (LinkPhase::Connecting, Some(problem)) => ("NoCertificate", problem.into()),
            (LinkPhase::Connecting, None) => ("Connecting", self.last_error.clone().unwrap_or_default()),
        };
        NodeCondition { kind: "CentralConnected".into(), is_true: self.is_connected(), reason: reason.into(), message }
    }

    /// That the clocks differ too much, as a named fact; none while they do
    /// not. It holds while something is wrong, and stops no placement.
    #[must_use]
    pub fn clock_skew(&self) -> Option<NodeCondition> {
        let offset_ms = self.clock_offset_ms.filter(|offset| offset.unsigned_abs() > CLOCK_SKEW_LIMIT_MS)?;
        let side = if offset_ms > 0 { "behind" } else { "ahead of" };
        let seconds = offset_ms.unsigned_abs() / 1000;
        let message = format!(
            "this node's clock is {seconds} s {side} central's: set up time synchronisation on both, certificates \
             and times in logs depend on it"
        );
        Some(NodeCondition {
            kind: NodeCondition::CLOCK_SKEW.into(),
            is_true: true,
            reason: "ClocksDiffer".into(),
            message,
        })
    }

    pub(super) fn connected(&mut self, now_unix_ms: u64, protocol_version: u32) {
        self.phase = LinkPhase::Connected { since_unix_ms: now_unix_ms };
        self.problem = None;
        self.protocol_version = Some(protocol_version);
        self.connects += 1;
    }

    pub(super) fn disconnected(&mut self, error: String) {
        self.phase = LinkPhase::Connecting;
        self.last_error = Some(error);
        self.rtt_us = None;
        self.protocol_version = None;
    }

    /// Remembers what somebody must help with; true if this is news. An
    /// expired certificate is tried all the same, so what that brings is the
    /// symptom and this is the cause.
    pub(super) fn unusable(&mut self, problem: &'static str) -> bool {
        self.problem.replace(problem) != Some(problem)
    }

    pub(super) fn adopted(&mut self, identity: &Identity) {
        self.problem = None;
        self.node_id = Some(identity.node_id.clone());
        self.certificate_not_after_unix_ms = Some(identity.not_after_unix_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_a_condition_with_the_figure() {
        let mut state = LinkState::new("https://central".into(), None);
        assert_eq!(state.clock_skew(), None, "nothing is known yet");
        state.clock_offset_ms = Some(-5_000);
        assert_eq!(state.clock_skew(), None);
        state.clock_offset_ms = Some(61_234);
        let behind = state.clock_skew().unwrap();
        assert!(behind.is_true && behind.message.contains("61 s behind"), "{behind:?}");
        state.clock_offset_ms = Some(-7_000);
        assert!(state.clock_skew().unwrap().message.contains("7 s ahead of"));
    }
}
