//! Who calls, and whether they may.

use std::ffi::CString;
use std::fmt;

use nix::unistd::{Gid, Uid, User, getgrouplist};

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A process of this machine, by the credentials of its socket.
    Local {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// Its process id; absent when it lives in another PID namespace.
        pid: Option<i32>,
    },
    /// Central, through a tunnel of the node's own connection.
    Central,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid: Some(pid), .. } => write!(f, "uid {uid} pid {pid}"),
            Self::Local { uid, pid: None, .. } => write!(f, "uid {uid}"),
            Self::Central => f.write_str("central"),
        }
    }
}

/// Which local users may use the socket. Root always may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PeerPolicy {
    pub(super) uids: Vec<u32>,
    pub(super) gids: Vec<u32>,
}

impl PeerPolicy {
    /// Decides by the credentials; reads the user database only when user and
    /// primary group do not decide already, so this may block for a moment.
    pub(super) fn allows(&self, uid: u32, gid: u32) -> bool {
        self.allows_credentials(uid, gid) || self.allows_member(uid, gid)
    }

    fn allows_credentials(&self, uid: u32, gid: u32) -> bool {
        uid == 0 || self.uids.contains(&uid) || self.gids.contains(&gid)
    }

    /// The kernel's credentials name the primary group only; people are
    /// usually in the socket's group as a supplementary one.
    fn allows_member(&self, uid: u32, gid: u32) -> bool {
        !self.gids.is_empty() && groups_of(uid, gid).iter().any(|group| self.gids.contains(&group.as_raw()))
    }
}

/// Groups of a user by the user database; empty if it does not know them.
fn groups_of(uid: u32, gid: u32) -> Vec<Gid> {
    let user = match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user,
        Ok(None) => return Vec::new(),
        Err(error) => {
            tracing::warn!(uid, %error, "user database cannot be read");
            return Vec::new();
        }
    };
    CString::new(user.name).ok().and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_always_allowed_and_nobody_else_by_default() {
        let policy = PeerPolicy::default();
        assert!(policy.allows(0, 12_345));
        assert!(!policy.allows(65_534, 65_534));
    }

    #[test]
    fn a_listed_user_or_primary_group_is_allowed() {
        let policy = PeerPolicy { uids: vec![4_000_001], gids: vec![4_000_002] };
        assert!(policy.allows(4_000_001, 1));
        assert!(policy.allows(7, 4_000_002));
        assert!(!policy.allows(4_000_002, 4_000_001));
    }
}
