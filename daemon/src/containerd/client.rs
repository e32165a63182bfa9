//! The connection to containerd: one HTTP/2 channel, one containerd namespace.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{CreateNamespaceRequest, Namespace};
use containerd_client::tonic::Request;
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::{Channel, Endpoint};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tower::service_fn;

use super::error::{Error, Idempotent};
use super::lease::LeaseId;

/// Deadline of a call that moves no bulk data.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest message taken from containerd, in bytes: lists of containers and
/// snapshots of a full node come as one message.
const MAX_RECEIVE_BYTES: usize = 64 << 20;
/// Largest message sent, in bytes: what containerd accepts by default.
const MAX_SEND_BYTES: usize = 16 << 20;
/// Period of HTTP/2 pings on a connection with calls in flight. containerd's
/// gRPC library ends connections that ping more often than every 5 minutes.
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(330);
/// How long a ping may stay unanswered.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest identifier that containerd accepts, in bytes.
const MAX_IDENTIFIER_LEN: usize = 76;
/// What [`is_identifier`] asks for.
pub(super) const IDENTIFIER_RULE: &str = "use 1-76 letters and digits, with single \"-\", \"_\" or \".\" between";

/// Handle on containerd in one containerd namespace; cheap to clone. It
/// connects at the first call and again after every loss.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    name: String,
    timeout: Duration,
}

/// What containerd says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Release, e.g. `1.6.20~ds1`.
    pub version: String,
    /// Source revision, as the packager gave it.
    pub revision: String,
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone())
                .max_decoding_message_size(MAX_RECEIVE_BYTES)
                .max_encoding_message_size(MAX_SEND_BYTES)
        }
    )*};
}

impl Client {
    /// Makes a client for the containerd at a unix socket. Nothing is sent
    /// yet; must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the path is not absolute or the namespace is not
    /// an identifier that containerd accepts.
    pub fn connect(socket: &Path, namespace: &str) -> Result<Self, Error> {
        if !socket.is_absolute() {
            let object = format!("socket \"{}\"", socket.display());
            return Err(Error::Invalid { object, problem: "use an absolute path" });
        }
        let refuse = || Error::Invalid { object: format!("namespace \"{namespace}\""), problem: IDENTIFIER_RULE };
        if !is_identifier(namespace) {
            return Err(refuse());
        }
        let metadata = namespace.parse().map_err(|_| refuse())?;
        let path = socket.to_owned();
        let connector = service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The URI is required and never used: the connector knows the socket.
        let channel = Endpoint::from_static("http://containerd.invalid")
            .connect_timeout(DEFAULT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_PERIOD)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .connect_with_connector_lazy(connector);
        Ok(Self { channel, namespace: metadata, name: namespace.to_owned(), timeout: DEFAULT_TIMEOUT })
    }

    /// The same connection with another deadline for plain calls (10 s unless
    /// told).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The containerd namespace that every call of this client is about.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.name
    }

    /// Deadline of a plain call.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A request in the client's namespace with the default deadline. Not for
    /// streams: the deadline counts until a stream's first answer.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.request_within(message, self.timeout)
    }

    /// A request in the client's namespace with its own deadline.
    pub fn request_within<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = self.request_unbounded(message);
        request.set_timeout(timeout);
        request
    }

    /// A request in the client's namespace without any deadline: for streams
    /// and for waiting on an exit. The caller bounds it.
    pub fn request_unbounded<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// A request with the default deadline; what it makes is held by `lease`.
    pub fn request_leased<T>(&self, message: T, lease: &LeaseId) -> Request<T> {
        lease.hold(self.request(message))
    }

    services! {
        /// Container records.
        containers: ContainersClient;
        /// Blobs.
        content: ContentClient;
        /// Layers to and from snapshots.
        diff: DiffClient;
        /// Events. `subscribe` answers with its first event, not before.
        events: EventsClient;
        /// Image records.
        images: ImagesClient;
        /// Plugins and their state.
        introspection: IntrospectionClient;
        /// Leases against garbage collection.
        leases: LeasesClient;
        /// containerd namespaces.
        namespaces: NamespacesClient;
        /// File system layers.
        snapshots: SnapshotsClient;
        /// Running containers.
        tasks: TasksClient;
        /// The version of containerd.
        version_service: VersionClient;
    }

    /// Makes the client's namespace if it is not there.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn ensure_namespace(&self) -> Result<(), Error> {
        let namespace = Namespace { name: self.name.clone(), ..Namespace::default() };
        let request = self.request(CreateNamespaceRequest { namespace: Some(namespace) });
        let object = format!("namespace {}", self.name);
        self.namespaces().create(request).await.map_err(Error::of("create namespace", object)).or_exists()
    }

    /// Asks containerd for its version: also the cheapest proof that it
    /// answers.
    ///
    /// # Errors
    /// That containerd is unavailable or does not answer in time.
    pub async fn version(&self) -> Result<Version, Error> {
        let answer = self.version_service().version(self.request(())).await;
        let version = answer.map_err(Error::of("get version", "containerd"))?.into_inner();
        Ok(Version { version: version.version, revision: version.revision })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("namespace", &self.name).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Whether containerd takes the text as an identifier: letters and digits,
/// with single separators between.
pub(super) fn is_identifier(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    text.len() <= MAX_IDENTIFIER_LEN && text.split(['-', '_', '.']).all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_cannot_work_is_refused_at_once() {
        let relative = Client::connect(Path::new("run/containerd.sock"), "roost").unwrap_err();
        assert!(relative.to_string().contains("absolute path"), "{relative}");
        for bad in ["", "a b", "-a", "a--b", "a/b", "å", "a\n", &"x".repeat(77)] {
            assert!(Client::connect(Path::new("/run/c.sock"), bad).is_err(), "{bad:?}");
        }
        assert!(Client::connect(Path::new("/run/c.sock"), "roost-node.1").is_ok());
    }

    #[tokio::test]
    async fn a_socket_without_containerd_is_unavailable() {
        let client = Client::connect(Path::new("/nonexistent/containerd.sock"), "roost").unwrap();
        assert!(client.version().await.unwrap_err().is_unavailable());
    }

    #[tokio::test]
    async fn requests_carry_namespace_lease_and_deadline() {
        let client = Client::connect(Path::new("/run/c.sock"), "roost").unwrap();
        let request = client.request_leased((), &LeaseId::new("import-1").unwrap());
        let value = |key| request.metadata().get(key).and_then(|v| v.to_str().ok()).map(str::to_owned);
        assert_eq!(value("containerd-namespace").as_deref(), Some("roost"));
        assert_eq!(value("containerd-lease").as_deref(), Some("import-1"));
        assert!(value("grpc-timeout").is_some());
        assert!(client.request_unbounded(()).metadata().get("grpc-timeout").is_none());
    }
}
