//! Getting a certificate: once by a join token, then by the one before.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use roost_proto::convert::{InvalidMessage, parse};
use roost_proto::node::node_link_client::NodeLinkClient;
use roost_proto::node::{EnrolRequest, EnrolResponse, RenewRequest};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::dial::ClockProblem;
use super::identity::{Identity, NewIdentity};
use super::join::JoinString;
use super::pin::is_mismatch;
use super::trust::TrustError;
use super::{dial, pace, trust, unix_ms};

/// Time for central to answer; it signs a certificate and writes one row.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Why no certificate was got.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnrolError {
    #[error("cannot make a key and its certificate request")]
    Key(#[from] rcgen::Error),
    #[error("cannot reach central to ask for a certificate")]
    Dial(#[source] tonic::transport::Error),
    #[error(transparent)]
    Clock(#[from] ClockProblem),
    #[error(
        "central does not present the CA certificate that the join string names: \
         it is another central, or somebody stands between"
    )]
    Pin,
    #[error("central refuses to certify the node: {}", .0.message())]
    Refused(Status),
    #[error("central cannot certify the node now")]
    Failed(#[source] Status),
    #[error("central did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    #[error("central's answer cannot be used")]
    Answer(#[source] InvalidMessage),
    #[error("the certificate from central does not fit the key")]
    Certificate(#[source] tonic::transport::Error),
    #[error("central's CA certificates cannot be taken")]
    Trust(#[from] TrustError),
}

impl EnrolError {
    /// Whether central has said no, so that asking again cannot help.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// When central wants to be asked again, if it said so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(status) => dial::retry_after(status),
            _ => None,
        }
    }

    fn from_status(status: Status) -> Self {
        use tonic::Code;
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unauthenticated => Self::Refused(status),
            _ => Self::Failed(status),
        }
    }
}

/// A fresh key and the request to certify it.
struct KeyRequest {
    key_pem: String,
    csr_der: Vec<u8>,
}

impl KeyRequest {
    fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let csr = CertificateParams::new(Vec::new())?.serialize_request(&key)?;
        Ok(Self { key_pem: key.serialize_pem(), csr_der: csr.der().to_vec() })
    }
}

/// Trades the join token for the node's first certificate.
pub(super) async fn enrol(endpoint: &Endpoint, join: &JoinString, node_name: &str) -> Result<Identity, EnrolError> {
    let request = KeyRequest::new()?;
    let message =
        EnrolRequest { join_token: join.token().into(), csr_der: request.csr_der, node_name: node_name.into() };
    let pinned = dial::pinned(endpoint, join.ca_sha256()).map_err(EnrolError::Dial)?;
    let mut client = client(&pinned).await?;
    let answer = answer(client.enrol(message)).await?;
    identity(endpoint, request.key_pem, answer)
}

/// Trades the present certificate for one of a fresh key.
pub(super) async fn renew(endpoint: &Endpoint, present: &Identity) -> Result<Identity, EnrolError> {
    let request = KeyRequest::new()?;
    let mutual = dial::mutual(endpoint, present).map_err(EnrolError::Dial)?;
    let mut client = client(&mutual).await?;
    let mut answer = answer(client.renew(RenewRequest { csr_der: request.csr_der })).await?;
    answer.ca_pem = trust::replace(&present.ca_pem, &answer.ca_pem)?.unwrap_or_else(|| present.ca_pem.clone());
    identity(endpoint, request.key_pem, answer)
}

async fn client(endpoint: &Endpoint) -> Result<NodeLinkClient<Channel>, EnrolError> {
    let channel = endpoint.connect().await;
    channel.map(NodeLinkClient::new).map_err(|error| match ClockProblem::of(&error) {
        Some(problem) => EnrolError::Clock(problem),
        None if is_mismatch(&error) => EnrolError::Pin,
        None => EnrolError::Dial(error),
    })
}

async fn answer(
    call: impl Future<Output = Result<tonic::Response<EnrolResponse>, Status>>,
) -> Result<EnrolResponse, EnrolError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, call).await.map_err(|_| EnrolError::Timeout)?;
    answer.map(tonic::Response::into_inner).map_err(EnrolError::from_status)
}

/// Reads the answer strictly: what is kept must work at the next start.
fn identity(endpoint: &Endpoint, key_pem: String, answer: EnrolResponse) -> Result<Identity, EnrolError> {
    let now = unix_ms();
    let fault = |field: &str, problem: &str| Err(EnrolError::Answer(InvalidMessage::field(field, problem)));
    if answer.ca_pem.is_empty() {
        return fault("ca_pem", "is missing");
    }
    if answer.certificate_pem.is_empty() {
        return fault("certificate_pem", "is missing");
    }
    if pace::is_expired(answer.not_after_unix_ms, now) {
        return fault("not_after_unix_ms", "lies in the past: compare the clocks of node and central");
    }
    let identity = Identity::from(NewIdentity {
        node_id: parse("node_id", &answer.node_id).map_err(EnrolError::Answer)?,
        key_pem,
        certificate_pem: answer.certificate_pem,
        ca_pem: answer.ca_pem,
        obtained_at_unix_ms: now,
        not_after_unix_ms: answer.not_after_unix_ms,
    });
    dial::mutual(endpoint, &identity).map_err(EnrolError::Certificate)?;
    Ok(identity)
}
