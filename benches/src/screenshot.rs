//! `screenshot`: a picture of a desktop through the node's socket, and by the
//! program that others run for it.

mod peer;
mod picture;

use roost_tests::node::spec;
use roost_tests::{Result, TestNode};
use tokio::time::Instant;

use crate::node::with_node;
use crate::progress::{Progress, say};
use crate::report::{Report, Samples};
use peer::Peer;
pub(crate) use picture::Picture;

/// Pictures that count, of each kind.
const PICTURES: usize = 200;
/// Pictures before those.
const WARM_UP: usize = 5;
/// The screen of the figures, in pixels.
const SCREEN_PX: (u32, u32) = (1280, 800);

/// Takes pictures of one idle desktop, then as many with `scrot`.
///
/// # Errors
/// When a picture is refused or has not the expected size or content.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let n = n.unwrap_or(PICTURES);
    with_node(report.bench(), async |node| {
        let (samples, png) = node_pictures(report, node, n).await?;
        let note = format!("fluxbox desktop, 1280x800, PNG of {} KiB over the unix socket", png.len() / 1024);
        if let Some(missing) = Peer::missing() {
            say(report.bench(), &format!("scrot_p50_ms is left out: {missing} is not installed"));
            return report.median_ms("node_p50_ms", &samples, &format!("{note}; no peer: {missing} is not installed"));
        }
        report.median_ms("node_p50_ms", &samples, &note)?;
        let samples = peer_pictures(report, node, &Picture::decode(&png)?, n).await?;
        let note = "scrot as a program on the host before an own Xvfb that shows the same pixels, to a file; \
                    without the entry into a container that a real peer also needs";
        report.median_ms("scrot_p50_ms", &samples, note)
    })
    .await
}

/// Times pictures through the node; also the last of them.
async fn node_pictures(report: &Report, node: &TestNode, n: usize) -> Result<(Samples, Vec<u8>)> {
    let id = node.client.create_ready(&spec("fluxbox")?).await?;
    let progress = Progress::new(report.bench(), "taking pictures", WARM_UP + n)?;
    let (mut samples, mut png) = (Samples::default(), Vec::new());
    for index in 0..WARM_UP + n {
        let asked = Instant::now();
        png = node.client.screenshot(&id).await?;
        if index >= WARM_UP {
            samples.push(asked.elapsed());
        }
        progress.step();
    }
    let picture = Picture::decode(&png)?;
    if picture.size_px() != SCREEN_PX {
        return Err(format!("the picture has {:?} pixels, expected {SCREEN_PX:?}", picture.size_px()).into());
    }
    if picture.is_blank() {
        return Err("the picture shows one colour only: there is no desktop on it".into());
    }
    Ok((samples, png))
}

/// Times pictures by `scrot` of a screen that shows `picture`.
async fn peer_pictures(report: &Report, node: &TestNode, picture: &Picture, n: usize) -> Result<Samples> {
    let peer = Peer::start(&node.root.join("peer"), picture).await?;
    let progress = Progress::new(report.bench(), "taking pictures with scrot", WARM_UP + n)?;
    let mut samples = Samples::default();
    for index in 0..WARM_UP + n {
        let asked = Instant::now();
        peer.shoot().await?;
        if index >= WARM_UP {
            samples.push(asked.elapsed());
        }
        progress.step();
    }
    if Picture::decode(&peer.last()?)? != *picture {
        return Err("scrot saw other pixels than the node: the comparison would not be fair".into());
    }
    Ok(samples)
}
