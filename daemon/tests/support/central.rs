//! A central with real TLS and a real CA, whose every step a test decides.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa, KeyPair,
};
use roost_proto::id::{NodeId, TunnelId};
use roost_proto::node::central_message::Body as FromCentral;
use roost_proto::node::node_link_server::{NodeLink, NodeLinkServer};
use roost_proto::node::node_message::Body as ToCentral;
use roost_proto::node::{
    CentralMessage, DesiredAck, EnrolRequest, EnrolResponse, Heartbeat, HeartbeatAck, Hello, NodeMessage, OpenTunnel,
    RenewRequest, TunnelData, Welcome,
};
use roost_proto::{CENTRAL_TLS_NAME, PROTOCOL_VERSION};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Channel, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(10);

type Ca = CertifiedIssuer<'static, KeyPair>;

/// What a test sees and sets of its central; outlives restarts.
pub(crate) struct Office {
    ca: Ca,
    tokens: Mutex<HashSet<String>>,
    removed: Mutex<HashSet<String>>,
    enrolments: Mutex<Vec<EnrolRequest>>,
    renewals: Mutex<u32>,
    /// How long certificates last, by the answer that names their end.
    life: Mutex<Duration>,
    sessions: mpsc::Sender<Session>,
    tunnels: Mutex<Option<(String, oneshot::Sender<DuplexStream>)>>,
}

/// A running central; dropped, every connection breaks.
pub(crate) struct TestCentral {
    pub(crate) office: Arc<Office>,
    pub(crate) address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    runtime: Option<Runtime>,
}

impl TestCentral {
    pub(crate) async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test central");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (sessions_tx, sessions) = mpsc::channel(16);
        let office = Arc::new(Office {
            ca,
            tokens: Mutex::default(),
            removed: Mutex::default(),
            enrolments: Mutex::default(),
            renewals: Mutex::default(),
            life: Mutex::new(Duration::from_secs(3600)),
            sessions: sessions_tx,
            tunnels: Mutex::default(),
        });
        let mut central = Self { office, address: ([127, 0, 0, 1], 0).into(), sessions, runtime: None };
        central.resume().await;
        central
    }

    /// Listens, at the same address as before if there was one.
    pub(crate) async fn resume(&mut self) {
        let runtime = Runtime::new().unwrap();
        let (office, address) = (self.office.clone(), self.address);
        let (address_tx, address_rx) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            address_tx.send(listener.local_addr().unwrap()).unwrap();
            let tls = ServerTlsConfig::new()
                .identity(office.server_identity())
                .client_ca_root(Certificate::from_pem(office.ca.as_ref().pem()))
                .client_auth_optional(true);
            let server = Server::builder().tls_config(tls).unwrap().add_service(NodeLinkServer::new(Desk(office)));
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        self.address = address_rx.await.unwrap();
        self.runtime = Some(runtime);
    }

    /// Breaks every connection, as a crash does; returns when all is closed.
    pub(crate) async fn kill(&mut self) {
        let runtime = self.runtime.take().unwrap();
        // A runtime ends by waiting, which asynchronous code must not.
        tokio::task::spawn_blocking(|| runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }

    /// A join string with a token that was not used yet.
    pub(crate) fn join_string(&self) -> String {
        let token = format!("rjt_{:032x}", rand::random::<u128>());
        self.office.tokens.lock().unwrap().insert(token.clone());
        let fingerprint = Sha256::digest(self.office.ca.as_ref().der());
        let hex: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{token}.{hex}")
    }

    /// The next stream of a node, not welcomed yet.
    pub(crate) async fn session(&mut self) -> Session {
        timeout(PATIENCE, self.sessions.recv()).await.expect("no node came").unwrap()
    }

    /// The next stream of a node, welcomed.
    pub(crate) async fn welcomed(&mut self) -> Session {
        let mut session = self.session().await;
        session.welcome(60_000).await;
        session
    }
}

impl Drop for TestCentral {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Office {
    /// A leaf for the name that nodes expect, with the CA behind it.
    fn server_identity(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![CENTRAL_TLS_NAME.into()]).unwrap().signed_by(&key, &self.ca).unwrap();
        Identity::from_pem(leaf.pem() + &self.ca.as_ref().pem(), key.serialize_pem())
    }

    pub(crate) fn set_life(&self, life: Duration) {
        *self.life.lock().unwrap() = life;
    }

    /// Forgets a node: it must join again.
    pub(crate) fn remove(&self, node: &str) {
        self.removed.lock().unwrap().insert(node.into());
    }

    pub(crate) fn enrolments(&self) -> Vec<EnrolRequest> {
        self.enrolments.lock().unwrap().clone()
    }

    pub(crate) fn renewals(&self) -> u32 {
        *self.renewals.lock().unwrap()
    }

