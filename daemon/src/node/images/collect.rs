//! Garbage collection: unused images go when the disk fills up.

use std::collections::HashMap;
use std::time::Duration;

use roost_proto::model::{ImageInfo, ImageRef};

use super::NodeImages;
use crate::config::GcConfig;
use crate::containerd::image::ImageError;
use crate::sandbox::failure::chain;
use crate::sandbox::publisher::unix_ms;

/// How old the note of an image's last use may get on the disk: it costs a
/// transaction of containerd, and days count, not minutes.
const NOTE_PERIOD_MS: u64 = 600_000;

/// Images that may go, the longest unused first. Pure.
#[must_use]
pub fn unused(images: Vec<ImageInfo>, now_unix_ms: u64, unused_for: Duration) -> Vec<ImageInfo> {
    let unused_for_ms = u64::try_from(unused_for.as_millis()).unwrap_or(u64::MAX);
    let is_old = |image: &ImageInfo| now_unix_ms.saturating_sub(image.last_used_at_unix_ms) >= unused_for_ms;
    let mut images: Vec<_> = images.into_iter().filter(|i| !i.pinned && i.in_use_by == 0 && is_old(i)).collect();
    images.sort_by(|a, b| (a.last_used_at_unix_ms, &a.reference).cmp(&(b.last_used_at_unix_ms, &b.reference)));
    images
}

impl NodeImages {
    /// Collects for as long as the daemon runs.
    pub async fn collect(self, gc: GcConfig) {
        let mut noted = HashMap::new();
        loop {
            tokio::time::sleep(Duration::from_secs(gc.period_s)).await;
            self.note_uses(&mut noted).await;
            if gc.enabled
                && let Err(error) = self.collect_once(gc).await
            {
                tracing::warn!(error = %chain(&error), "images cannot be collected now");
            }
        }
    }

    /// Removes unused images if the disk is too full, until it is not.
    ///
    /// # Errors
    /// See [`ImageError`]; the next period is the retry.
    pub async fn collect_once(&self, gc: GcConfig) -> Result<(), ImageError> {
        let used = async || Ok::<_, ImageError>(self.node.images.store().disk_usage().await?.map(|d| d.used_percent()));
        let Some(percent) = used().await?.filter(|percent| *percent >= gc.high_percent) else { return Ok(()) };
        let candidates = unused(self.list().await?, unix_ms(), Duration::from_secs(gc.min_unused_s));
        tracing::info!(percent, candidates = candidates.len(), "images are collected: the disk fills up");
        for image in candidates {
            match self.remove_now(&image.reference).await {
                Ok(()) => {}
                // A sandbox, or somebody else, was faster.
                Err(ImageError::InUse { .. } | ImageError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            }
            if used().await?.is_none_or(|percent| percent <= gc.low_percent) {
                return Ok(());
            }
        }
        tracing::warn!("the disk stays full: every image left is used, pinned or was used lately");
        Ok(())
    }

    /// Writes down when images were used last, now and then.
    async fn note_uses(&self, noted: &mut HashMap<ImageRef, u64>) {
        for (reference, at_unix_ms) in self.node.images.last_used() {
            let before = noted.get(&reference).copied().unwrap_or_default();
            if at_unix_ms < before.saturating_add(NOTE_PERIOD_MS) {
                continue;
            }
            match self.node.images.store().note_use(&reference, at_unix_ms).await {
                Ok(()) => {
                    noted.insert(reference, at_unix_ms);
                }
                Err(error) => {
                    tracing::debug!(image = %reference, error = %chain(&error), "use of an image is not noted")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, last_used_at_unix_ms: u64) -> ImageInfo {
        ImageInfo { last_used_at_unix_ms, ..ImageInfo::new(name.parse().unwrap(), String::new(), 1, 1) }
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_or_pinned_stays() {
        let pinned = ImageInfo { pinned: true, ..image("pinned", 1) };
        let used = ImageInfo { in_use_by: 1, ..image("used", 2) };
        let images = vec![image("b", 50), pinned, image("young", 99), used, image("a", 10), image("c", 50)];
        let names = |images: Vec<ImageInfo>| images.into_iter().map(|i| i.reference.to_string()).collect::<Vec<_>>();
        assert_eq!(names(unused(images, 100, Duration::from_millis(50))), ["a:latest", "b:latest", "c:latest"]);
    }
}
