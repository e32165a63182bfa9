//! Versions of NodeLink, and how two peers agree on one.
//!
//! A node says the oldest and the newest version that it speaks, central
//! chooses the newest that both know. Within the range every message of every
//! version is understood; docs/upgrade.md says how long a version is kept.

/// Oldest version of NodeLink that this build speaks.
pub const PROTOCOL_OLDEST: u32 = 1;
/// Newest version of NodeLink that this build speaks.
pub const PROTOCOL_VERSION: u32 = 2;
/// Name of the gRPC metadata entry of a refusal that says after how many
/// milliseconds the node is to try again.
pub const RETRY_AFTER_MS: &str = "roost-retry-after-ms";

/// Two peers that have no version in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it speaks NodeLink version {peer_oldest} to {peer_newest}, this side {PROTOCOL_OLDEST} to {PROTOCOL_VERSION}: \
     upgrade {} (docs/upgrade.md has the order)",
    self.older()
)]
pub struct VersionMismatch {
    /// Oldest version that the peer speaks.
    pub peer_oldest: u32,
    /// Newest version that the peer speaks.
    pub peer_newest: u32,
}

impl VersionMismatch {
    /// Which side has to be upgraded.
    fn older(&self) -> &'static str {
        if self.peer_oldest > PROTOCOL_VERSION { "this side" } else { "the other side" }
    }
}

/// The newest version that both sides speak; `peer_newest` is 0 where the peer
/// speaks one version only, as peers of version 1 do.
///
/// # Errors
/// When the ranges have nothing in common, or the peer's is empty.
pub fn negotiate(peer_oldest: u32, peer_newest: u32) -> Result<u32, VersionMismatch> {
    let peer_newest = if peer_newest == 0 { peer_oldest } else { peer_newest };
    let common = peer_newest.min(PROTOCOL_VERSION);
    if common < peer_oldest.max(PROTOCOL_OLDEST) {
        return Err(VersionMismatch { peer_oldest, peer_newest });
    }
    Ok(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(negotiate(1, 0), Ok(1), "a peer of version 1");
        assert_eq!(negotiate(1, 2), Ok(2));
        assert_eq!(negotiate(2, 9), Ok(2), "a newer peer that still speaks ours");
    }

    #[test]
    fn peers_without_a_common_version_are_told_who_is_to_be_upgraded() {
        let newer = negotiate(3, 5).unwrap_err();
        assert!(newer.to_string().contains("3 to 5") && newer.to_string().contains("upgrade this side"), "{newer}");
        let older = negotiate(0, 0).unwrap_err();
        assert!(older.to_string().contains("upgrade the other side"), "{older}");
    }
}
