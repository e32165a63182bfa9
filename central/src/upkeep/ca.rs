//! `roost-central ca`: status, rotate, retire.

use roost_proto::model::NodeCertificate;
use serde::Serialize;

use super::moment;
use crate::app::{App, StartError, default_tenant};
use crate::ca::{Authorities, Authority, CaError};
use crate::config::Config;
use crate::store::{NodeRecord, StoreError};

/// Names of nodes that a refusal or a table shows.
const NAMES_SHOWN: usize = 10;

/// Why a command on the CA is not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Store or CA cannot be opened.
    #[error("cannot open the state of central")]
    Open(#[from] StartError),
    /// The files of the CA cannot be used or changed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The nodes cannot be read.
    #[error("cannot read the nodes")]
    Store(#[from] StoreError),
    /// Nodes would be locked out.
    #[error(
        "{} would be locked out: {}; wait until `roost-central ca status` shows none (they renew by themselves once \
         they are connected), or use --force: those nodes then have to join again",
        count(nodes.len()), names(nodes)
    )]
    StillNeeded {
        /// Nodes that present the old CA, or nothing yet.
        nodes: Vec<String>,
    },
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

fn names(nodes: &[String]) -> String {
    let more = nodes.len().saturating_sub(NAMES_SHOWN);
    let shown = nodes.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// One CA, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthorityInfo {
    /// Key identifier in hex; certificates name their issuer by it.
    pub key_id: String,
    /// SHA-256 of the certificate in hex; join tokens end in it.
    pub fingerprint: String,
    /// Unix time of its end, in milliseconds.
    pub not_after_unix_ms: u64,
    /// Nodes whose certificate it issued.
    pub nodes: usize,
}

/// What `ca status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaStatus {
    /// The CA by which nodes know central.
    pub present: AuthorityInfo,
    /// The CA that is to take its place.
    pub next: Option<AuthorityInfo>,
    /// Names of the nodes that would be locked out by `ca retire`.
    pub behind: Vec<String>,
}

impl CaStatus {
    fn of(authorities: &Authorities, nodes: &[NodeRecord]) -> Self {
        let issued = |key_id: &str| nodes.iter().filter(|node| is_by(node.certificate.as_ref(), key_id)).count();
        let info = |authority: &Authority| AuthorityInfo {
            key_id: authority.key_id().into(),
            fingerprint: authority.fingerprint().into(),
            not_after_unix_ms: authority.not_after_unix_ms(),
            nodes: issued(authority.key_id()),
        };
        let issuing = authorities.issuing().key_id();
        let behind = nodes.iter().filter(|node| !is_by(node.certificate.as_ref(), issuing));
        Self {
            present: info(authorities.serving()),
            next: authorities.next().map(info),
            behind: behind.map(|node| node.name.clone()).collect(),
        }
    }

    /// The status for people.
    #[must_use]
    pub fn text(&self) -> String {
        let line = |name: &str, info: &AuthorityInfo| {
            let AuthorityInfo { key_id, not_after_unix_ms, nodes, .. } = info;
            format!("{name:<8} {key_id}  ends {}  {}\n", moment(*not_after_unix_ms), count(*nodes))
        };
        let mut text = line("present", &self.present);
        let Some(next) = &self.next else { return text };
        text += &line("next", next);
        text += &match self.behind.len() {
            0 => "Every node has a certificate of the next CA: `roost-central ca retire` ends the rotation.\n".into(),
            behind => format!(
                "{} not yet there: {}\nA node of NodeLink version 1 renews at half of its certificate's life and is \
                 counted when it connects next: restart its roostd to see it sooner.\n",
                count(behind),
                names(&self.behind)
            ),
        };
        text
    }
}

fn is_by(certificate: Option<&NodeCertificate>, key_id: &str) -> bool {
    certificate.is_some_and(|certificate| certificate.ca_key_id == key_id)
}

/// Who has certificates of which CA.
///
/// # Errors
/// See [`CommandError`].
pub async fn status(config: &Config) -> Result<CaStatus, CommandError> {
    let (store, authorities) = App::open_store(config).await?;
    let tenant = default_tenant().map_err(StartError::from)?;
    Ok(CaStatus::of(&authorities, &store.tenant(&tenant).nodes().await?))
}

/// Begins a rotation: from now on both CAs are trusted, and nodes get
/// certificates of the next one. A running central notices within seconds.
///
/// # Errors
/// See [`CommandError`].
pub async fn rotate(config: &Config) -> Result<CaStatus, CommandError> {
    // Opens the state as the server does, so that there is a CA to rotate.
    App::open_store(config).await?;
    Authorities::rotate(&config.ca_dir())?;
    status(config).await
}

/// Ends a rotation: the CA before is trusted no more, and its key is gone.
///
/// # Errors
/// [`CommandError::StillNeeded`] unless `force`; see [`CommandError`].
pub async fn retire(config: &Config, force: bool) -> Result<CaStatus, CommandError> {
    let before = status(config).await?;
    if before.next.is_none() {
        return Err(CaError::NoRotation.into());
    }
    if !before.behind.is_empty() && !force {
        return Err(CommandError::StillNeeded { nodes: before.behind });
    }
    Authorities::retire(&config.ca_dir())?;
    status(config).await
}
