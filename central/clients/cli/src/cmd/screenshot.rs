//! `roost sandbox screenshot`.

use std::path::{Path, PathBuf};

use super::App;
use crate::cli::ScreenshotArgs;
use crate::error::CliError;
use crate::output::human;

/// Saves what a sandbox shows.
///
/// # Errors
/// See [`CliError`]; a picture is not written to a terminal.
pub(super) async fn run(app: &App, args: ScreenshotArgs) -> Result<(), CliError> {
    let is_stdout = args.output.as_deref() == Some(Path::new("-"));
    if is_stdout && app.console.has_stdout_terminal {
        let hint = "name a file with -o, or send the output somewhere: … -o - > screen.png";
        return Err(CliError::usage("a picture on a terminal is noise", hint));
    }
    let png = app.client()?.screenshot(&args.sandbox).await?;
    if is_stdout {
        return Ok(app.console.raw(&png)?);
    }
    let path = args.output.unwrap_or_else(|| PathBuf::from(format!("{}.png", args.sandbox)));
    std::fs::write(&path, &png).map_err(|source| CliError::File { operation: "write", path: path.clone(), source })?;
    let bytes = u64::try_from(png.len()).unwrap_or(u64::MAX);
    let size = dimensions(&png).map(|(width, height)| format!("{width}x{height}, ")).unwrap_or_default();
    Ok(app.console.line(&format!("{} ({size}{})", path.display(), human::size(bytes)))?)
}

/// Width and height of a PNG in pixels, from its first chunk.
fn dimensions(png: &[u8]) -> Option<(u32, u32)> {
    let number = |range: std::ops::Range<usize>| png.get(range)?.try_into().ok().map(u32::from_be_bytes);
    (png.get(12..16)? == b"IHDR").then_some(())?;
    Some((number(16..20)?, number(20..24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_picture_is_in_its_head() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend(1280_u32.to_be_bytes());
        png.extend(800_u32.to_be_bytes());
        assert_eq!(dimensions(&png), Some((1280, 800)));
        assert_eq!(dimensions(b"GIF89a"), None);
    }
}
