//! Images on a real containerd: import, listing, garbage, removal. Needs root
//! and the `containerd` command.

// A test fails by a panic, in its helpers as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "image/archives.rs"]
mod archives;
#[path = "image/private_containerd.rs"]
mod private_containerd;

use std::io;
use std::time::Duration;

use archives::{GZIP, Image, Layer, PLAIN, ZSTD, layout, nested};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use private_containerd::{PrivateContainerd, wait_for};
use roost_proto::model::{ImageInfo, ImageRef};
use roostd::containerd::GcLease;
use roostd::containerd::image::digest::chain_ids;
use roostd::containerd::image::source::{Blob, BlobStream, Found};
use roostd::containerd::image::{Digest, ImageError, LayerError, Progress, Source, Step, TarArchive};
use serde_json::json;

const NAME: &str = "roost/hello:1";

/// Two layers, one of them packed.
fn hello() -> Image {
    Image::new(vec![Layer::new(GZIP, &[("hello", b"one")]), Layer::new(PLAIN, &[("etc/two", b"two")])])
}

fn name(text: &str) -> ImageRef {
    text.parse().unwrap()
}

/// Sends an archive in small pieces, as a client would.
async fn import(containerd: &PrivateContainerd, archive: &[u8]) -> Result<ImageInfo, ImageError> {
    import_as(containerd, archive, None).await
}

async fn import_as(
    containerd: &PrivateContainerd,
    archive: &[u8],
    reference: Option<&str>,
) -> Result<ImageInfo, ImageError> {
    let pieces: Vec<_> = archive.chunks(1000).map(|c| Ok::<_, io::Error>(Bytes::copy_from_slice(c))).collect();
    let (length, spool, progress) = (archive.len() as u64, containerd.spool(), Progress::ignored());
    let stream = stream::iter(pieces);
    containerd.images().import_archive(stream, Some(length), reference.map(name), &spool, &progress).await
}

#[tokio::test]
async fn an_oci_archive_becomes_an_image_that_a_container_can_start_from() {
    let containerd = PrivateContainerd::start().await;
    let info = import(&containerd, &hello().oci(NAME)).await.unwrap();
    assert_eq!(info.digest, Digest::of(&hello().manifest()).to_string());
    assert_eq!(containerd.images().list().await.unwrap(), std::slice::from_ref(&info));

    let image = containerd.images().get(&name(NAME)).await.unwrap();
    let diff_ids: Vec<_> = hello().layers.iter().map(|layer| layer.diff_id).collect();
    assert_eq!(image.info, info);
    assert_eq!(image.chain_ids, chain_ids(&diff_ids));
    assert_eq!(Some(&image.chain_id), image.chain_ids.last());
    assert_eq!((image.config.cmd, image.config.user), (vec!["/hello".to_owned()], "7:8".to_owned()));
    assert_eq!(containerd.unpacked("hello"), [b"one"]);
    assert_eq!(containerd.unpacked("etc/two"), [b"two"]);
}

#[tokio::test]
async fn a_docker_archive_becomes_the_same_image_with_its_layers_as_they_are_packed() {
    let containerd = PrivateContainerd::start().await;
    let info = import(&containerd, &hello().docker("hello:latest")).await.unwrap();
    assert_eq!(info.reference, name("hello:latest"));
    let image = containerd.images().get(&name("hello")).await.unwrap();
    let diff_ids: Vec<_> = hello().layers.iter().map(|layer| layer.diff_id).collect();
    assert_eq!(image.chain_ids, chain_ids(&diff_ids));
    assert_eq!(containerd.unpacked("etc/two"), [b"two"]);
    assert_eq!(import(&containerd, &hello().docker("hello:latest")).await.unwrap().digest, info.digest);
}

#[tokio::test]
async fn zstd_layers_and_repeated_layers_unpack() {
    let containerd = PrivateContainerd::start().await;
    let layer = Layer::new(ZSTD, &[("hello", b"packed well")]);
    let image = Image::new(vec![layer.clone(), Layer::new(PLAIN, &[("x", b"y")]), layer]);
    import(&containerd, &image.oci(NAME)).await.unwrap();
    assert_eq!(containerd.unpacked("hello"), [b"packed well", b"packed well"]);
    containerd.expect_left(4, 3).await;
}

