//! A decoded picture.

use std::io::Cursor;

use png::{ColorType, Decoder, Transformations};
use roost_tests::Result;

/// Red, green and blue of each pixel, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    width_px: u32,
    height_px: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// Reads a PNG; an alpha channel is left out.
    ///
    /// # Errors
    /// When it is no PNG in colours.
    pub(crate) fn decode(png: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(Cursor::new(png));
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let mut reader = decoder.read_info()?;
        let mut bytes = vec![0; reader.output_buffer_size().ok_or("the picture is too large")?];
        let info = reader.next_frame(&mut bytes)?;
        bytes.truncate(info.buffer_size());
        let rgb = match info.color_type {
            ColorType::Rgb => bytes,
            ColorType::Rgba => bytes.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
            other => return Err(format!("the picture has {other:?} pixels, expected colours").into()),
        };
        Ok(Self { width_px: info.width, height_px: info.height, rgb })
    }

    /// Width and height, in pixels.
    pub(super) fn size_px(&self) -> (u32, u32) {
        (self.width_px, self.height_px)
    }

    /// Whether all pixels are equal.
    pub(crate) fn is_blank(&self) -> bool {
        let mut pixels = self.rgb.chunks_exact(3);
        let first = pixels.next();
        pixels.all(|pixel| Some(pixel) == first)
    }

    /// The pixels as an X server of depth 24 on a little-endian machine keeps
    /// them: blue, green, red, unused.
    pub(super) fn to_bgrx(&self) -> Vec<u8> {
        self.rgb.chunks_exact(3).flat_map(|pixel| [pixel[2], pixel[1], pixel[0], 0]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(color: ColorType, data: &[u8]) -> Vec<u8> {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        png
    }

    #[test]
    fn the_same_pixels_are_the_same_picture_with_alpha_and_without() {
        let plain = Picture::decode(&encode(ColorType::Rgb, &[1, 2, 3, 4, 5, 6])).unwrap();
        let alpha = Picture::decode(&encode(ColorType::Rgba, &[1, 2, 3, 255, 4, 5, 6, 255])).unwrap();
        assert_eq!(plain, alpha);
        assert_eq!(plain.size_px(), (2, 1));
        assert_eq!(plain.to_bgrx(), [3, 2, 1, 0, 6, 5, 4, 0]);
    }

    #[test]
    fn one_colour_is_blank_and_two_are_not() {
        let blank = |data: &[u8]| Picture::decode(&encode(ColorType::Rgb, data)).unwrap().is_blank();
        assert!(blank(&[7, 8, 9, 7, 8, 9]));
        assert!(!blank(&[7, 8, 9, 7, 8, 0]));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(Picture::decode(b"text").is_err());
    }
}
