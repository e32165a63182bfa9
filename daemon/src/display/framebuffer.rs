//! The screen's pixels, read from the file in which Xvfb keeps them.
//!
//! With `-fbdir` Xvfb maps a file in XWD format and draws into it. Reading
//! that file needs no X request, so it works while a client has grabbed the
//! server. The writer is a process of the sandbox: nothing in the file is
//! trusted, and it may shrink while it is read. So it is read by `pread`,
//! which answers a shrunken file with a short read; a mapping would answer
//! with SIGBUS. The price is 0.3 ms for the 4 MB of a 1280x800 screen, as much
//! as reading them through a fresh mapping costs in page faults.
//!
//! A [`Framebuffer`] is opened for one picture and dropped after it: an idle
//! sandbox costs neither memory nor a descriptor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use roost_proto::model::DisplaySpec;

/// Name that Xvfb gives the file of its first screen.
pub const FILE_NAME: &str = "Xvfb_screen0";

/// Bytes of the XWD header without the window name (`X11/XWDFile.h`).
const HEADER_BYTES: usize = 100;
/// Bytes of one colour map entry (`sz_XWDColor`).
const COLOR_BYTES: u64 = 12;
/// `XWD_FILE_VERSION`.
const XWD_VERSION: u32 = 7;
/// `ZPixmap`.
const Z_PIXMAP: u32 = 2;
/// `LSBFirst`: a pixel lies in the file as blue, green, red, unused.
const LSB_FIRST: u32 = 0;
/// Longest window name that is skipped: Xvfb writes "Xvfb screen 0".
const MAX_HEADER_BYTES: u32 = 4096;
/// Largest colour map that is skipped: Xvfb writes 256 entries.
const MAX_COLORS: u32 = 4096;
/// Bytes of one pixel in the file.
const FILE_PIXEL_BYTES: usize = 4;
/// Bytes of one pixel in a [`Frame`].
pub const RGB_BYTES: usize = 3;
/// Bytes read at once: a stripe of rows that stays in a core's L2 cache until
/// it is converted.
const STRIPE_BYTES: usize = 256 << 10;

/// Width and height of a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Width, in pixels.
    pub width_px: u32,
    /// Height, in pixels.
    pub height_px: u32,
}

impl Geometry {
    /// Bytes of a picture of this size with red, green and blue per pixel.
    #[must_use]
    pub fn rgb_bytes(self) -> usize {
        self.width_px as usize * self.height_px as usize * RGB_BYTES
    }
}

impl From<&DisplaySpec> for Geometry {
    fn from(spec: &DisplaySpec) -> Self {
        Self { width_px: spec.width_px, height_px: spec.height_px }
    }
}

impl std::fmt::Display for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width_px, self.height_px)
    }
}

/// Why a framebuffer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFramebufferError {
    /// The file cannot be opened.
    #[error("cannot open the framebuffer {path}", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else stands in its place.
    #[error("the framebuffer {path} is not a regular file", path = .path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The header says something that Xvfb does not write.
    #[error("the framebuffer's header says {field} = {found}, expected {expected}")]
    Header {
        /// Name of the field in `XWDFile.h`.
        field: &'static str,
        /// What it says.
        found: u32,
        /// What it must say.
        expected: u32,
    },
    /// The screen has another size than the sandbox's display.
    #[error("the framebuffer shows {found}, the display is {expected}")]
    Geometry {
        /// What the header says.
        found: Geometry,
        /// What the sandbox was given.
        expected: Geometry,
    },
    /// The file ends before its pixels do.
    #[error("the framebuffer is {have_bytes} bytes long, its pixels need {need_bytes}")]
    Truncated {
        /// Size that the header implies, in bytes.
        need_bytes: u64,
        /// Size of the file, in bytes.
        have_bytes: u64,
    },
    /// Reading failed.
    #[error("cannot read the framebuffer")]
    Read(#[source] io::Error),
}

/// Where the pixels lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    geometry: Geometry,
    pixels_offset: u64,
    row_bytes: usize,
}

/// A picture of a whole screen.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Width and height.
    pub geometry: Geometry,
    /// Red, green, blue of each pixel, row by row, without padding.
    pub rgb: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

impl Frame {
    /// Red, green and blue of one pixel; `None` outside the picture.
    #[must_use]
    pub fn pixel(&self, x_px: u32, y_px: u32) -> Option<[u8; RGB_BYTES]> {
        if x_px >= self.geometry.width_px {
            return None;
        }
        let index = (y_px as usize * self.geometry.width_px as usize + x_px as usize) * RGB_BYTES;
        self.rgb.get(index..index + RGB_BYTES)?.try_into().ok()
    }
}

