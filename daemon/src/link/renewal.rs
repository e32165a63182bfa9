//! Keeps the node's certificate fresh.

use std::sync::Arc;
use std::time::Duration;

use super::identity::Identity;
use super::pace::{self, Backoff};
use super::{Link, enrol, unix_ms};

/// Longest sleep: the wall clock may be set or the machine suspended, so it
/// is looked at again at least this often.
const LOOK_PERIOD: Duration = Duration::from_secs(600);

/// Renews at half life and whenever central asks for it, for ever.
pub(super) async fn keep_fresh(link: &Link) {
    let mut identities = link.identity.subscribe();
    loop {
        let present = identities.borrow_and_update().clone();
        let due = async {
            match &present {
                Some(present) => until_due(present).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancel-safe: a sleep.
            () = due => {}
            // Cancel-safe: a wish that was not taken stays.
            () = link.renew_now.notified() => tracing::info!("central asks for a new certificate"),
            // Cancel-safe: an identity that was not seen stays unseen. The
            // sender lives in `link`, so this cannot end.
            _ = identities.changed() => continue,
        }
        if let Some(present) = present {
            renew(link, &present).await;
        }
    }
}

async fn until_due(identity: &Identity) {
    let due = pace::renew_at_unix_ms(identity.obtained_at_unix_ms, identity.not_after_unix_ms, rand::random());
    loop {
        let left = Duration::from_millis(due.saturating_sub(unix_ms()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_PERIOD)).await;
    }
}

/// Tries until it succeeds or another certificate came.
async fn renew(link: &Link, present: &Arc<Identity>) {
    let mut backoff = Backoff::new(pace::RENEW_BACKOFF);
    loop {
        // What the node trusts may have changed since; the certificate counts.
        let now = link.identity.borrow().clone();
        let Some(now) = now.filter(|now| now.certificate_pem == present.certificate_pem) else { return };
        match enrol::renew(&link.endpoint, &now).await {
            Ok(identity) if identity.node_id == present.node_id => {
                tracing::info!(not_after_unix_ms = identity.not_after_unix_ms, "node certificate renewed");
                link.adopt(identity);
                return;
            }
            Ok(identity) => {
                tracing::error!(own = %present.node_id, given = %identity.node_id, "central renewed another node's certificate");
            }
            Err(error) => {
                let error = crate::api::status::chain(&error);
                tracing::warn!(error, "node certificate cannot be renewed yet");
            }
        }
        tokio::time::sleep(backoff.next(rand::random())).await;
    }
}