#[tokio::test]
async fn of_several_platforms_the_one_of_this_machine_is_imported() {
    let containerd = PrivateContainerd::start().await;
    let mut foreign = Image::new(vec![Layer::new(PLAIN, &[("hello", b"foreign")])]);
    foreign.architecture = "s390x".to_owned();
    let (index, mut entry) = nested(&[foreign.entry(), hello().entry()]);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": NAME });
    let blobs = [foreign.blobs(), hello().blobs(), vec![index]].concat();
    let info = import(&containerd, &layout(blobs, &[entry])).await.unwrap();
    assert_eq!(info.digest, Digest::of(&hello().manifest()).to_string());

    let error = import(&containerd, &foreign.oci(NAME)).await.unwrap_err();
    assert!(error.to_string().contains("linux/s390x"), "{error}");
}

#[tokio::test]
async fn of_several_images_only_a_named_one_is_imported() {
    let containerd = PrivateContainerd::start().await;
    let other = Image::new(vec![Layer::new(PLAIN, &[("hello", b"other")])]);
    let named = |image: &Image, name: &str| {
        let mut entry = image.entry();
        entry["annotations"] = json!({ "io.containerd.image.name": name });
        entry
    };
    let blobs = [hello().blobs(), other.blobs()].concat();
    let archive = layout(blobs, &[named(&hello(), NAME), named(&other, "roost/other:1")]);
    let error = import(&containerd, &archive).await.unwrap_err();
    assert!(error.to_string().contains("name one of \"roost/hello:1\", \"roost/other:1\""), "{error}");
    let info = import_as(&containerd, &archive, Some("roost/other:1")).await.unwrap();
    assert_eq!(info.digest, Digest::of(&other.manifest()).to_string());
}

#[tokio::test]
async fn a_changed_layer_is_refused_and_leaves_nothing() {
    let containerd = PrivateContainerd::start().await;
    let (image, mut blobs) = (hello(), hello().blobs());
    let last = blobs[1].1.len() - 1;
    blobs[1].1[last] ^= 1;
    let mut entry = image.entry();
    entry["annotations"] = json!({ "io.containerd.image.name": NAME });
    let error = import(&containerd, &layout(blobs, &[entry])).await.unwrap_err();
    assert!(
        matches!(&error, ImageError::Layer(LayerError::Damaged { object, .. }) if object.starts_with("layer 2 ")),
        "{error}"
    );
    assert!(containerd.images().list().await.unwrap().is_empty());
    containerd.expect_left(0, 0).await;
}

#[tokio::test]
async fn a_layer_that_unpacks_to_another_diff_id_is_refused_and_leaves_nothing() {
    let containerd = PrivateContainerd::start().await;
    let mut image = hello();
    image.layers[0].diff_id = Digest::of(b"something else");
    let error = import(&containerd, &image.oci(NAME)).await.unwrap_err();
    let ImageError::Layer(LayerError::Damaged { object, problem }) = &error else { panic!("{error}") };
    assert!(object.starts_with("layer 1 ") && problem.starts_with("it unpacks to sha256:"), "{error}");
    containerd.expect_left(0, 0).await;
}

#[tokio::test]
async fn a_layer_that_is_no_tar_is_refused_by_name_and_leaves_nothing() {
    let containerd = PrivateContainerd::start().await;
    let mut image = hello();
    image.layers[0].bytes = archives::gzip(&[b'x'; 5000]);
    let error = import(&containerd, &image.oci(NAME)).await.unwrap_err();
    assert!(
        matches!(&error, ImageError::Layer(LayerError::Unpack { layer, .. }) if layer.starts_with("layer 1 ")),
        "{error:?}"
    );
    containerd.expect_left(0, 0).await;
}

#[tokio::test]
async fn an_archive_cut_off_anywhere_is_refused_and_leaves_nothing() {
    let containerd = PrivateContainerd::start().await;
    for archive in [hello().oci(NAME), hello().docker(NAME)] {
        // Up to the zeros that close it, every length lacks something.
        for length in (0..archive.len() - 2048).step_by(512) {
            let error = import(&containerd, &archive[..length + 100]).await.unwrap_err();
            assert!(matches!(error, ImageError::Archive(_)), "{length}: {error}");
        }
    }
    containerd.expect_left(0, 0).await;
}

#[tokio::test]
async fn the_same_image_imported_many_times_at_once_is_one_image() {
    let containerd = PrivateContainerd::start().await;
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n ^ n >> 7).to_le_bytes()).collect();
    let image = Image::new(vec![Layer::new(GZIP, &[("big", &big)]), Layer::new(PLAIN, &[("hello", b"one")])]);
    let archive = image.oci(NAME);
    let imports = futures::future::join_all((0..4).map(|_| import(&containerd, &archive))).await;
    for info in imports {
        assert_eq!(info.unwrap().digest, Digest::of(&image.manifest()).to_string());
    }
    assert_eq!(containerd.images().list().await.unwrap().len(), 1);
    containerd.expect_left(4, 2).await;
    assert_eq!(containerd.unpacked("big"), [big]);
}

