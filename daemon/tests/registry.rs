//! Pulls from a real registry, with everything that goes wrong on the way.
//! Needs root and the commands `containerd`, `docker-registry`, `tinyproxy` and
//! `openssl`.

// A test fails by a panic, in its helpers as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "image/archives.rs"]
mod archives;
#[path = "registry/hostile.rs"]
mod hostile;
#[path = "image/private_containerd.rs"]
mod private_containerd;
#[path = "registry/proxied.rs"]
mod proxied;
#[path = "registry/proxy.rs"]
mod proxy;
#[path = "registry/pulls.rs"]
mod pulls;
#[path = "registry/server.rs"]
mod server;
#[path = "registry/signatures.rs"]
mod signatures;
#[path = "registry/tokens.rs"]
mod tokens;

use containerd_client::services::v1::snapshots::PrepareSnapshotRequest;

use archives::{GZIP, Image, Layer, PLAIN, nested};
use private_containerd::{PrivateContainerd, wait_for};
use proxy::{Fault, Proxy};
use pulls::{config, entry, pull, puller, registry_error};
use roost_proto::model::{ImageRef, LayerState, PullPolicy};
use roostd::config::{ImagesConfig, RegistryConfig};
use roostd::containerd::GcLease;
use roostd::containerd::image::{DEFAULT_SNAPSHOTTER, Digest, ImageError, LayerError};
use roostd::registry::RegistryError;
use server::{Demands, Registry, USER};

/// Bytes that do not pack well.
fn noise(seed: u32, length: u32) -> Vec<u8> {
    (0..length / 4).flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ seed ^ (n >> 3)).to_le_bytes()).collect()
}

/// A large layer and a small one.
fn image() -> Image {
    let large = noise(7, 3 << 20);
    Image::new(vec![Layer::new(PLAIN, &[("large", &large)]), Layer::new(GZIP, &[("hello", b"one")])])
}

fn blob(image: &Image, layer: usize) -> String {
    Digest::of(&image.layers[layer].bytes).to_string()
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest_and_fetched_once() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let proxy = Proxy::start(&registry).await;
    let digest = registry.push(&image(), "team/app", "1").await;
    let puller = puller(&containerd, config(&[&proxy.host]));
    let by_tag = format!("{}/team/app:1", proxy.host);
    let info = pull(&puller, &by_tag).await.unwrap();
    assert_eq!((info.digest.as_str(), info.reference.as_str()), (digest.to_string().as_str(), by_tag.as_str()));
    assert!(info.unpacked_bytes >= 3 << 20 && info.platform.starts_with("linux/"), "{info:?}");
    assert_eq!(containerd.unpacked("hello"), [b"one"]);

    proxy.reset();
    let pinned = pull(&puller, &format!("{}/team/app@{digest}", proxy.host)).await.unwrap();
    assert_eq!(pinned.digest, digest.to_string());
    pull(&puller, &by_tag).await.unwrap();
    assert_eq!(proxy.seen(&blob(&image(), 0)).len(), 0, "its layers are on the node");
    containerd.expect_left(4, 2).await;

    let newer = Image::new(vec![Layer::new(GZIP, &[("hello", b"two")])]);
    let digest = registry.push(&newer, "team/app", "1").await;
    assert_eq!(pull(&puller, &by_tag).await.unwrap().digest, digest.to_string());
}

#[tokio::test]
async fn policies_say_whether_a_start_waits_for_a_pull() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    registry.push(&image(), "app", "1").await;
    let puller = puller(&containerd, config(&[&registry.host]));
    let reference: ImageRef = registry.reference("app:1").parse().unwrap();
    let needed = async |policy| puller.is_needed(&reference, policy).await.unwrap();
    assert!(needed(PullPolicy::IfNotPresent).await && needed(PullPolicy::Always).await);
    assert!(!needed(PullPolicy::Never).await);
    pull(&puller, reference.as_str()).await.unwrap();
    assert!(!needed(PullPolicy::IfNotPresent).await && needed(PullPolicy::Always).await);
    let local = "roost/desktop".parse().unwrap();
    assert!(!puller.is_needed(&local, PullPolicy::Always).await.unwrap(), "no registry is named");
    let error = pull(&puller, "roost/desktop").await.unwrap_err();
    assert!(matches!(registry_error(&error), RegistryError::NoRegistry { .. }), "{error}");
}

