//! The images of a start, pulled if its policy says so.

use std::time::Duration;

use roost_proto::model::{ImageRef, LayerState, PullPolicy, Stage};

use super::NotStarted;
use crate::containerd::image::{Position, Step};
use crate::pull::PullError;
use crate::sandbox::failure::StartError;
use crate::sandbox::image::ImageError;

/// Between two words about a pull: each is sent to central.
const NOTE_PERIOD: Duration = Duration::from_secs(1);

impl NotStarted<'_> {
    /// Pulls what has to be pulled; at once if nothing has.
    pub(super) async fn pull_images(&mut self) -> Result<(), StartError> {
        let display = self.node.display_image(self.desired.spec.display.glx).clone();
        self.pull(&display, PullPolicy::IfNotPresent).await?;
        let (workload, policy) = (self.desired.spec.image.clone(), self.desired.spec.pull_policy);
        self.pull(&workload, policy).await
    }

    async fn pull(&mut self, reference: &ImageRef, policy: PullPolicy) -> Result<(), StartError> {
        // What was started from before needs no question to containerd.
        if policy != PullPolicy::Always && self.node.images.is_prepared(reference) {
            return Ok(());
        }
        let failed = |source| StartError::Image { reference: reference.clone(), source };
        let needed = self.node.puller.is_needed(reference, policy).await;
        if !needed.map_err(|error| failed(ImageError::Records(Box::new(error))))? {
            return Ok(());
        }
        self.publisher.stage(Stage::Image);
        let mut ticket = self.node.puller.pull(reference);
        let position = ticket.position();
        loop {
            let words = words(reference, &position.borrow());
            self.publisher.note("pulling-image", words);
            // Cancel-safe: the outcome stays, the token stays cancelled.
            tokio::select! {
                biased;
                () = self.watch.cancelled() => return Err(StartError::Cancelled),
                done = ticket.done() => {
                    self.publisher.clear_note();
                    return done.map(drop).map_err(|error: PullError| failed(ImageError::Pull(error)));
                }
                () = tokio::time::sleep(NOTE_PERIOD) => {}
            }
        }
    }
}

/// What a start waits for, for people.
fn words(reference: &ImageRef, position: &Position) -> String {
    let from = if position.source.is_empty() { "its registry" } else { &position.source };
    let mib = |bytes: u64| bytes >> 20;
    let (done, total) = (mib(position.done_bytes), mib(position.total_bytes));
    let layers = position.layers.len();
    match position.step {
        Step::Download => format!("pulls image {reference} from {from}: {done} of {total} MiB"),
        Step::Unpack => {
            let unpacked = position.layers.iter().filter(|layer| layer.state == LayerState::Done).count();
            format!("unpacks image {reference}: {unpacked} of {layers} layers")
        }
        _ => format!("asks {from} for image {reference}"),
    }
}