/// An open framebuffer whose header was found right.
#[derive(Debug)]
pub struct Framebuffer {
    file: File,
    layout: Layout,
    shown: Geometry,
}

impl Framebuffer {
    /// Opens the framebuffer of the display server that writes into
    /// `framebuffer_dir`, and checks its header.
    ///
    /// Blocks for a few microseconds (the file lies on a tmpfs).
    ///
    /// # Errors
    /// See [`ReadFramebufferError`].
    pub fn open(framebuffer_dir: &Path, expected: Geometry) -> Result<Self, ReadFramebufferError> {
        let path = framebuffer_dir.join(FILE_NAME);
        // The sandbox may have put a link or a FIFO in the place of the file:
        // neither is followed nor waited for.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|source| ReadFramebufferError::Open { path: path.clone(), source })?;
        let metadata = file.metadata().map_err(ReadFramebufferError::Read)?;
        if !metadata.is_file() {
            return Err(ReadFramebufferError::NotAFile { path });
        }
        let mut header = [0; HEADER_BYTES];
        read_at(&file, &mut header, 0)?;
        let layout = parse_header(&header, metadata.len(), expected)?;
        Ok(Self { file, layout, shown: layout.geometry })
    }

    /// Only the part of it that a smaller screen shows: a server whose screen
    /// was made smaller goes on drawing into the same file, from its corner.
    #[must_use]
    pub fn showing(self, screen: Geometry) -> Self {
        let Geometry { width_px, height_px } = self.layout.geometry;
        let shown = Geometry { width_px: screen.width_px.min(width_px), height_px: screen.height_px.min(height_px) };
        Self { shown, ..self }
    }

    /// Width and height of the screen.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.shown
    }

    /// Reads the whole screen into memory of its own; see [`Self::read_rgb`].
    ///
    /// # Errors
    /// [`ReadFramebufferError::Truncated`] or [`ReadFramebufferError::Read`].
    pub fn read_frame(&self) -> Result<Frame, ReadFramebufferError> {
        let geometry = self.shown;
        let mut rgb = vec![0; geometry.rgb_bytes()];
        self.read_rgb(&mut rgb)?;
        Ok(Frame { geometry, rgb })
    }

    /// Reads the whole screen as red, green and blue into the first
    /// [`Geometry::rgb_bytes`] of `rgb`, which must have as many.
    ///
    /// What is drawn meanwhile may be in the lower part of the picture only.
    /// Blocks for about a millisecond: call it on a blocking thread.
    ///
    /// # Errors
    /// [`ReadFramebufferError::Truncated`] or [`ReadFramebufferError::Read`].
    pub fn read_rgb(&self, rgb: &mut [u8]) -> Result<(), ReadFramebufferError> {
        let Layout { geometry, pixels_offset, row_bytes } = self.layout;
        let (width, height) = (self.shown.width_px as usize, self.shown.height_px as usize);
        let stripe_rows = (STRIPE_BYTES / row_bytes).clamp(1, height);
        let mut stripe = vec![0; stripe_rows * row_bytes];
        let mut offset = pixels_offset;
        for out in rgb[..self.shown.rgb_bytes()].chunks_mut(stripe_rows * width * RGB_BYTES) {
            let read = &mut stripe[..out.len() / (width * RGB_BYTES) * row_bytes];
            read_at(&self.file, read, offset)?;
            if self.shown.width_px == geometry.width_px {
                bgrx_to_rgb(read, out);
            } else {
                for (row, out) in read.chunks(row_bytes).zip(out.chunks_mut(width * RGB_BYTES)) {
                    bgrx_to_rgb(&row[..width * FILE_PIXEL_BYTES], out);
                }
            }
            offset += read.len() as u64;
        }
        Ok(())
    }
}

/// Fills `buffer` from `offset`; a file that ends before is `Truncated`.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), ReadFramebufferError> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadFramebufferError::Truncated {
            need_bytes: offset + buffer.len() as u64,
            have_bytes: file.metadata().map_err(ReadFramebufferError::Read)?.len(),
        }),
        Err(error) => Err(ReadFramebufferError::Read(error)),
    }
}

