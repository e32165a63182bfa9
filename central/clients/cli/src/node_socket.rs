//! The daemon on this machine, over its unix socket.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use roost_proto::convert::InvalidMessage;
use roost_proto::node::node_api_client::NodeApiClient;
use roost_proto::node::node_debug_client::NodeDebugClient;
use roost_proto::node::node_support_client::NodeSupportClient;
use roost_proto::node::node_volumes_client::NodeVolumesClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::error::Exit;

/// Where the daemon listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/roost/roostd.sock";
/// A local daemon answers in milliseconds; this is for a stuck one.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for calls that delete or move gigabytes.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(600);
/// Largest answer, in bytes: the state of a thousand sandboxes is a few MiB.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeSocketError {
    /// Nothing listens, or not for us.
    #[error("cannot reach the daemon at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection could not be used.
    #[error("the daemon at {} does not speak gRPC", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The daemon said no.
    #[error("the daemon refused: {}", .0.message())]
    Refused(Box<tonic::Status>),
    /// An answer that this version does not understand.
    #[error("the daemon's answer is not understood")]
    Message(#[from] InvalidMessage),
    /// No sandbox by this name or id.
    #[error("there is no sandbox \"{0}\" on this node")]
    NotFound(String),
}

impl From<tonic::Status> for NodeSocketError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl NodeSocketError {
    /// How the program ends with this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Connect { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Exit::Unauthorized,
            Self::Connect { .. } => Exit::Unavailable,
            Self::Refused(status) => match status.code() {
                tonic::Code::NotFound => Exit::NotFound,
                tonic::Code::AlreadyExists | tonic::Code::FailedPrecondition | tonic::Code::Aborted => Exit::Conflict,
                tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Exit::Unauthorized,
                tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => Exit::Timeout,
                tonic::Code::Unavailable | tonic::Code::ResourceExhausted => Exit::Unavailable,
                tonic::Code::InvalidArgument => Exit::Usage,
                _ => Exit::Error,
            },
            Self::NotFound(_) => Exit::NotFound,
            Self::Protocol { .. } | Self::Message(_) => Exit::Error,
        }
    }

    /// What to do.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { source, .. } => Some(match source.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "run this as root, or as a member of the daemon's socket group".into()
                }
                _ => "this command runs on the node itself; is roostd running? Another socket: --node-socket PATH or ROOST_NODE_SOCKET"
                    .into(),
            }),
            Self::NotFound(_) => Some("see what is there: roost debug sandboxes".into()),
            Self::Message(_) => Some("daemon and command may be of different versions".into()),
            Self::Refused(status) if status.code() == tonic::Code::Unimplemented => {
                Some("the daemon is of an older version: compare with roost version".into())
            }
            Self::Protocol { .. } | Self::Refused(_) => None,
        }
    }
}

/// A connection to the daemon.
#[derive(Debug, Clone)]
pub(crate) struct NodeSocket(Channel);

impl NodeSocket {
    /// Connects.
    ///
    /// # Errors
    /// Nothing listens there, or not for this user.
    pub(crate) async fn connect(path: PathBuf) -> Result<Self, NodeSocketError> {
        Self::connect_within(path, TIMEOUT).await
    }

    /// Connects for calls that delete or move gigabytes.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn connect_patiently(path: PathBuf) -> Result<Self, NodeSocketError> {
        Self::connect_within(path, PATIENT_TIMEOUT).await
    }

    async fn connect_within(path: PathBuf, timeout: Duration) -> Result<Self, NodeSocketError> {
        // The first connection is made here, as the library would hide why
        // there is none; it is used by the first and, as a rule, only call.
        let first = UnixStream::connect(&path).await;
        let first = first.map_err(|source| NodeSocketError::Connect { path: path.clone(), source })?;
        let mut first = Some(first);
        let connector_path = path.clone();
        let connector = tower::service_fn(move |_| {
            let (first, path) = (first.take(), connector_path.clone());
            async move {
                let stream = match first {
                    Some(stream) => stream,
                    None => UnixStream::connect(path).await?,
                };
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        // The address is only the `:authority` header.
        let endpoint = Endpoint::from_static("http://roostd").timeout(timeout);
        let channel = endpoint.connect_with_connector(connector).await;
        channel.map(Self).map_err(|source| NodeSocketError::Protocol { path, source })
    }

    /// The lifecycle service.
    pub(crate) fn api(&self) -> NodeApiClient<Channel> {
        NodeApiClient::new(self.0.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// The service for reports.
    pub(crate) fn support(&self) -> NodeSupportClient<Channel> {
        NodeSupportClient::new(self.0.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// The service for volumes.
    pub(crate) fn volumes(&self) -> NodeVolumesClient<Channel> {
        NodeVolumesClient::new(self.0.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// The debugging service.
    pub(crate) fn debug(&self) -> NodeDebugClient<Channel> {
        NodeDebugClient::new(self.0.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}