#[tokio::test]
async fn of_an_index_the_image_for_this_machine_is_pulled() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let mut foreign = Image::new(vec![Layer::new(PLAIN, &[("hello", b"foreign")])]);
    foreign.architecture = "s390x".into();
    registry.push(&foreign, "app", "foreign").await;
    registry.push(&image(), "app", "ours").await;
    let ((_, index), _) = nested(&[foreign.entry(), image().entry()]);
    registry.push_manifest("app", "multi", &index).await;
    let puller = puller(&containerd, config(&[&registry.host]));
    let info = pull(&puller, &registry.reference("app:multi")).await.unwrap();
    assert_eq!(info.digest, Digest::of(&image().manifest()).to_string());
    let error = pull(&puller, &registry.reference("app:foreign")).await.unwrap_err();
    assert!(registry_error(&error).to_string().contains("linux/s390x"), "{error}");
    let by_index = pull(&puller, &registry.reference(&format!("app@{}", Digest::of(&index)))).await.unwrap();
    assert_eq!(by_index.digest, info.digest);
}

#[tokio::test]
async fn a_connection_that_breaks_is_gone_on_with_from_where_it_broke() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let proxy = Proxy::start(&registry).await;
    registry.push(&image(), "app", "1").await;
    let large = blob(&image(), 0);
    proxy.fail(&large, Fault::Cut(2 << 20), 1);
    pull(&puller(&containerd, config(&[&proxy.host])), &format!("{}/app:1", proxy.host)).await.unwrap();
    let seen = proxy.seen(&large);
    assert_eq!((seen.len(), seen[0].offset), (2, 0), "{seen:?}");
    assert!(seen[1].offset > 0 && seen[1].offset <= 2 << 20, "{seen:?}");
    assert_eq!(containerd.unpacked("large"), [noise(7, 3 << 20)]);
}

#[tokio::test]
async fn a_pull_that_failed_goes_on_in_the_next_daemon_with_what_it_had() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let proxy = Proxy::start(&registry).await;
    registry.push(&image(), "app", "1").await;
    let (large, small) = (blob(&image(), 0), blob(&image(), 1));
    let reference = format!("{}/app:1", proxy.host);
    let once = ImagesConfig { attempts: 1, layers_at_once: 1, ..config(&[&proxy.host]) };
    // The small layer comes second: it is turned around by its size.
    proxy.fail(&large, Fault::Cut(1 << 20), 1);
    let error = pull(&puller(&containerd, once.clone()), &reference).await.unwrap_err();
    assert!(matches!(registry_error(&error), RegistryError::Unreachable { .. }), "{error}");
    assert!(error.is_transient());

    containerd.images().forget_broken_imports().await.unwrap();
    containerd.collect_garbage().await;
    proxy.reset();
    pull(&puller(&containerd, once), &reference).await.unwrap();
    let seen = proxy.seen(&large);
    assert_eq!(seen.len(), 1);
    assert!(seen[0].offset > 0, "bytes that came are not asked for again: {seen:?}");
    assert_eq!(proxy.seen(&small).len(), 1);
    assert_eq!(containerd.unpacked("large"), [noise(7, 3 << 20)]);
    containerd.expect_left(4, 2).await;
}

#[tokio::test]
async fn two_pulls_at_once_fetch_each_layer_once_and_one_may_leave() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let proxy = Proxy::start(&registry).await;
    registry.push(&image(), "app", "1").await;
    registry.push(&image(), "app", "2").await;
    let puller = puller(&containerd, config(&[&proxy.host]));
    let reference: ImageRef = format!("{}/app:1", proxy.host).parse().unwrap();
    let leaving = puller.pull(&reference);
    let (mut first, mut second) = (puller.pull(&reference), puller.pull(&reference));
    drop(leaving);
    let other = format!("{}/app:2", proxy.host);
    let (first, second, third) = tokio::join!(first.done(), second.done(), pull(&puller, &other));
    assert_eq!(first.unwrap(), second.unwrap());
    third.unwrap();
    assert_eq!(proxy.seen(&blob(&image(), 0)).len(), 1, "{:?}", proxy.seen("blobs"));
    assert_eq!(proxy.seen(&blob(&image(), 1)).len(), 1);
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_ends_and_the_next_one_goes_on() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let proxy = Proxy::start(&registry).await;
    registry.push(&image(), "app", "1").await;
    let large = blob(&image(), 0);
    proxy.fail(&large, Fault::Hang(1 << 20), 1);
    let puller = puller(&containerd, config(&[&proxy.host]));
    let reference: ImageRef = format!("{}/app:1", proxy.host).parse().unwrap();
    let ticket = puller.pull(&reference);
    let position = ticket.position();
    wait_for("bytes of the large layer", async || {
        position.borrow().layers.iter().any(|layer| layer.digest == large && layer.done_bytes >= 512 << 10)
    })
    .await;
    drop(ticket);
    wait_for("the pull to end", async || position.has_changed().is_err()).await;
    pull(&puller, reference.as_str()).await.unwrap();
    assert!(proxy.seen(&large).last().unwrap().offset > 0);
}