/// Checks every field that the reader relies on.
fn parse_header(
    header: &[u8; HEADER_BYTES],
    file_bytes: u64,
    expected: Geometry,
) -> Result<Layout, ReadFramebufferError> {
    // All fields are big endian, whatever the machine.
    let mut fields = header.as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes));
    let mut next = || fields.next().unwrap_or_default();
    let header_bytes = next();
    require("file_version", next(), XWD_VERSION)?;
    require("pixmap_format", next(), Z_PIXMAP)?;
    require("pixmap_depth", next(), 24)?;
    let found = Geometry { width_px: next(), height_px: next() };
    require("xoffset", next(), 0)?;
    require("byte_order", next(), LSB_FIRST)?;
    let (_bitmap_unit, _bitmap_bit_order, _bitmap_pad) = (next(), next(), next());
    require("bits_per_pixel", next(), 8 * FILE_PIXEL_BYTES as u32)?;
    let bytes_per_line = next();
    let _visual_class = next();
    require("red_mask", next(), 0x00ff_0000)?;
    require("green_mask", next(), 0x0000_ff00)?;
    require("blue_mask", next(), 0x0000_00ff)?;
    let (_bits_per_rgb, _colormap_entries) = (next(), next());
    let ncolors = next();

    if found != expected || found.width_px == 0 || found.height_px == 0 {
        return Err(ReadFramebufferError::Geometry { found, expected });
    }
    if !(HEADER_BYTES as u32..=MAX_HEADER_BYTES).contains(&header_bytes) {
        let expected = HEADER_BYTES as u32;
        return Err(ReadFramebufferError::Header { field: "header_size", found: header_bytes, expected });
    }
    if ncolors > MAX_COLORS {
        return Err(ReadFramebufferError::Header { field: "ncolors", found: ncolors, expected: 256 });
    }
    // A row is never padded at 32 bits per pixel.
    require("bytes_per_line", bytes_per_line, found.width_px.saturating_mul(FILE_PIXEL_BYTES as u32))?;
    let pixels_offset = u64::from(header_bytes) + u64::from(ncolors) * COLOR_BYTES;
    let need_bytes = pixels_offset + u64::from(bytes_per_line) * u64::from(found.height_px);
    if file_bytes < need_bytes {
        return Err(ReadFramebufferError::Truncated { need_bytes, have_bytes: file_bytes });
    }
    Ok(Layout { geometry: found, pixels_offset, row_bytes: bytes_per_line as usize })
}

/// Refuses a field that does not say what Xvfb writes.
fn require(field: &'static str, found: u32, expected: u32) -> Result<(), ReadFramebufferError> {
    if found == expected { Ok(()) } else { Err(ReadFramebufferError::Header { field, found, expected }) }
}