    fn certify(&self, csr_der: Vec<u8>, node: &str) -> EnrolResponse {
        let csr = CertificateSigningRequestParams::from_der(&csr_der.into()).unwrap();
        let mut params = csr.params;
        params.distinguished_name.push(DnType::CommonName, node);
        let certificate = params.signed_by(&csr.public_key, &self.ca).unwrap();
        let end = SystemTime::now() + *self.life.lock().unwrap();
        EnrolResponse {
            node_id: node.into(),
            certificate_pem: certificate.pem(),
            ca_pem: self.ca.as_ref().pem(),
            not_after_unix_ms: u64::try_from(end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap(),
        }
    }
}

/// The common name that this central wrote into a node's certificate.
fn node_of<T>(request: &Request<T>) -> Result<String, Status> {
    let certificates = request.peer_certs().ok_or_else(|| Status::unauthenticated("no client certificate"))?;
    let text = String::from_utf8_lossy(&certificates[0]).into_owned();
    let begin = text.find("node-").ok_or_else(|| Status::unauthenticated("no node's certificate"))?;
    Ok(text[begin..begin + 21].to_owned())
}

/// The service itself.
struct Desk(Arc<Office>);

#[tonic::async_trait]
impl NodeLink for Desk {
    type SessionStream = ReceiverStream<Result<CentralMessage, Status>>;
    type TunnelStream = ReceiverStream<Result<TunnelData, Status>>;

    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        self.0.enrolments.lock().unwrap().push(request.clone());
        if !self.0.tokens.lock().unwrap().remove(&request.join_token) {
            return Err(Status::unauthenticated("the join token is unknown, used or expired"));
        }
        Ok(Response::new(self.0.certify(request.csr_der, NodeId::random().as_str())))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolResponse>, Status> {
        let node = node_of(&request)?;
        *self.0.renewals.lock().unwrap() += 1;
        Ok(Response::new(self.0.certify(request.into_inner().csr_der, &node)))
    }

    async fn session(&self, request: Request<Streaming<NodeMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        let node = node_of(&request)?;
        if self.0.removed.lock().unwrap().contains(&node) {
            return Err(Status::unauthenticated("the node was removed: join again"));
        }
        let (outbound, outbound_rx) = mpsc::channel(64);
        let session = Session { office: self.0.clone(), node, inbound: request.into_inner(), outbound };
        self.0.sessions.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outbound_rx)))
    }

    async fn tunnel(&self, request: Request<Streaming<TunnelData>>) -> Result<Response<Self::TunnelStream>, Status> {
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.ok_or_else(|| Status::invalid_argument("no tunnel_id"))?;
        let (id, wanted) = self.0.tunnels.lock().unwrap().take().ok_or_else(|| Status::not_found("no tunnel"))?;
        assert_eq!(first.tunnel_id, id);
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (mut read, mut write) = tokio::io::split(ours);
        let (outbound, outbound_rx) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(piece)) = inbound.message().await {
                if write.write_all(&piece.data).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(bytes @ 1..) = read.read(&mut buffer).await {
                let piece = TunnelData { tunnel_id: String::new(), data: buffer[..bytes].to_vec() };
                if outbound.send(Ok(piece)).await.is_err() {
                    break;
                }
            }
        });
        wanted.send(theirs).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outbound_rx)))
    }
}

/// Central's side of one stream.
pub(crate) struct Session {
    office: Arc<Office>,
    /// Id in the node's certificate.
    pub(crate) node: String,
    inbound: Streaming<NodeMessage>,
    outbound: mpsc::Sender<Result<CentralMessage, Status>>,
}

impl Session {
    pub(crate) async fn send(&self, body: FromCentral) {
        self.outbound.send(Ok(CentralMessage { body: Some(body) })).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> ToCentral {
        let message = timeout(PATIENCE, self.inbound.message()).await.expect("the node says nothing");
        message.unwrap().expect("the node closed the stream").body.unwrap()
    }

    /// Takes the Hello and welcomes the node.
    pub(crate) async fn welcome(&mut self, heartbeat_period_ms: u32) -> Hello {
        let hello = self.hello().await;
        self.send(FromCentral::Welcome(Welcome {
            protocol_version: PROTOCOL_VERSION,
            features: Vec::new(),
            heartbeat_period_ms,
            central_unix_ms: 1,
            ca_pem: String::new(),
        }))
        .await;
        hello
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        let ToCentral::Hello(hello) = self.receive().await else { panic!("the first message is no Hello") };
        hello
    }

    pub(crate) async fn heartbeat(&mut self) -> Heartbeat {
        let ToCentral::Heartbeat(heartbeat) = self.receive().await else { panic!("no heartbeat") };
        heartbeat
    }

    /// The next heartbeat, acknowledged.
    pub(crate) async fn acked_heartbeat(&mut self, resync: bool) -> Heartbeat {
        let heartbeat = self.heartbeat().await;
        self.send(FromCentral::HeartbeatAck(HeartbeatAck {
            sequence: heartbeat.sequence,
            resync,
            ..HeartbeatAck::default()
        }))
        .await;
        heartbeat
    }

    /// The next acknowledgement of desired state; heartbeats in between are
    /// acknowledged and dropped.
    pub(crate) async fn desired_ack(&mut self) -> DesiredAck {
        loop {
            match self.receive().await {
                ToCentral::DesiredAck(ack) => return ack,
                ToCentral::Heartbeat(Heartbeat { sequence, .. }) => {
                    self.send(FromCentral::HeartbeatAck(HeartbeatAck { sequence, ..HeartbeatAck::default() })).await;
                }
                ToCentral::CertificateAdopted(_) => {}
                ToCentral::Hello(_) => panic!("a second Hello"),
            }
        }
    }

    /// Asks for a tunnel and speaks HTTP/2 through it.
    pub(crate) async fn tunnel(&self) -> Channel {
        let id = TunnelId::random().to_string();
        let (wanted, io) = oneshot::channel();
        *self.office.tunnels.lock().unwrap() = Some((id.clone(), wanted));
        self.send(FromCentral::OpenTunnel(OpenTunnel { tunnel_id: id })).await;
        let io = timeout(PATIENCE, io).await.expect("no tunnel came").unwrap();
        let mut io = Some(TokioIo::new(io));
        let connector = tower::service_fn(move |_| {
            let io = io.take().ok_or_else(|| std::io::Error::other("the tunnel is used already"));
            async move { io }
        });
        Endpoint::from_static("http://node").connect_with_connector(connector).await.unwrap()
    }
}
