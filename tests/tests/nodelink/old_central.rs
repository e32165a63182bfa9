//! The present node at a central of protocol version 1.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa, KeyPair,
};
use roost_proto::CENTRAL_TLS_NAME;
use roost_proto::id::{NodeId, SandboxId, TunnelId};
use roost_proto::model::Phase;
use roostd::sandbox::Origin;
use sha2::{Digest, Sha256};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::fakes;
use crate::golden::VERSION;
use crate::golden::node::central_message::Body as FromCentral;
use crate::golden::node::node_api_client::NodeApiClient;
use crate::golden::node::node_link_server::{NodeLink, NodeLinkServer};
use crate::golden::node::node_message::Body as ToCentral;
use crate::golden::node::*;
use crate::golden::types;
use crate::machine::Machine;
use crate::pipe::bytes;
use crate::soon;

type Ca = CertifiedIssuer<'static, KeyPair>;

/// What the service shares with the test.
struct Office {
    ca: Ca,
    sessions: mpsc::Sender<OldSession>,
    tunnel: Mutex<Option<oneshot::Sender<DuplexStream>>>,
}

/// A central as the first release had it.
struct OldCentral {
    office: Arc<Office>,
    address: SocketAddr,
    sessions: mpsc::Receiver<OldSession>,
}

/// Its end of a node's stream.
struct OldSession {
    inbound: Streaming<NodeMessage>,
    outbound: mpsc::Sender<Result<CentralMessage, Status>>,
}

impl OldCentral {
    async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "old central");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (sessions_tx, sessions) = mpsc::channel(4);
        let office = Arc::new(Office { ca, sessions: sessions_tx, tunnel: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![CENTRAL_TLS_NAME.into()]).unwrap();
        let leaf = leaf.signed_by(&key, &office.ca).unwrap();
        let ca_pem = office.ca.as_ref().pem();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(leaf.pem() + &ca_pem, key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(ca_pem))
            .client_auth_optional(true);
        let mut server = Server::builder().tls_config(tls).unwrap();
        let server = server.add_service(NodeLinkServer::new(Desk(office.clone())));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { office, address, sessions }
    }

    fn join_string(&self) -> String {
        let digest = Sha256::digest(self.office.ca.as_ref().der());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("rjt_old.{hex}")
    }

    /// The next stream, with a Hello that this central takes, welcomed.
    async fn welcomed(&mut self) -> (OldSession, Hello) {
        let mut session = soon("a node", self.sessions.recv()).await.unwrap();
        let ToCentral::Hello(hello) = session.receive().await else { panic!("no hello") };
        assert_eq!(hello.protocol_version, VERSION, "an old central refuses any other");
        let welcome = Welcome {
            protocol_version: VERSION,
            features: vec!["tunnel".into()],
            heartbeat_period_ms: 60_000,
            central_unix_ms: u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap() + 90_000,
        };
        session.send(FromCentral::Welcome(welcome)).await;
        (session, hello)
    }
}

impl OldSession {
    async fn receive(&mut self) -> ToCentral {
        let message = soon("a message of the node", self.inbound.message()).await.unwrap().expect("the node ended");
        message.body.expect("the node sends an old central what it does not know")
    }

    async fn send(&self, body: FromCentral) {
        self.outbound.send(Ok(CentralMessage { body: Some(body) })).await.unwrap();
    }

    /// The next heartbeat, acknowledged as an old central does it.
    async fn heartbeat(&mut self) -> Heartbeat {
        let ToCentral::Heartbeat(heartbeat) = self.receive().await else { panic!("no heartbeat") };
        self.send(FromCentral::HeartbeatAck(HeartbeatAck { sequence: heartbeat.sequence, resync: false })).await;
        heartbeat
    }
}

/// The service.
struct Desk(Arc<Office>);

