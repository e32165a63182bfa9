//! Pictures of a screen as PNG.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memmap2::MmapMut;
use tokio::sync::Semaphore;

use super::framebuffer::{Frame, Framebuffer, Geometry, ReadFramebufferError};

/// Time that a picture may wait for its turn. One takes milliseconds: who
/// waits longer stands behind hundreds and had better ask again.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// First guess of the size of a PNG: a desktop of 1280x800 with text takes
/// about 150 KiB, so most pictures grow the buffer once or not at all.
const PNG_BYTES_GUESS: usize = 192 << 10;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum ScreenshotError {
    /// The pixels cannot be read.
    #[error("cannot read the screen")]
    Framebuffer(#[from] ReadFramebufferError),
    /// The PNG cannot be made.
    #[error("cannot encode the picture")]
    Encode(#[source] png::EncodingError),
    /// There is no memory for the pixels.
    #[error("no memory for the picture")]
    Memory(#[source] std::io::Error),
    /// Too many pictures are being made.
    #[error("too many screenshots at once: try again")]
    Busy,
    /// The blocking thread did not end as it should.
    #[error("the screenshot was interrupted")]
    Interrupted,
}

/// A picture of a whole screen, encoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// Width and height.
    pub geometry: Geometry,
    /// The PNG: 8 bits each of red, green and blue, no alpha.
    pub png: Vec<u8>,
}

impl std::fmt::Debug for Screenshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screenshot").field("geometry", &self.geometry).field("png_bytes", &self.png.len()).finish()
    }
}

/// Takes screenshots, a bounded number at once; cheap to clone.
///
/// A picture of 1280x800 needs 3 MB of pixels. Fresh memory of that size costs
/// 1.5 ms of page faults, as much as encoding it; so pixels are read into
/// buffers that are used again, no more of them than pictures at once, and
/// [`Self::release_idle`] gives back those that nobody used for a while.
#[derive(Debug, Clone)]
pub struct Screenshots {
    turns: Arc<Semaphore>,
    buffers: Arc<Mutex<Vec<Buffer>>>,
}

/// Pixels of one picture. A mapping of its own, so that dropping it returns
/// the memory to the system and not to the allocator.
#[derive(Debug)]
struct Buffer {
    memory: MmapMut,
    is_idle: bool,
}

impl Screenshots {
    /// At most `at_once` pictures are made at the same time (at least one).
    /// They only compute, so more than the number of cores gains nothing.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once.max(1))), buffers: Arc::default() }
    }

    /// Reads the screen of the display server that writes into
    /// `framebuffer_dir`, without asking that server, and encodes what `shown`
    /// takes of it.
    ///
    /// # Errors
    /// See [`ScreenshotError`].
    pub async fn take(
        &self,
        framebuffer_dir: PathBuf,
        expected: Geometry,
        shown: Geometry,
    ) -> Result<Screenshot, ScreenshotError> {
        let buffers = Arc::clone(&self.buffers);
        self.run(move || {
            let framebuffer = Framebuffer::open(&framebuffer_dir, expected)?.showing(shown);
            let shown = framebuffer.geometry();
            let mut buffer = take_buffer(&buffers, shown.rgb_bytes())?;
            let rgb = &mut buffer.memory[..shown.rgb_bytes()];
            let screenshot = framebuffer.read_rgb(rgb).map_err(Into::into).and_then(|()| encode_png(shown, rgb));
            lock(&buffers).push(Buffer { is_idle: false, ..buffer });
            screenshot
        })
        .await
    }

    /// Reads the screen and returns its pixels.
    ///
    /// # Errors
    /// See [`ScreenshotError`].
    pub async fn read(&self, framebuffer_dir: PathBuf, expected: Geometry) -> Result<Frame, ScreenshotError> {
        self.run(move || Ok(Framebuffer::open(&framebuffer_dir, expected)?.read_frame()?)).await
    }

    /// Gives back the buffers that were not used since the last call: call it
    /// every few seconds. Returns how many bytes are still kept.
    pub fn release_idle(&self) -> usize {
        let mut buffers = lock(&self.buffers);
        buffers.retain_mut(|buffer| !std::mem::replace(&mut buffer.is_idle, true));
        buffers.iter().map(|buffer| buffer.memory.len()).sum()
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, ScreenshotError> + Send + 'static,
    ) -> Result<T, ScreenshotError> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, Arc::clone(&self.turns).acquire_owned())
            .await
            .map_err(|_elapsed| ScreenshotError::Busy)?
            .map_err(|_closed| ScreenshotError::Interrupted)?;
        // The turn moves along: a caller that goes away does not free it
        // while the thread still works.
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            job()
        })
        .await
        .map_err(|_join_error| ScreenshotError::Interrupted)?
    }
}