/// Converts pixels; both slices hold the same number of them.
///
/// Four pixels make three whole words, so the loop has no byte-wise store;
/// the compiler does not find that by itself for a stride of three.
fn bgrx_to_rgb(bgrx: &[u8], rgb: &mut [u8]) {
    let (from, from_rest) = bgrx.as_chunks::<16>();
    let (to, to_rest) = rgb.as_chunks_mut::<12>();
    for (from, to) in from.iter().zip(to) {
        // The bytes R, G, B, 0 as a little-endian number.
        let rgb0 = |i: usize| u32::from_be_bytes([from[i], from[i + 1], from[i + 2], from[i + 3]]) >> 8;
        let [a, b, c, d] = [rgb0(0), rgb0(4), rgb0(8), rgb0(12)];
        to[..4].copy_from_slice(&(a | b << 24).to_le_bytes());
        to[4..8].copy_from_slice(&(b >> 8 | c << 16).to_le_bytes());
        to[8..].copy_from_slice(&(c >> 16 | d << 8).to_le_bytes());
    }
    for (from, to) in from_rest.as_chunks::<4>().0.iter().zip(to_rest.as_chunks_mut::<3>().0) {
        *to = [from[2], from[1], from[0]];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Geometry = Geometry { width_px: 5, height_px: 3 };

    /// A header as Xvfb writes it, without window name and colours.
    fn header(geometry: Geometry) -> [u32; 25] {
        let mut fields = [0; 25];
        fields[..6].copy_from_slice(&[
            HEADER_BYTES as u32,
            XWD_VERSION,
            Z_PIXMAP,
            24,
            geometry.width_px,
            geometry.height_px,
        ]);
        fields[8] = 32;
        fields[10] = 32;
        fields[11..17].copy_from_slice(&[32, geometry.width_px * 4, 4, 0x00ff_0000, 0xff00, 0xff]);
        fields
    }

    fn bytes(fields: [u32; 25]) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        for (to, field) in out.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
            *to = field.to_be_bytes();
        }
        out
    }

    /// A directory with a framebuffer whose pixel number i has the bytes
    /// i, i + 1, i + 2 as blue, green, red.
    fn write(geometry: Geometry) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut content = bytes(header(geometry)).to_vec();
        for i in 0..geometry.width_px * geometry.height_px {
            content.extend([i as u8, i as u8 + 1, i as u8 + 2, 0xee]);
        }
        std::fs::write(dir.path().join(FILE_NAME), content).unwrap();
        dir
    }

    #[test]
    fn every_pixel_comes_out_as_red_green_blue() {
        let dir = write(SMALL);
        let frame = Framebuffer::open(dir.path(), SMALL).unwrap().read_frame().unwrap();
        for i in 0..15u32 {
            assert_eq!(frame.pixel(i % 5, i / 5), Some([i as u8 + 2, i as u8 + 1, i as u8]), "pixel {i}");
        }
        assert_eq!(frame.pixel(5, 0), None);
        assert_eq!(frame.pixel(0, 3), None);
    }

    #[test]
    fn a_smaller_screen_shows_its_corner_and_a_larger_one_no_more_than_there_is() {
        let dir = write(SMALL);
        let showing = |width_px, height_px| {
            let framebuffer = Framebuffer::open(dir.path(), SMALL).unwrap();
            framebuffer.showing(Geometry { width_px, height_px }).read_frame().unwrap()
        };
        let frame = showing(2, 2);
        assert_eq!(frame.rgb, [2, 1, 0, 3, 2, 1, 7, 6, 5, 8, 7, 6], "of rows of five");
        assert_eq!(showing(9, 1).geometry, Geometry { width_px: 5, height_px: 1 });
    }

    #[test]
    fn each_wrong_field_is_refused_by_its_name() {
        for (index, name) in [
            (0, "header_size"),
            (1, "file_version"),
            (2, "pixmap_format"),
            (3, "pixmap_depth"),
            (6, "xoffset"),
            (7, "byte_order"),
            (11, "bits_per_pixel"),
            (12, "bytes_per_line"),
            (14, "red_mask"),
            (15, "green_mask"),
            (16, "blue_mask"),
            (19, "ncolors"),
        ] {
            let mut fields = header(SMALL);
            fields[index] = u32::MAX;
            let error = parse_header(&bytes(fields), u64::MAX, SMALL).unwrap_err();
            assert!(
                matches!(error, ReadFramebufferError::Header { field, .. } if field == name),
                "field {index}: {error}"
            );
        }
    }

    #[test]
    fn a_screen_of_another_size_than_the_display_is_refused() {
        let other = Geometry { width_px: 6, height_px: 3 };
        let error = parse_header(&bytes(header(other)), u64::MAX, SMALL).unwrap_err();
        assert_eq!(error.to_string(), "the framebuffer shows 6x3, the display is 5x3");
    }

    #[test]
    fn a_file_shorter_than_its_pixels_is_refused_when_opened_and_when_it_shrinks_later() {
        let dir = write(SMALL);
        let open = Framebuffer::open(dir.path(), SMALL).unwrap();
        let file = OpenOptions::new().write(true).open(dir.path().join(FILE_NAME)).unwrap();
        file.set_len(HEADER_BYTES as u64 + 59).unwrap();
        let truncated = |error| matches!(error, ReadFramebufferError::Truncated { need_bytes: 160, have_bytes: 159 });
        assert!(truncated(Framebuffer::open(dir.path(), SMALL).unwrap_err()));
        assert!(truncated(open.read_frame().unwrap_err()));
    }

    #[test]
    fn a_link_a_fifo_and_a_missing_file_are_refused_at_once() {
        let target = write(SMALL);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let open = || Framebuffer::open(dir.path(), SMALL).unwrap_err();
        assert!(matches!(open(), ReadFramebufferError::Open { .. }));
        std::os::unix::fs::symlink(target.path().join(FILE_NAME), &path).unwrap();
        assert!(matches!(open(), ReadFramebufferError::Open { .. }));
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(open(), ReadFramebufferError::NotAFile { .. }));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_leave_the_file(
            garbage in prop::collection::vec(any::<u8>(), HEADER_BYTES),
            file_bytes in 0..10_000u64,
        ) {
            let header: [u8; HEADER_BYTES] = garbage.try_into().unwrap();
            if let Ok(layout) = parse_header(&header, file_bytes, SMALL) {
                prop_assert!(layout.pixels_offset + 60 <= file_bytes);
            }
        }

        #[test]
        fn the_fast_conversion_equals_the_obvious_one(pixels in prop::collection::vec(any::<[u8; 4]>(), 0..40)) {
            let mut rgb = vec![0; pixels.len() * RGB_BYTES];
            bgrx_to_rgb(pixels.as_flattened(), &mut rgb);
            let obvious: Vec<u8> = pixels.iter().flat_map(|p| [p[2], p[1], p[0]]).collect();
            prop_assert_eq!(rgb, obvious);
        }
    }
}