#[tokio::test]
async fn an_image_outlives_every_collection_until_it_is_removed() {
    let containerd = PrivateContainerd::start().await;
    import(&containerd, &hello().oci(NAME)).await.unwrap();
    containerd.expect_left(4, 2).await;
    containerd.images().get(&name(NAME)).await.unwrap();

    let in_use = containerd.images().remove(&name(NAME), 3).await.unwrap_err();
    assert!(matches!(in_use, ImageError::InUse { users: 3, .. }), "{in_use}");
    containerd.images().remove(&name(NAME), 0).await.unwrap();
    assert_eq!((containerd.blobs().await, containerd.snapshots().await.len()), (0, 0));
    assert!(containerd.unpacked("hello").is_empty());
    let gone = containerd.images().remove(&name(NAME), 0).await.unwrap_err();
    assert!(matches!(gone, ImageError::NotFound { .. }), "{gone}");
    let gone = containerd.images().get(&name(NAME)).await.unwrap_err();
    assert!(matches!(gone, ImageError::NotFound { .. }), "{gone}");
}

#[tokio::test]
async fn a_new_image_of_the_same_name_takes_its_place() {
    let containerd = PrivateContainerd::start().await;
    import(&containerd, &hello().oci(NAME)).await.unwrap();
    let newer = Image::new(vec![Layer::new(GZIP, &[("hello", b"newer")])]);
    let info = import(&containerd, &newer.oci(NAME)).await.unwrap();
    assert_eq!(containerd.images().list().await.unwrap(), [info]);
    containerd.expect_left(3, 1).await;
    assert_eq!(containerd.unpacked("hello"), [b"newer"]);
}

#[tokio::test]
async fn two_names_of_one_image_share_its_layers() {
    let containerd = PrivateContainerd::start().await;
    let archive = hello().oci(NAME);
    import(&containerd, &archive).await.unwrap();
    import_as(&containerd, &archive, Some("team/copy:2")).await.unwrap();
    containerd.expect_left(4, 2).await;
    containerd.images().remove(&name(NAME), 0).await.unwrap();
    containerd.images().get(&name("team/copy:2")).await.unwrap();
    assert_eq!(containerd.unpacked("hello"), [b"one"]);
}

#[tokio::test]
async fn progress_goes_through_all_steps_to_their_ends() {
    let containerd = PrivateContainerd::start().await;
    let archive = hello().oci(NAME);
    let length = archive.len() as u64;
    let (progress, mut reader) = Progress::new();
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while reader.changed().await.is_ok() {
            seen.push(reader.borrow_and_update().clone());
        }
        seen
    });
    let stream = stream::iter([Ok::<_, io::Error>(Bytes::from(archive))]);
    let spool = containerd.spool();
    containerd.images().import_archive(stream, Some(length), None, &spool, &progress).await.unwrap();
    drop(progress);
    let seen = seen.await.unwrap();
    let end = seen.last().unwrap();
    assert_eq!(end.step, Step::Unpack);
    assert_eq!(end.done_bytes, end.total_bytes);
    assert!(seen.iter().any(|position| position.step == Step::Verify));
}

/// A source whose layers never come.
struct Silent(Found);

impl Source for Silent {
    fn found(&self) -> &Found {
        &self.0
    }

    async fn open(&self, _: &Blob, _: u64) -> Result<BlobStream, ImageError> {
        Ok(stream::pending().boxed())
    }
}

#[tokio::test]
async fn an_import_that_is_given_up_leaves_nothing() {
    let containerd = PrivateContainerd::start().await;
    let pieces = stream::iter([Ok::<_, io::Error>(Bytes::from(hello().oci(NAME)))]);
    let ignored = Progress::ignored();
    let archive = TarArchive::receive(pieces, None, None, &containerd.spool(), &ignored).await.unwrap();
    let silent = Silent(archive.found().clone());
    let images = containerd.images();
    tokio::select! {
        result = images.import(&silent, &ignored) => panic!("{result:?}"),
        () = wait_for("the write to begin", async || containerd.partial_writes().await == 1) => {}
    }
    containerd.expect_left(0, 0).await;
}

#[tokio::test]
async fn leases_of_a_killed_daemon_are_let_go_at_the_next_start() {
    let containerd = PrivateContainerd::start().await;
    let hour = Duration::from_secs(3600);
    std::mem::forget(GcLease::create(&containerd.client, "image-import", hour).await.unwrap());
    std::mem::forget(GcLease::create(&containerd.client, "other", hour).await.unwrap());
    assert_eq!(containerd.images().forget_broken_imports().await.unwrap(), 1);
    assert_eq!(containerd.leases().await, 1);
}
