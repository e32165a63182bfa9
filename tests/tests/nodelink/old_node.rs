//! A node of protocol version 1 at the present central.

use rcgen::{CertificateParams, KeyPair};
use roost_proto::CENTRAL_TLS_NAME;
use roost_proto::model::NodePhase;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::central::RealCentral;
use crate::golden::node::central_message::Body as FromCentral;
use crate::golden::node::node_api_server::{NodeApi, NodeApiServer};
use crate::golden::node::node_link_client::NodeLinkClient;
use crate::golden::node::node_message::Body as ToCentral;
use crate::golden::node::*;
use crate::golden::{VERSION, types};
use crate::pipe::{Once, bytes};
use crate::soon;

/// A node as the first release had it, with a certificate.
struct OldNode {
    id: String,
    client: NodeLinkClient<Channel>,
}

/// Its stream.
struct OldSession {
    outbound: mpsc::Sender<NodeMessage>,
    inbound: Streaming<CentralMessage>,
}

async fn dial(central: &RealCentral, tls: ClientTlsConfig) -> NodeLinkClient<Channel> {
    let tls = tls
        .domain_name(CENTRAL_TLS_NAME)
        .ca_certificate(Certificate::from_pem(central.central.ca.present().serving().ca_pem()));
    let endpoint = Endpoint::from_shared(central.address()).unwrap().tls_config(tls).unwrap();
    NodeLinkClient::new(soon("a connection", endpoint.connect()).await.unwrap())
}

fn request() -> (String, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    (key.serialize_pem(), csr.der().to_vec())
}

impl OldNode {
    async fn join(central: &RealCentral) -> Self {
        let (key_pem, csr_der) = request();
        let token = central.join_string().await.split('.').next().unwrap().to_owned();
        let enrol = EnrolRequest { join_token: token, csr_der, node_name: "old".into() };
        let mut stranger = dial(central, ClientTlsConfig::new()).await;
        let answer = stranger.enrol(enrol).await.unwrap().into_inner();
        let identity = Identity::from_pem(&answer.certificate_pem, &key_pem);
        Self { id: answer.node_id, client: dial(central, ClientTlsConfig::new().identity(identity)).await }
    }

    async fn connect(&mut self) -> OldSession {
        let (outbound, outbound_rx) = mpsc::channel(16);
        let hello =
            Hello { protocol_version: VERSION, instance_id: "one".into(), features: vec![], desired_generation: 0 };
        outbound.send(NodeMessage { body: Some(ToCentral::Hello(hello)) }).await.unwrap();
        let inbound = self.client.session(ReceiverStream::new(outbound_rx)).await.unwrap().into_inner();
        let mut session = OldSession { outbound, inbound };
        let FromCentral::Welcome(welcome) = session.next().await else { panic!("no welcome") };
        assert_eq!(welcome.protocol_version, VERSION, "an old node refuses any other");
        assert!((50..=60_000).contains(&welcome.heartbeat_period_ms));
        session
    }
}

impl OldSession {
    async fn next(&mut self) -> FromCentral {
        let message = soon("a message of central", self.inbound.message()).await.unwrap().expect("central ended");
        message.body.expect("central sends an old node what it does not know")
    }

    async fn send(&self, body: ToCentral) {
        self.outbound.send(NodeMessage { body: Some(body) }).await.unwrap();
    }

    async fn heartbeat(&mut self, sequence: u64, full: bool, sandboxes: Vec<types::SandboxObserved>) -> bool {
        let node = full.then(status);
        self.send(ToCentral::Heartbeat(Heartbeat { sequence, full, node, sandboxes, node_unix_ms: 1 })).await;
        let FromCentral::HeartbeatAck(ack) = self.next().await else { panic!("no acknowledgement") };
        assert_eq!(ack.sequence, sequence);
        ack.resync
    }
}

/// What a node of that release said of itself.
fn status() -> types::NodeStatus {
    types::NodeStatus {
        facts: Some(types::NodeFacts { hostname: "old".into(), daemon_version: "0.1.0".into(), ..Default::default() }),
        cpu_allocatable_millis: 64_000,
        memory_allocatable_bytes: 1 << 40,
        sandboxes_max: 10,
        images: vec![types::Image {
            reference: "roost/desktop".into(),
            digest: "sha256:0".into(),
            ..Default::default()
        }],
        conditions: vec![],
        usage: Some(types::NodeUsage::default()),
    }
}