#[tonic::async_trait]
impl NodeLink for Desk {
    type SessionStream = ReceiverStream<Result<CentralMessage, Status>>;
    type TunnelStream = ReceiverStream<Result<TunnelData, Status>>;

    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        assert_eq!((request.join_token.as_str(), request.node_name.as_str()), ("rjt_old", "n1"));
        let csr = CertificateSigningRequestParams::from_der(&request.csr_der.into()).unwrap();
        let certificate = csr.params.signed_by(&csr.public_key, &self.0.ca).unwrap();
        let end = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() + 3_600_000;
        Ok(Response::new(EnrolResponse {
            node_id: NodeId::random().to_string(),
            certificate_pem: certificate.pem(),
            ca_pem: self.0.ca.as_ref().pem(),
            not_after_unix_ms: u64::try_from(end).unwrap(),
        }))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<EnrolResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn session(&self, request: Request<Streaming<NodeMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        assert!(request.peer_certs().is_some(), "a session without a certificate");
        let (outbound, outbound_rx) = mpsc::channel(16);
        let session = OldSession { inbound: request.into_inner(), outbound };
        self.0.sessions.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outbound_rx)))
    }

    async fn tunnel(&self, request: Request<Streaming<TunnelData>>) -> Result<Response<Self::TunnelStream>, Status> {
        let mut inbound = request.into_inner();
        assert!(!inbound.message().await?.unwrap().tunnel_id.is_empty());
        let (outbound, outbound_rx) = mpsc::channel(4);
        let message = |data| Ok(TunnelData { tunnel_id: String::new(), data });
        let io = bytes(inbound, outbound, |message: TunnelData| message.data, message);
        let wanted = self.0.tunnel.lock().unwrap().take().unwrap();
        wanted.send(io).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outbound_rx)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_an_old_central_a_node_enrols_reports_and_takes_its_wishes() {
    let mut central = OldCentral::start().await;
    let machine = Machine::join(&format!("https://{}", central.address), &central.join_string());
    let local = SandboxId::random();
    machine.node.put(fakes::desired(&local, Origin::Local));
    let (mut session, _) = central.welcomed().await;
    let full = session.heartbeat().await;
    assert!(full.full && full.node.is_some());
    assert_eq!(full.sandboxes[0].sandbox_id, local.as_str());
    let state = machine.state("the link stands", |state| state.is_connected()).await;
    assert_eq!(state.protocol_version, Some(VERSION));
    assert!((80_000..=100_000).contains(&state.clock_offset_ms.unwrap()), "the welcome tells the time: {state:?}");

    machine.node.observe(&local, |observed| observed.phase = Phase::Ready);
    let delta = session.heartbeat().await;
    assert_eq!((delta.full, delta.sandboxes[0].phase()), (false, types::Phase::Ready));

    let wanted = SandboxId::random();
    let sandbox = DesiredSandbox {
        sandbox_id: wanted.to_string(),
        generation: 1,
        run_state: types::RunState::Running.into(),
        restart_count: 0,
        spec: Some(spec()),
        tenant: "default".into(),
        name: String::new(),
    };
    let desired = DesiredState { generation: 7, full: true, base_generation: 0, sandboxes: vec![sandbox] };
    session.send(FromCentral::DesiredState(desired)).await;
    let ack = loop {
        match session.receive().await {
            ToCentral::DesiredAck(ack) => break ack,
            ToCentral::Heartbeat(_) => {}
            ToCentral::Hello(_) => panic!("a second hello"),
        }
    };
    assert_eq!(ack, DesiredAck { generation: 7, resync: false });
    assert_eq!(machine.node.applied(), [7]);
}

/// A spec as that release wrote it: of today's only what it knew.
fn spec() -> types::SandboxSpec {
    let today = roost_proto::types::SandboxSpec::from(fakes::spec());
    types::SandboxSpec::decode(today.encode_to_vec().as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_central_reaches_the_nodes_api_through_a_tunnel() {
    let mut central = OldCentral::start().await;
    let machine = Machine::join(&format!("https://{}", central.address), &central.join_string());
    let id = SandboxId::random();
    machine.node.put(fakes::desired(&id, Origin::Local));
    let (mut session, _) = central.welcomed().await;
    session.heartbeat().await;
    let (wanted, io) = oneshot::channel();
    *central.office.tunnel.lock().unwrap() = Some(wanted);
    session.send(FromCentral::OpenTunnel(OpenTunnel { tunnel_id: TunnelId::random().to_string() })).await;
    let mut io = Some(TokioIo::new(soon("a tunnel", io).await.unwrap()));
    let connector = tower::service_fn(move |_| {
        let io = io.take().ok_or_else(|| std::io::Error::other("the tunnel is used already"));
        async move { io }
    });
    let channel = Endpoint::from_static("http://node").connect_with_connector(connector).await.unwrap();
    let mut api = NodeApiClient::new(channel);
    let list = soon("a list", api.list_sandboxes(ListSandboxesRequest {})).await.unwrap().into_inner();
    assert_eq!(list.sandboxes[0].desired.as_ref().unwrap().sandbox_id, id.as_str());
    let node = soon("the node", api.get_node(GetNodeRequest {})).await.unwrap().into_inner();
    assert_eq!(node.facts.unwrap().hostname, "n1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_from_the_future_is_refused_with_versions_and_the_next_step() {
    let mut central = OldCentral::start().await;
    let machine = Machine::join(&format!("https://{}", central.address), &central.join_string());
    let mut session = soon("a node", central.sessions.recv()).await.unwrap();
    session.receive().await;
    session.send(FromCentral::Welcome(Welcome { protocol_version: 9, ..Welcome::default() })).await;
    let is_version =
        |error: &String| error.contains("version 9") && error.contains("1 to 2") && error.contains("upgrade");
    machine.state("the refusal", |state| state.last_error.as_ref().is_some_and(is_version)).await;
}