#[tokio::test]
async fn a_layer_is_unpacked_while_those_above_it_still_come() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let proxy = Proxy::start(&registry).await;
    let above = Layer::new(PLAIN, &[("large", &noise(7, 3 << 20))]);
    let image = Image::new(vec![Layer::new(GZIP, &[("hello", b"one")]), above]);
    registry.push(&image, "app", "1").await;
    let large = blob(&image, 1);
    proxy.fail(&large, Fault::Hang(1 << 20), 1);
    let puller = puller(&containerd, config(&[&proxy.host]));
    let reference: ImageRef = format!("{}/app:1", proxy.host).parse().unwrap();
    let ticket = puller.pull(&reference);
    let position = ticket.position();
    let states = || position.borrow().layers.iter().map(|layer| layer.state).collect::<Vec<_>>();
    wait_for("the lower layer", async || states() == [LayerState::Done, LayerState::Downloading]).await;
    assert_eq!(containerd.unpacked("hello"), [b"one"]);
    drop(ticket);
    wait_for("the pull to end", async || position.has_changed().is_err()).await;
    pull(&puller, reference.as_str()).await.unwrap();
    containerd.expect_left(4, 2).await;
}

#[tokio::test]
async fn a_pull_that_ended_within_an_unpacking_makes_that_layer_anew() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let digest = registry.push(&image(), "app", "1").await;
    // What is there when the daemon ends while containerd unpacks.
    let (name, hour) = (format!("image-pull-{}", digest.hex()), std::time::Duration::from_secs(3600));
    let lease = GcLease::take_up(&containerd.client, &name, "image-pull", hour).await.unwrap();
    let key = format!("{name}-{}", image().layers[0].diff_id);
    let message =
        PrepareSnapshotRequest { snapshotter: DEFAULT_SNAPSHOTTER.into(), key, ..PrepareSnapshotRequest::default() };
    let request = containerd.client.request_leased(message, lease.id());
    containerd.client.snapshots().prepare(request).await.unwrap();
    pull(&puller(&containerd, config(&[&registry.host])), &registry.reference("app:1")).await.unwrap();
    assert_eq!(containerd.unpacked("hello"), [b"one"]);
    containerd.expect_left(4, 2).await;
}

#[tokio::test]
async fn errors_that_pass_are_waited_for_and_others_are_not() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let proxy = Proxy::start(&registry).await;
    registry.push(&image(), "app", "1").await;
    let puller = puller(&containerd, config(&[&proxy.host]));
    let reference = format!("{}/app:1", proxy.host);

    let missing = pull(&puller, &format!("{}/app:none", proxy.host)).await.unwrap_err();
    assert!(matches!(registry_error(&missing), RegistryError::NotFound { .. }), "{missing}");
    assert_eq!(proxy.seen("manifests/none").len(), 1);

    proxy.fail("manifests", Fault::Status(429, Some(3600)), 1);
    let long = pull(&puller, &reference).await.unwrap_err();
    assert!(long.to_string().contains("429") && long.to_string().contains("wait 3600 s"), "{long}");

    proxy.reset();
    proxy.fail("manifests", Fault::Status(503, None), 9);
    let down = pull(&puller, &reference).await.unwrap_err();
    assert!(matches!(registry_error(&down), RegistryError::Status { status: 503, .. }), "{down}");
    assert_eq!(proxy.seen("manifests").len(), 3, "as often as configured");

    proxy.reset();
    proxy.fail("manifests", Fault::Status(429, Some(1)), 1);
    proxy.fail(&blob(&image(), 0), Fault::Status(502, None), 1);
    let asked = std::time::Instant::now();
    pull(&puller, &reference).await.unwrap();
    assert!(asked.elapsed().as_secs() >= 1, "Retry-After is a promise, not a hint");
    assert_eq!(proxy.seen("manifests").len(), 2);
}