fn seen(id: &str, phase: types::Phase, revision: u64) -> types::SandboxObserved {
    types::SandboxObserved {
        sandbox_id: id.into(),
        observed_generation: 1,
        revision,
        phase: phase.into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_node_enrols_renews_reports_and_is_told_what_to_run() {
    let central = RealCentral::start("").await;
    let mut node = OldNode::join(&central).await;
    let renewed = node.client.renew(RenewRequest { csr_der: request().1 }).await.unwrap().into_inner();
    assert_eq!(renewed.node_id, node.id);

    let mut session = node.connect().await;
    assert!(session.heartbeat(1, false, vec![]).await, "the first one must be full");
    assert!(!session.heartbeat(2, true, vec![]).await);
    let shown = central.scope().await.node(&node.id.parse().unwrap()).await.unwrap();
    assert_eq!((shown.phase, shown.protocol_version), (NodePhase::Online, Some(VERSION)));
    assert_eq!(shown.status.facts.daemon_version, "0.1.0");

    let sandbox = central.create_sandbox().await;
    let FromCentral::DesiredState(desired) = session.next().await else { panic!("nothing is desired") };
    assert_eq!((desired.generation, desired.sandboxes[0].sandbox_id.as_str()), (1, sandbox.as_str()));
    let spec = desired.sandboxes[0].spec.clone().unwrap();
    assert_eq!((spec.image.as_str(), spec.display.unwrap().width_px > 0), ("roost/desktop:latest", true));
    session.send(ToCentral::DesiredAck(DesiredAck { generation: 1, resync: false })).await;

    assert!(!session.heartbeat(3, false, vec![seen(&sandbox, types::Phase::Ready, 2)]).await);
    assert_eq!(central.phase(&sandbox).await, "Ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_node_serves_its_api_through_a_tunnel() {
    let central = RealCentral::start("").await;
    let mut node = OldNode::join(&central).await;
    let mut session = node.connect().await;
    assert!(!session.heartbeat(1, true, vec![]).await);
    let (sessions, id) = (central.central.sessions.clone(), node.id.parse().unwrap());
    let call = tokio::spawn(async move {
        let mut api = sessions.client(&id).unwrap();
        api.list_sandboxes(roost_proto::node::ListSandboxesRequest {}).await
    });
    let FromCentral::OpenTunnel(open) = session.next().await else { panic!("no tunnel is asked for") };
    let (outbound, outbound_rx) = mpsc::channel(4);
    outbound.send(TunnelData { tunnel_id: open.tunnel_id, data: vec![] }).await.unwrap();
    let inbound = node.client.tunnel(ReceiverStream::new(outbound_rx)).await.unwrap().into_inner();
    let io = bytes(inbound, outbound, |message| message.data, |data| TunnelData { tunnel_id: String::new(), data });
    tokio::spawn(serve(io));
    let list = soon("an answer through the tunnel", call).await.unwrap().unwrap().into_inner();
    assert_eq!(list.sandboxes[0].desired.as_ref().unwrap().tenant, "old-tenant");
}

async fn serve(io: DuplexStream) {
    Server::builder().add_service(NodeApiServer::new(OldApi)).serve_with_incoming(Once(Some(io))).await.unwrap();
}

/// The API of that release; one method is enough to see that it is reached.
struct OldApi;

type Answer<T> = Result<Response<T>, Status>;
type Out<T> = ReceiverStream<Result<T, Status>>;

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl NodeApi for OldApi {
    type WatchSandboxesStream = Out<Sandbox>;
    type ExecStream = Out<ExecOutput>;
    type LogsStream = Out<LogChunk>;
    type ImportImageStream = Out<ImportImageProgress>;

    async fn list_sandboxes(&self, _: Request<ListSandboxesRequest>) -> Answer<ListSandboxesResponse> {
        let desired = DesiredSandbox { tenant: "old-tenant".into(), ..Default::default() };
        let sandbox = Sandbox { desired: Some(desired), ..Default::default() };
        Ok(Response::new(ListSandboxesResponse { sandboxes: vec![sandbox] }))
    }
    async fn create_sandbox(&self, _: Request<CreateSandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn get_sandbox(&self, _: Request<GetSandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn watch_sandboxes(&self, _: Request<WatchSandboxesRequest>) -> Answer<Self::WatchSandboxesStream> {
        no()
    }
    async fn start_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn stop_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn restart_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn delete_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn exec(&self, _: Request<Streaming<ExecInput>>) -> Answer<Self::ExecStream> {
        no()
    }
    async fn logs(&self, _: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        no()
    }
    async fn screenshot(&self, _: Request<ScreenshotRequest>) -> Answer<ScreenshotResponse> {
        no()
    }
    async fn import_image(&self, _: Request<Streaming<ImportImageInput>>) -> Answer<Self::ImportImageStream> {
        no()
    }
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        no()
    }
    async fn remove_image(&self, _: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        no()
    }
    async fn get_node(&self, _: Request<GetNodeRequest>) -> Answer<types::NodeStatus> {
        no()
    }
}
