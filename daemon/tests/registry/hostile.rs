//! Registries that lie, and layers that try to get out.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use roostd::config::ImagesConfig;
use roostd::containerd::image::{Digest, ImageError, LayerError};
use roostd::registry::RegistryError;
use tar::EntryType;

use crate::archives::{GZIP, Image, Layer, PLAIN, entry as tar_entry, nested, tar_of};
use crate::image;
use crate::private_containerd::PrivateContainerd;
use crate::pulls::{config, credentials, pull, puller, registry_error, told};
use crate::server::Registry;

/// A request as it came.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    authorization: Option<String>,
}

type Answering = Arc<dyn Fn(&str, &HeaderMap, &str) -> Response + Send + Sync>;

/// A server that answers as a test likes: no real registry misbehaves so. The
/// function gets path, headers and the server's own host.
#[derive(Clone)]
struct Liar {
    answering: Answering,
    seen: Arc<Mutex<Vec<Seen>>>,
    host: String,
}

impl Liar {
    async fn start(answering: impl Fn(&str, &HeaderMap, &str) -> Response + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("localhost:{}", listener.local_addr().unwrap().port());
        let liar = Self { answering: Arc::new(answering), seen: Arc::default(), host };
        let router = Router::new().fallback(lie).with_state(liar.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        liar
    }

    fn seen(&self, part: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path.contains(part)).cloned().collect()
    }
}

async fn lie(State(liar): State<Liar>, request: Request) -> Response {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    liar.seen.lock().unwrap().push(Seen { path: path.clone(), authorization });
    (liar.answering)(&path, request.headers(), &liar.host)
}

/// An honest answer for this image.
fn honest(image: &Image, path: &str) -> Response {
    let blobs = image.layers.iter().map(|layer| layer.bytes.clone()).chain([image.config(), image.manifest()]);
    let blob = blobs.into_iter().find(|bytes| path.contains(&Digest::of(bytes).to_string()));
    match blob {
        _ if path.contains("/manifests/sha256-") => (axum::http::StatusCode::NOT_FOUND, "none").into_response(),
        None if path.contains("/manifests/") => image.manifest().into_response(),
        Some(blob) => blob.into_response(),
        None => (axum::http::StatusCode::NOT_FOUND, "none").into_response(),
    }
}

fn to(url: String) -> Response {
    (axum::http::StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, url)]).into_response()
}

