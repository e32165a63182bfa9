use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

struct Server {
    address: SocketAddr,
    readiness: Readiness,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

async fn start() -> Server {
    let (tasks, readiness, shutdown) = (Tasks::default(), Readiness::default(), CancellationToken::new());
    let metrics = Metrics::new(tasks.clone());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = Admin::bind(any, metrics, readiness.clone(), tasks).await.unwrap();
    let address = admin.address();
    Server { address, readiness, shutdown: shutdown.clone(), served: tokio::spawn(admin.serve(shutdown)) }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The whole answer to one request.
    async fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn a_scrape_gets_open_metrics() {
    let answer = start().await.ask("GET", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(answer.contains("\nroost_tasks{kind=\"admin-connection\"} 1\n"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn ready_names_what_is_missing_and_turns_with_it() {
    let server = start().await;
    let condition = server.readiness.condition("containerd", "connecting");
    let answer = server.ask("GET", "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains(r#""missing":[{"name":"containerd","reason":"connecting"}]"#), "{answer}");
    assert!(server.ask("GET", "/live").await.starts_with("HTTP/1.1 200"));
    condition.hold();
    let answer = server.ask("GET", "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""ready":true"#), "{answer}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let server = start().await;
    assert!(server.ask("GET", "/debug").await.starts_with("HTTP/1.1 404"));
    let answer = server.ask("POST", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{answer}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let server = start().await;
    let tasks = Tasks::default();
    let metrics = Metrics::new(tasks.clone());
    let error = Admin::bind(server.address, metrics, Readiness::default(), tasks).await.unwrap_err();
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_the_listener() {
    let server = start().await;
    let mut kept = server.connect().await;
    kept.write_all(b"GET /live HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    kept.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    server.shutdown.cancel();
    server.served.await.unwrap();
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn idle_strangers_take_all_places_only_until_their_time_is_over() {
    let server = start().await;
    let mut strangers = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        strangers.push(server.connect().await);
    }
    tokio::time::pause();
    // The clock runs ahead while everything waits, so this ends at once.
    assert!(server.ask("GET", "/live").await.starts_with("HTTP/1.1 200"));
}
