//! A node as central sees it: enrols, holds a session, opens tunnels.

use roost_proto::CENTRAL_TLS_NAME;
use roost_proto::PROTOCOL_VERSION;
use roost_proto::id::SandboxId;
use roost_proto::model::{ImageInfo, NodeCapacity, NodeStatus, Observed, Phase};
use roost_proto::node::central_message::Body as FromCentral;
use roost_proto::node::node_api_server::NodeApiServer;
use roost_proto::node::node_link_client::NodeLinkClient;
use roost_proto::node::node_message::Body as ToCentral;
use roost_proto::node::{
    CentralMessage, DesiredAck, DesiredState, EnrolRequest, EnrolResponse, Heartbeat, Hello, NodeMessage, TunnelData,
};
use roost_proto::types::SandboxObserved;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server};
use tonic::{Status, Streaming};

use crate::harness::{Central, soon};
use crate::node_api::FakeNode;

/// An enrolled node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) id: String,
    link: std::net::SocketAddr,
    identity: EnrolResponse,
    key_pem: String,
    pub(crate) instance_id: String,
}

/// One session of it.
pub(crate) struct Session {
    out: mpsc::Sender<NodeMessage>,
    inbound: Streaming<CentralMessage>,
    sequence: u64,
    /// Wishes that came while an answer to a heartbeat was waited for.
    early: std::collections::VecDeque<FromCentral>,
    link: NodeLinkClient<Channel>,
    pub(crate) api: FakeNode,
}

fn ca_pem(central: &Central) -> String {
    std::fs::read_to_string(central.config.ca_dir().join("ca.crt")).unwrap()
}

async fn dial(
    link: std::net::SocketAddr,
    tls: ClientTlsConfig,
) -> Result<NodeLinkClient<Channel>, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{link}")).unwrap();
    let tls = tls.domain_name(CENTRAL_TLS_NAME);
    Ok(NodeLinkClient::new(endpoint.tls_config(tls).unwrap().connect().await?))
}

/// A client without a certificate.
pub(crate) async fn stranger(central: &Central) -> NodeLinkClient<Channel> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem(central)));
    dial(central.ends.link, tls).await.unwrap()
}

/// Asks for enrolment with a key of its own.
pub(crate) async fn enrol(central: &Central, token: &str, name: &str) -> Result<(EnrolResponse, String), Status> {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let request = EnrolRequest {
        join_token: token.split('.').next().unwrap().into(),
        csr_der: csr.der().to_vec(),
        node_name: name.into(),
    };
    let answer = stranger(central).await.enrol(request).await?;
    Ok((answer.into_inner(), key.serialize_pem()))
}

/// What a healthy node says; only the number of sandboxes limits it, whatever
/// the shipped profiles request.
pub(crate) fn status(sandboxes: u32) -> NodeStatus {
    NodeStatus {
        capacity: NodeCapacity {
            cpu_allocatable_millis: 64_000 * sandboxes,
            memory_allocatable_bytes: u64::from(sandboxes) << 36,
            sandboxes_max: sandboxes,
        },
        images: vec![ImageInfo::new("roost/desktop".parse().unwrap(), "sha256:0".into(), 5, 6)],
        ..NodeStatus::default()
    }
}

impl Node {
    pub(crate) async fn join(central: &Central, name: &str) -> Self {
        let token = central.join_token().await;
        let (identity, key_pem) = enrol(central, &token, name).await.unwrap();
        let id = identity.node_id.clone();
        Self { id, link: central.ends.link, identity, key_pem, instance_id: "first".into() }
    }

    /// The same node after central moved.
    pub(crate) fn at(&self, central: &Central) -> Self {
        Self { link: central.ends.link, ..self.clone() }
    }

    /// A client with the node's certificate.
    pub(crate) async fn client(&self) -> NodeLinkClient<Channel> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.identity.ca_pem))
            .identity(Identity::from_pem(&self.identity.certificate_pem, &self.key_pem));
        dial(self.link, tls).await.unwrap()
    }

    pub(crate) fn hello(&self, desired_generation: u64) -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            features: vec!["tunnel".into()],
            instance_id: self.instance_id.clone(),
            desired_generation,
            ..Hello::default()
        }
    }

    /// Opens a session and says hello; the answer is still to be read.
    pub(crate) async fn open(&self, hello: Hello) -> Session {
        let mut link = self.client().await;
        let (out, out_rx) = mpsc::channel(64);
        out.send(NodeMessage { body: Some(ToCentral::Hello(hello)) }).await.unwrap();
        let inbound = soon("a session", link.session(ReceiverStream::new(out_rx))).await.unwrap().into_inner();
        Session { out, inbound, sequence: 0, early: Default::default(), link, api: FakeNode::default() }
    }

    /// Opens a session that is welcome.
    pub(crate) async fn connect(&self, desired_generation: u64) -> Session {
        let mut session = self.open(self.hello(desired_generation)).await;
        let welcome = session.next().await.unwrap();
        assert!(matches!(welcome, FromCentral::Welcome(_)), "{welcome:?}");
        session
    }

    /// Opens a session and reports a healthy node.
    pub(crate) async fn ready(central: &Central, name: &str, sandboxes: u32) -> (Self, Session) {
        let node = Self::join(central, name).await;
        let mut session = node.connect(0).await;
        session.heartbeat(true, Some(status(sandboxes)), &[]).await;
        (node, session)
    }
}