#[tokio::test]
async fn damaged_bytes_come_from_the_next_mirror_or_are_refused_and_leave_nothing() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let proxy = Proxy::start(&registry).await;
    registry.push(&image(), "app", "1").await;
    let large = blob(&image(), 0);
    proxy.fail(&large, Fault::Corrupt, 9);
    let alone = puller(&containerd, config(&[&proxy.host]));
    let error = pull(&alone, &format!("{}/app:1", proxy.host)).await.unwrap_err();
    let ImageError::Layer(LayerError::Damaged { object, .. }) = &*error else { panic!("{error:?}") };
    assert!(object.starts_with("layer 1 "), "{object}");
    containerd.expect_left(0, 0).await;

    let mut mirrored = config(&[&proxy.host]);
    mirrored.registries.push(entry(&registry.host, &[&proxy.host]));
    pull(&puller(&containerd, mirrored), &registry.reference("app:1")).await.unwrap();
    assert_eq!(containerd.unpacked("large"), [noise(7, 3 << 20)]);
}

#[tokio::test]
async fn a_manifest_that_is_not_the_pinned_one_is_refused() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let proxy = Proxy::start(&registry).await;
    let digest = registry.push(&image(), "app", "1").await;
    proxy.fail("manifests", Fault::Corrupt, 1);
    let puller = puller(&containerd, config(&[&proxy.host]));
    let error = pull(&puller, &format!("{}/app@{digest}", proxy.host)).await.unwrap_err();
    assert!(registry_error(&error).to_string().contains("is damaged"), "{error}");
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_the_registry_last() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let (empty, proxy) = (Registry::start().await, Proxy::start(&registry).await);
    registry.push(&image(), "app", "1").await;
    let nobody = "localhost:9";
    let mut mirrored = config(&[nobody, &empty.host, &proxy.host]);
    mirrored.attempts = 1;
    mirrored.registries.push(entry(&registry.host, &[nobody, &empty.host, &proxy.host]));
    pull(&puller(&containerd, mirrored), &registry.reference("app:1")).await.unwrap();
    assert!(proxy.seen(&format!("ns={}", registry.host.replace(':', "%3A"))).len() >= 4, "{:?}", proxy.seen(""));
}

#[tokio::test]
async fn a_registry_that_asks_for_a_password_gets_that_of_its_host() {
    let containerd = PrivateContainerd::start().await;
    let registry = Registry::demanding(Demands { password: true, ..Demands::default() }).await;
    registry.push(&image(), "app", "1").await;
    let reference = registry.reference("app:1");
    let error = pull(&puller(&containerd, config(&[&registry.host])), &reference).await.unwrap_err();
    assert!(matches!(registry_error(&error), RegistryError::Unauthorized { .. }), "{error}");

    let file = tempfile::NamedTempFile::new().unwrap();
    let toml = |password: &str| {
        format!("[registry.\"{}\"]\nusername = \"{}\"\npassword = \"{password}\"\n", registry.host, USER.0)
    };
    std::fs::write(file.path(), toml("wrong")).unwrap();
    let with = ImagesConfig { credentials_file: Some(file.path().to_owned()), ..config(&[&registry.host]) };
    let puller = puller(&containerd, with);
    let error = pull(&puller, &reference).await.unwrap_err();
    assert!(matches!(registry_error(&error), RegistryError::Unauthorized { .. }), "{error}");
    std::fs::write(file.path(), toml(USER.1)).unwrap();
    pull(&puller, &reference).await.unwrap();
}

#[tokio::test]
async fn a_registry_with_a_private_authority_is_trusted_by_its_file_alone() {
    let containerd = PrivateContainerd::start().await;
    let registry = Registry::demanding(Demands { tls: true, ..Demands::default() }).await;
    registry.push(&image(), "app", "1").await;
    let reference = registry.reference("app:1");
    let secure = |ca_file| {
        let entry = RegistryConfig { ca_file, insecure: false, ..entry(&registry.host, &[]) };
        ImagesConfig { registries: vec![entry], attempts: 1, ..ImagesConfig::default() }
    };
    let error = pull(&puller(&containerd, secure(None)), &reference).await.unwrap_err();
    assert!(matches!(registry_error(&error), RegistryError::Unreachable { .. }), "{error}");
    pull(&puller(&containerd, secure(Some(registry.ca_file()))), &reference).await.unwrap();
}