fn answer_problem(error: &ImageError) -> &str {
    match registry_error(error) {
        RegistryError::Answer { problem, .. } => problem,
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_redirect_leads_neither_to_this_machine_nor_takes_credentials_along() {
    let containerd = PrivateContainerd::start().await;
    for target in ["http://127.0.0.1:1/latest/meta-data", "http://169.254.169.254/latest/meta-data", "http://[::1]/"] {
        let liar = Liar::start(move |_, _, _| to(target.to_owned())).await;
        let puller = puller(&containerd, config(&[&liar.host]));
        let error = pull(&puller, &format!("{}/app:1", liar.host)).await.unwrap_err();
        assert!(answer_problem(&error).contains("only this machine reaches"), "{target}: {error}");
        assert_eq!(liar.seen("").len(), 1, "it is not asked again");
    }
    // Nor does a reference lead there, unless the configuration names the host.
    let own = Liar::start(|path, _, _| honest(&image(), path)).await.host;
    for host in [own.clone(), own.replace("localhost", "127.0.0.1"), "169.254.169.254".into()] {
        let unnamed = puller(&containerd, ImagesConfig::default());
        let error = pull(&unnamed, &format!("{host}/app:1")).await.unwrap_err();
        assert!(matches!(registry_error(&error), RegistryError::Unreachable { attempts: 1, .. }), "{host}: {error}");
        assert!(error.to_string().contains("an entry in images.registries"), "{error}");
    }
    // A store of blobs on another port is another host.
    let store = Liar::start(|path, _, _| honest(&image(), path)).await;
    let blobs = store.host.clone();
    let front = Liar::start(move |path, headers, _| {
        if !headers.contains_key(header::AUTHORIZATION) {
            let wanted = [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")];
            return (axum::http::StatusCode::UNAUTHORIZED, wanted, "who?").into_response();
        }
        if path.contains("blobs") { to(format!("http://{blobs}{path}")) } else { honest(&image(), path) }
    });
    let front = front.await;
    let file = credentials(&[(&front.host, "node", "secret")]);
    let mut with = config(&[&front.host]);
    with.credentials_file = Some(file.path().to_owned());
    pull(&puller(&containerd, with), &format!("{}/app:1", front.host)).await.unwrap();
    assert!(front.seen("").iter().any(|seen| seen.authorization.is_some()));
    assert!(store.seen("blobs").len() >= 3 && store.seen("").iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn a_host_that_a_registry_redirects_to_cannot_ask_for_its_credentials() {
    let containerd = PrivateContainerd::start().await;
    let thief = Liar::start(|path, _, own| {
        let realm = format!("Bearer realm=\"http://{own}/token\",service=\"x\"");
        let wanted = [(header::WWW_AUTHENTICATE, realm)];
        if path.contains("/token") {
            return axum::Json(serde_json::json!({ "token": "mine" })).into_response();
        }
        (axum::http::StatusCode::UNAUTHORIZED, wanted, "who?").into_response()
    });
    let thief = thief.await;
    let host = thief.host.clone();
    let front = Liar::start(move |path, _, _| to(format!("http://{host}{path}"))).await;
    let file = credentials(&[(&front.host, "node", "secret")]);
    let mut with = config(&[&front.host]);
    with.credentials_file = Some(file.path().to_owned());
    let error = pull(&puller(&containerd, with), &format!("{}/app:1", front.host)).await.unwrap_err();
    assert!(answer_problem(&error).contains("asks for a login of its own"), "{error}");
    assert_eq!(thief.seen("/token").len(), 0);
    assert!(thief.seen("").iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn an_answer_without_end_and_an_index_without_bottom_are_given_up() {
    let containerd = PrivateContainerd::start().await;
    let endless = Liar::start(|_, _, _| {
        let piece = Bytes::from(vec![b' '; 64 << 10]);
        Body::from_stream(stream::repeat(piece).map(Ok::<_, Infallible>)).into_response()
    });
    let endless = endless.await;
    let error = pull(&puller(&containerd, config(&[&endless.host])), &format!("{}/app:1", endless.host)).await;
    assert!(answer_problem(&error.unwrap_err()).contains("a document of more than"));

    // Each index names the next; the platform is this machine's.
    let mut entry = image().entry();
    let mut indexes = Vec::new();
    for _ in 0..50 {
        let ((_, bytes), mut next) = nested(&[entry.clone()]);
        next["platform"] = entry["platform"].clone();
        indexes.push(bytes);
        entry = next;
    }
    let deep = Liar::start(move |path, _, _| {
        let index = indexes.iter().find(|bytes| path.contains(&Digest::of(bytes).to_string()));
        index.or_else(|| indexes.last()).cloned().unwrap_or_default().into_response()
    });
    let deep = deep.await;
    let error = pull(&puller(&containerd, config(&[&deep.host])), &format!("{}/app:1", deep.host)).await.unwrap_err();
    answer_problem(&error);
    assert!(deep.seen("manifests").len() <= 4, "{:?}", deep.seen(""));
}

#[tokio::test]
async fn a_registry_that_breaks_off_after_every_byte_does_not_keep_a_pull_for_ever() {
    let containerd = PrivateContainerd::start().await;
    let large = Digest::of(&image().layers[0].bytes).to_string();
    let path_of_large = large.clone();
    let liar = Liar::start(move |path, headers, _| {
        if !path.contains(&path_of_large) {
            return honest(&image(), path);
        }
        let bytes = &image().layers[0].bytes;
        let range = headers.get(header::RANGE).map_or("bytes=0-", |value| value.to_str().unwrap());
        let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
        let one = Bytes::copy_from_slice(&bytes[from..=from]);
        let length = (bytes.len() - from).to_string();
        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
        let headers = [(header::CONTENT_LENGTH, length), (header::CONTENT_RANGE, range)];
        let broken = stream::iter([Ok(one), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))]);
        let status = if from == 0 { 200 } else { 206 };
        (axum::http::StatusCode::from_u16(status).unwrap(), headers, Body::from_stream(broken)).into_response()
    });
    let liar = liar.await;
    let error = pull(&puller(&containerd, config(&[&liar.host])), &format!("{}/app:1", liar.host)).await.unwrap_err();
    assert!(matches!(registry_error(&error), RegistryError::Unreachable { .. }), "{error}");
    assert!(liar.seen(&large).len() <= 4, "{}", liar.seen(&large).len());
}

#[tokio::test]
async fn another_part_of_a_blob_than_was_asked_for_is_refused_by_name() {
    let containerd = PrivateContainerd::start().await;
    let large = Digest::of(&image().layers[0].bytes).to_string();
    let liar = Liar::start(move |path, headers, _| {
        if !path.contains(&large) {
            return honest(&image(), path);
        }
        let bytes = image().layers[0].bytes.clone();
        if headers.contains_key(header::RANGE) {
            let range = [(header::CONTENT_RANGE, format!("bytes 0-{}/{}", bytes.len() - 1, bytes.len()))];
            return (axum::http::StatusCode::PARTIAL_CONTENT, range, bytes).into_response();
        }
        let first = Bytes::copy_from_slice(&bytes[..1 << 20]);
        let body = Body::from_stream(stream::iter([Ok(first), Err(std::io::Error::other("cut"))]));
        ([(header::CONTENT_LENGTH, bytes.len().to_string())], body).into_response()
    });
    let liar = liar.await;
    let error = pull(&puller(&containerd, config(&[&liar.host])), &format!("{}/app:1", liar.host)).await.unwrap_err();
    assert!(answer_problem(&error).contains("another part"), "{error}");
    containerd.expect_left(0, 0).await;
}

#[tokio::test]
async fn an_error_that_quotes_the_credentials_is_told_without_them() {
    let containerd = PrivateContainerd::start().await;
    let liar = Liar::start(|_, headers, _| {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            let wanted = [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")];
            return (axum::http::StatusCode::UNAUTHORIZED, wanted, "who?").into_response();
        };
        let quoted = format!("bad request: {} for hunter2", value.to_str().unwrap());
        (axum::http::StatusCode::BAD_REQUEST, quoted).into_response()
    });
    let liar = liar.await;
    let file = credentials(&[(&liar.host, "node", "hunter2")]);
    let mut with = config(&[&liar.host]);
    with.credentials_file = Some(file.path().to_owned());
    let puller = puller(&containerd, with);
    let text = told(&pull(&puller, &format!("{}/app:1", liar.host)).await.unwrap_err());
    assert!(text.contains("bad request: Basic [redacted] for [redacted]"), "{text}");
    // Known for support bundles, in every form, also when the file has gone.
    drop(file);
    let secrets = puller.secrets().await;
    assert!(secrets.contains(&"hunter2".to_owned()) && secrets.contains(&"bm9kZTpodW50ZXIy".to_owned()), "{secrets:?}");
}

/// A symbolic link that climbs far above the root, to a directory of the host.
fn climbing(link: &str, target: &std::path::Path) -> Vec<u8> {
    let target = format!("{}{}", "../".repeat(12), target.strip_prefix("/").unwrap().display());
    tar_entry(EntryType::Symlink, link, &target, b"", &[])
}

#[tokio::test]
async fn a_link_that_climbs_above_the_root_is_taken_and_leads_nowhere_but_into_the_image() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(outside.path().join("victim"), b"of the host").unwrap();
    let puller = puller(&containerd, config(&[&registry.host]));
    let file = |path: &str| tar_entry(EntryType::Regular, path, "", b"pwned", &[]);
    let link = climbing("esc", outside.path());

    // As real images have it: nothing is written through.
    let benign = Image::new(vec![Layer::of_tar(tar_of(&[link.clone(), file("hello")]))]);
    registry.push(&benign, "benign", "1").await;
    pull(&puller, &registry.reference("benign:1")).await.unwrap();
    assert_eq!(containerd.unpacked("hello"), [b"pwned"]);

    // One layer that writes through its own link.
    for (n, write) in [
        file("esc/new"),
        file("./esc//new"),
        tar_entry(EntryType::Link, "copy", "esc/victim", b"", &[]),
        tar_entry(EntryType::Regular, "esc/.wh.victim", "", b"", &[]),
        tar_entry(EntryType::Directory, "esc/sub/", "", b"", &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let hostile = Image::new(vec![Layer::of_tar(tar_of(&[link.clone(), write]))]);
        registry.push(&hostile, "hostile", &n.to_string()).await;
        let error = pull(&puller, &registry.reference(&format!("hostile:{n}"))).await.unwrap_err();
        assert!(matches!(&*error, ImageError::Layer(LayerError::Hostile { .. })), "{n}: {error}");
    }

    // A higher layer that writes through the link of a lower one: containerd
    // makes a directory of the image in its place.
    let write = [file("esc/new"), tar_entry(EntryType::Regular, "esc/.wh.victim", "", b"", &[])];
    let split = Image::new(vec![Layer::of_tar(tar_of(&[link])), Layer::of_tar(tar_of(&write))]);
    registry.push(&split, "split", "1").await;
    pull(&puller, &registry.reference("split:1")).await.unwrap();
    assert_eq!(containerd.unpacked("esc/new"), [b"pwned"]);
    let left: Vec<_> = std::fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["victim"]);
    assert_eq!(std::fs::read(outside.path().join("victim")).unwrap(), b"of the host");
}

#[tokio::test]
async fn attributes_of_overlayfs_are_refused_and_those_of_programs_kept() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let puller = puller(&containerd, config(&[&registry.host]));
    let with = |key: &str, value: &[u8]| {
        let entry = tar_entry(EntryType::Regular, "hello", "", b"x", &[(key, value)]);
        Image::new(vec![Layer::of_tar(tar_of(&[entry]))])
    };
    for (n, key) in ["trusted.overlay.redirect", "trusted.overlay.opaque", "user.overlay.metacopy"].iter().enumerate() {
        registry.push(&with(&format!("SCHILY.xattr.{key}"), b"/etc"), "hostile", &n.to_string()).await;
        let error = pull(&puller, &registry.reference(&format!("hostile:{n}"))).await.unwrap_err();
        assert!(matches!(&*error, ImageError::Layer(LayerError::Hostile { .. })), "{key}: {error}");
    }
    // cap_net_raw+ep, as ping has it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    registry.push(&with("SCHILY.xattr.security.capability", &capability), "ping", "1").await;
    pull(&puller, &registry.reference("ping:1")).await.unwrap();
    assert_eq!(containerd.unpacked("hello"), [b"x"]);
}

#[tokio::test]
async fn a_layer_of_very_many_entries_is_refused_before_it_touches_the_disk() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let entry = tar_entry(EntryType::Regular, "many", "", b"", &[]);
    let many = tar_of(&vec![entry; 300_000]);
    let layer = Layer { media_type: GZIP, diff_id: Digest::of(&many), bytes: crate::archives::gzip(&many) };
    let image = Image::new(vec![Layer::new(PLAIN, &[("hello", b"x")]), layer]);
    registry.push(&image, "many", "1").await;
    let mut strict = config(&[&registry.host]);
    strict.max_files = 200_000;
    let error = pull(&puller(&containerd, strict), &registry.reference("many:1")).await.unwrap_err();
    assert!(matches!(&*error, ImageError::Layer(LayerError::TooLarge { unit: "files", .. })), "{error}");
    assert!(containerd.unpacked("many").is_empty());
    containerd.expect_left(0, 0).await;
}