/// An observation of a sandbox in a phase.
pub(crate) fn seen(id: &str, phase: Phase, revision: u64) -> SandboxObserved {
    let id: SandboxId = id.parse().unwrap();
    SandboxObserved::new(&id, Observed { phase, revision, observed_generation: 1, ..Observed::pending() })
}

impl Session {
    /// The next message of central, or why there is none.
    pub(crate) async fn next(&mut self) -> Result<FromCentral, Status> {
        if let Some(early) = self.early.pop_front() {
            return Ok(early);
        }
        let message = soon("a message of central", self.inbound.message()).await?;
        Ok(message.ok_or_else(|| Status::cancelled("end"))?.body.unwrap())
    }

    pub(crate) async fn send(&self, body: ToCentral) {
        self.out.send(NodeMessage { body: Some(body) }).await.unwrap();
    }

    /// Sends a heartbeat and waits for its answer: whether a resync is asked for.
    pub(crate) async fn heartbeat(
        &mut self,
        full: bool,
        node: Option<NodeStatus>,
        sandboxes: &[SandboxObserved],
    ) -> bool {
        self.sequence += 1;
        self.heartbeat_as(self.sequence, full, node, sandboxes).await
    }

    pub(crate) async fn heartbeat_as(
        &mut self,
        sequence: u64,
        full: bool,
        node: Option<NodeStatus>,
        sandboxes: &[SandboxObserved],
    ) -> bool {
        let node = node.map(Into::into);
        let heartbeat = Heartbeat { sequence, full, node, sandboxes: sandboxes.to_vec(), ..Heartbeat::default() };
        self.send(ToCentral::Heartbeat(heartbeat)).await;
        let mut early = std::collections::VecDeque::new();
        let ack = loop {
            match self.next().await.unwrap() {
                FromCentral::HeartbeatAck(ack) => break ack,
                desired @ FromCentral::DesiredState(_) => early.push_back(desired),
                // Central looks at the pools of a node as soon as it is there.
                FromCentral::OpenTunnel(open) => self.open_tunnel(open.tunnel_id),
                other => panic!("expected an ack, got {other:?}"),
            }
        };
        self.early.append(&mut early);
        assert_eq!(ack.sequence, sequence);
        ack.resync
    }

    /// The next desired state; acknowledged as durable.
    pub(crate) async fn desired(&mut self) -> DesiredState {
        let message = self.next().await.unwrap();
        let FromCentral::DesiredState(desired) = message else { panic!("expected desired state, got {message:?}") };
        self.send(ToCentral::DesiredAck(DesiredAck { generation: desired.generation, resync: false })).await;
        desired
    }

    /// Opens a tunnel and serves the node's API there.
    pub(crate) fn open_tunnel(&self, tunnel_id: String) {
        tokio::spawn(tunnel(self.link.clone(), tunnel_id, self.api.clone()));
    }

    /// Opens every tunnel that central asks for and serves the node's API there.
    pub(crate) async fn serve_tunnels(self) {
        self.serve_tunnels_but(0).await;
    }

    /// Opens tunnels, acknowledges what is desired and says of each sandbox that
    /// it is Ready, or gone when it is to be.
    pub(crate) async fn serve_all(mut self) {
        while let Ok(Some(message)) = self.inbound.message().await {
            match message.body {
                Some(FromCentral::OpenTunnel(open)) => self.open_tunnel(open.tunnel_id),
                Some(FromCentral::DesiredState(desired)) => {
                    let ack = DesiredAck { generation: desired.generation, resync: false };
                    self.send(ToCentral::DesiredAck(ack)).await;
                    let sandboxes =
                        desired.sandboxes.iter().map(|wanted| self.api.desks.lock().unwrap().follow(wanted));
                    let sandboxes = sandboxes.collect();
                    self.sequence += 1;
                    let heartbeat = Heartbeat { sequence: self.sequence, sandboxes, ..Heartbeat::default() };
                    self.send(ToCentral::Heartbeat(heartbeat)).await;
                }
                _ => {}
            }
        }
    }

    /// The same, but the first `broken` tunnels break as soon as they are open.
    pub(crate) async fn serve_tunnels_but(mut self, broken: u32) {
        let mut opened = 0;
        while let Ok(message) = self.inbound.message().await {
            let Some(CentralMessage { body: Some(FromCentral::OpenTunnel(open)) }) = message else { continue };
            opened += 1;
            if opened <= broken {
                let first = TunnelData { tunnel_id: open.tunnel_id, data: Vec::new() };
                drop(self.link.tunnel(tokio_stream::once(first)).await.unwrap());
                continue;
            }
            self.open_tunnel(open.tunnel_id);
        }
    }
}

/// One tunnel: bytes of central to a gRPC server and back.
async fn tunnel(mut link: NodeLinkClient<Channel>, tunnel_id: String, api: FakeNode) {
    let (inner, outer) = tokio::io::duplex(64 << 10);
    let (mut read, mut write) = tokio::io::split(outer);
    let (out, out_rx) = mpsc::channel(16);
    out.send(TunnelData { tunnel_id, data: Vec::new() }).await.unwrap();
    let mut inbound = link.tunnel(ReceiverStream::new(out_rx)).await.unwrap().into_inner();
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let data = TunnelData { tunnel_id: String::new(), data: buffer[..length].to_vec() };
            if out.send(data).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok(Some(message)) = inbound.message().await {
            if write.write_all(&message.data).await.is_err() {
                break;
            }
        }
    });
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(inner));
    let served = Server::builder().add_service(NodeApiServer::new(api)).serve_with_incoming(incoming).await;
    drop(served);
}