/// Takes a kept buffer, or makes one; one that is too small is dropped.
fn take_buffer(buffers: &Mutex<Vec<Buffer>>, bytes: usize) -> Result<Buffer, ScreenshotError> {
    match lock(buffers).pop() {
        Some(buffer) if buffer.memory.len() >= bytes => Ok(buffer),
        _ => Ok(Buffer { memory: MmapMut::map_anon(bytes).map_err(ScreenshotError::Memory)?, is_idle: false }),
    }
}

/// A panic in a holder leaves the list whole: nothing is done in between.
fn lock(buffers: &Mutex<Vec<Buffer>>) -> MutexGuard<'_, Vec<Buffer>> {
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Encodes the pixels of a picture: red, green and blue of each, row by row.
/// Lossless, because models read text from it; for speed, because it is looked
/// at once.
///
/// # Errors
/// [`ScreenshotError::Encode`] if size and number of pixels disagree.
pub fn encode_png(geometry: Geometry, rgb: &[u8]) -> Result<Screenshot, ScreenshotError> {
    let mut png = Vec::with_capacity(PNG_BYTES_GUESS);
    let mut encoder = png::Encoder::new(&mut png, geometry.width_px, geometry.height_px);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    // On a desktop full of text Paeth alone gives the size that trying every
    // filter on every row gives (149 to 146 kB), in 1.9 ms where that takes
    // 2.6 ms; `Up` takes 1.5 ms and 219 kB.
    encoder.set_filter(png::Filter::Paeth);
    let mut writer = encoder.write_header().map_err(ScreenshotError::Encode)?;
    writer.write_image_data(rgb).map_err(ScreenshotError::Encode)?;
    writer.finish().map_err(ScreenshotError::Encode)?;
    Ok(Screenshot { geometry, png })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Geometry = Geometry { width_px: 3, height_px: 2 };

    #[test]
    fn a_png_decodes_to_the_pixels_that_went_in() {
        let rgb: Vec<u8> = (0..18).map(|i| i * 14).collect();
        let screenshot = encode_png(SIZE, &rgb).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&screenshot.png)).read_info().unwrap();
        let mut decoded = vec![0; 18];
        let info = reader.next_frame(&mut decoded).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (3, 2, png::ColorType::Rgb));
        assert_eq!(decoded, rgb);
    }

    #[test]
    fn pixels_that_do_not_fill_the_picture_are_an_error() {
        assert!(matches!(encode_png(SIZE, &[0; 17]), Err(ScreenshotError::Encode(_))));
    }

    #[test]
    fn a_buffer_is_used_again_and_given_back_once_idle() {
        let screenshots = Screenshots::new(1);
        let buffer = take_buffer(&screenshots.buffers, 100).unwrap();
        lock(&screenshots.buffers).push(buffer);
        let again = take_buffer(&screenshots.buffers, 50).unwrap();
        assert_eq!(again.memory.len(), 100);
        lock(&screenshots.buffers).push(again);
        assert_eq!(screenshots.release_idle(), 100);
        assert_eq!(screenshots.release_idle(), 0);
    }
}
