//! Leases against containerd's garbage collection.
//!
//! What is made under a lease is kept until the lease goes, even if nothing
//! refers to it yet. "Lease" alone means Roost's own, time-bound rights
//! elsewhere; containerd's is a [`GcLease`].

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use containerd_client::services::v1::{AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, Resource};
use containerd_client::tonic::Request;
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle;

use super::client::{Client, IDENTIFIER_RULE, is_identifier};
use super::error::{Error, Idempotent};

/// Label that makes containerd drop a lease at a time (RFC 3339).
const EXPIRE_LABEL: &str = "containerd.io/gc.expire";
/// Label that tells for what Roost made a lease.
const PURPOSE_LABEL: &str = "roost.io/lease-purpose";
/// Longest wait for a deletion that runs the garbage collection.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(120);

/// Name of a lease, checked to be one that containerd accepts.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseId {
    text: String,
    metadata: MetadataValue<Ascii>,
}

impl LeaseId {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] if containerd would not accept it.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let refuse = |text: &str| Error::Invalid { object: format!("lease \"{text}\""), problem: IDENTIFIER_RULE };
        if !is_identifier(&text) {
            return Err(refuse(&text));
        }
        let metadata = text.parse().map_err(|_| refuse(&text))?;
        Ok(Self { text, metadata })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Puts what a request makes under this lease.
    pub(super) fn hold<T>(&self, mut request: Request<T>) -> Request<T> {
        request.metadata_mut().insert("containerd-lease", self.metadata.clone());
        request
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseId({})", self.text)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A lease that exists. Dropping it deletes it in the background; if that
/// fails as well, its expiry ends it.
#[derive(Debug)]
pub struct GcLease {
    client: Client,
    id: LeaseId,
    is_released: bool,
}

impl GcLease {
    /// Makes a lease for one piece of work of the given purpose (part of its
    /// name), which containerd drops by itself after `expires_after`.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn create(client: &Client, purpose: &'static str, expires_after: Duration) -> Result<Self, Error> {
        let id = LeaseId::new(format!("{purpose}-{:016x}", rand::random::<u64>()))?;
        Self::make(client, id.clone(), purpose, expires_after).await?;
        Ok(Self { client: client.clone(), id, is_released: false })
    }

    /// Takes up a lease of this name, made by an earlier try or now. Dropping
    /// it leaves what it holds for the next try, until it expires.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn take_up(
        client: &Client,
        name: &str,
        purpose: &'static str,
        expires_after: Duration,
    ) -> Result<Self, Error> {
        let id = LeaseId::new(name)?;
        Self::make(client, id.clone(), purpose, expires_after).await.or_exists()?;
        Ok(Self { client: client.clone(), id, is_released: true })
    }

    async fn make(client: &Client, id: LeaseId, purpose: &'static str, expires_after: Duration) -> Result<(), Error> {
        let ends_at = SignedDuration::try_from(expires_after)
            .ok()
            .and_then(|after| Timestamp::now().checked_add(after).ok())
            .ok_or_else(|| Error::Invalid { object: format!("lease \"{id}\""), problem: "use a nearer expiry" })?;
        let labels = HashMap::from([
            (EXPIRE_LABEL.to_owned(), ends_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            (PURPOSE_LABEL.to_owned(), purpose.to_owned()),
        ]);
        let request = client.request(CreateRequest { id: id.to_string(), labels });
        client.leases().create(request).await.map_err(Error::of("create lease", format!("lease {id}")))?;
        Ok(())
    }

    /// Its name, for [`Client::request_leased`].
    #[must_use]
    pub fn id(&self) -> &LeaseId {
        &self.id
    }

    /// Holds a snapshot by this lease, whether it exists yet or not.
    ///
    /// # Errors
    /// That the lease is gone or containerd unavailable.
    pub async fn hold_snapshot(&self, snapshotter: &str, name: &str) -> Result<(), Error> {
        let resource = Resource { id: name.to_owned(), r#type: format!("snapshots/{snapshotter}") };
        let message = AddResourceRequest { id: self.id.to_string(), resource: Some(resource) };
        let answer = self.client.leases().add_resource(self.client.request(message)).await;
        answer.map_err(Error::of("hold snapshot", format!("snapshot {name}")))?;
        Ok(())
    }

    /// Deletes the lease now: what nothing else refers to is collected soon.
    ///
    /// # Errors
    /// That containerd is unavailable; the expiry then ends the lease.
    pub async fn release(mut self) -> Result<(), Error> {
        let result = delete(&self.client, &self.id, false).await;
        // A failed deletion is reported once, here, not tried again by drop.
        self.is_released = true;
        result
    }
}

impl Drop for GcLease {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        // Without a runtime the process is ending: the expiry does it.
        let Ok(runtime) = Handle::try_current() else { return };
        let (client, id) = (self.client.clone(), self.id.clone());
        runtime.spawn(async move {
            if let Err(error) = delete(&client, &id, false).await {
                tracing::warn!(lease = %id, error = &error as &dyn std::error::Error, "lease left to its expiry");
            }
        });
    }
}

/// Deletes a lease; one that is gone is no error. `is_sync` waits until
/// containerd has collected what nothing refers to.
///
/// # Errors
/// containerd's refusal, or that it is unavailable.
pub async fn delete(client: &Client, id: &LeaseId, is_sync: bool) -> Result<(), Error> {
    let message = DeleteRequest { id: id.to_string(), sync: is_sync };
    let timeout = if is_sync { COLLECT_TIMEOUT } else { client.timeout() };
    let answer = client.leases().delete(client.request_within(message, timeout)).await;
    answer.map_err(Error::of("delete lease", format!("lease {id}"))).or_gone()
}

/// Deletes every lease of a purpose: at the daemon's start, when no work of
/// its own can be under way, what a killed predecessor left. Returns how many.
///
/// # Errors
/// The first refusal; the other leases end by their expiry.
pub async fn delete_stale(client: &Client, purpose: &'static str) -> Result<usize, Error> {
    let filters = vec![format!("labels.\"{PURPOSE_LABEL}\"==\"{purpose}\"")];
    let answer = client.leases().list(client.request(ListRequest { filters })).await;
    let leases = answer.map_err(Error::of("list leases", format!("leases for {purpose}")))?.into_inner().leases;
    let count = leases.len();
    for lease in leases {
        delete(client, &LeaseId::new(lease.id)?, false).await?;
    }
    Ok(count)
}