#[tokio::test]
async fn hostile_layers_are_refused_before_they_touch_the_disk() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let zeros = vec![0; 64 << 20];
    let bomb = Image::new(vec![Layer::new(GZIP, &[("hello", b"x")]), Layer::new(GZIP, &[("zeros", &zeros)])]);
    let device = Image::new(vec![Layer::device("dev/sda")]);
    registry.push(&bomb, "bomb", "1").await;
    registry.push(&device, "device", "1").await;
    let mut strict = config(&[&registry.host]);
    strict.max_unpacked_bytes = 16 << 20;
    let puller = puller(&containerd, strict);
    let error = pull(&puller, &registry.reference("bomb:1")).await.unwrap_err();
    let ImageError::Layer(LayerError::TooLarge { layer, unit, .. }) = &*error else { panic!("{error:?}") };
    assert!(layer.starts_with("layer 2 ") && *unit == "bytes");
    assert!(containerd.unpacked("zeros").is_empty());
    let error = pull(&puller, &registry.reference("device:1")).await.unwrap_err();
    let ImageError::Layer(LayerError::Hostile { path, .. }) = &*error else { panic!("{error:?}") };
    assert_eq!(path, "dev/sda");
    containerd.expect_left(0, 0).await;
}

#[tokio::test]
async fn a_full_disk_is_told_by_name_and_holds_nothing_afterwards() {
    let containerd = PrivateContainerd::on_disk_of(16 << 20).await;
    let registry = Registry::start().await;
    // Packed it fits, unpacked it does not; then one that does not even come.
    let zeros = vec![0; 64 << 20];
    registry.push(&Image::new(vec![Layer::new(GZIP, &[("zeros", &zeros)])]), "unpacked", "1").await;
    registry.push(&Image::new(vec![Layer::new(PLAIN, &[("noise", &noise(3, 24 << 20))])]), "packed", "1").await;
    registry.push(&Image::new(vec![Layer::new(GZIP, &[("hello", b"fits")])]), "small", "1").await;
    let puller = puller(&containerd, config(&[&registry.host]));
    for name in ["unpacked:1", "packed:1"] {
        let error = pull(&puller, &registry.reference(name)).await.unwrap_err();
        assert!(matches!(&*error, ImageError::Layer(LayerError::NoSpace { .. })), "{name}: {error:?}");
        containerd.expect_left(0, 0).await;
    }
    pull(&puller, &registry.reference("small:1")).await.unwrap();
}

#[tokio::test]
async fn progress_tells_every_layer_from_its_first_byte_to_the_disk() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    registry.push(&image(), "app", "1").await;
    let puller = puller(&containerd, config(&[&registry.host]));
    let mut ticket = puller.pull(&registry.reference("app:1").parse().unwrap());
    let position = ticket.position();
    ticket.done().await.unwrap();
    let end = position.borrow().clone();
    assert_eq!(end.source, registry.host);
    assert_eq!((end.layers.len(), end.done_bytes), (2, end.total_bytes));
    for layer in end.layers {
        assert_eq!((layer.state, layer.done_bytes), (LayerState::Done, layer.total_bytes));
    }
}

#[tokio::test]
async fn an_exported_image_is_the_same_when_it_is_imported_again() {
    use futures::TryStreamExt;
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    registry.push(&image(), "app", "1").await;
    let reference = registry.reference("app:1");
    let info = pull(&puller(&containerd, config(&[&registry.host])), &reference).await.unwrap();
    let store = containerd.images();
    let (total, pieces) = store.export(&info.reference).await.unwrap();
    let archive: Vec<u8> = pieces.try_collect::<Vec<_>>().await.unwrap().concat();
    assert_eq!(archive.len() as u64, total);

    let other = PrivateContainerd::start().await;
    let pieces = futures::stream::iter([Ok::<_, std::io::Error>(archive.into())]);
    let ignored = roostd::containerd::image::Progress::ignored();
    let imported = other.images().import_archive(pieces, None, None, &other.spool(), &ignored).await.unwrap();
    assert_eq!((imported.digest, imported.reference), (info.digest, info.reference));
    assert_eq!(other.unpacked("hello"), [b"one"]);
}
