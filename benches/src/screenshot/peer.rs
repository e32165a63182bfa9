//! `scrot` before an X server of its own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use roost_tests::process::Process;
use roost_tests::{Result, eventually};
use tokio::process::Command;

use super::picture::Picture;

/// How long the X server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Where Debian installs the server.
const XVFB: &str = "/usr/bin/Xvfb";
/// Where Debian installs the program.
const SCROT: &str = "/usr/bin/scrot";
/// Bytes of one colour map entry in an XWD file.
const COLOR_BYTES: u64 = 12;
/// Offset of the number of colours in the header of an XWD file.
const COLORS_OFFSET: u64 = 19 * 4;

/// A screen with a given content; server and files go with their owner.
#[derive(Debug)]
pub(super) struct Peer {
    _server: Process,
    display: String,
    file: PathBuf,
}

impl Peer {
    /// The first program that is missing on this machine.
    pub(super) fn missing() -> Option<&'static str> {
        [XVFB, SCROT].into_iter().find(|path| !Path::new(path).exists())
    }

    /// Starts a server below `dir` that shows `picture`.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) async fn start(dir: &Path, picture: &Picture) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (width_px, height_px) = picture.size_px();
        let (screen, frames) = (format!("{width_px}x{height_px}x24"), dir.display().to_string());
        let arguments = ["-displayfd", "1", "-screen", "0", &screen, "-fbdir", &frames];
        // No reset: it would clear the screen when scrot leaves.
        let arguments = [&arguments[..], &["-nolisten", "tcp", "-noreset", "-extension", "GLX"]].concat();
        let mut server = Process::start(Path::new(XVFB), &arguments, &dir.join("xvfb.log"))?;
        let number =
            eventually("Xvfb tells its display number", START_LIMIT, || {
                let (is_running, output) = (server.is_running(), server.output());
                async move {
                    if is_running { Ok(display_number(&output)) } else { Err(format!("Xvfb ended: {output}").into()) }
                }
            })
            .await?;
        paint(&dir.join("Xvfb_screen0"), picture)?;
        Ok(Self { _server: server, display: format!(":{number}"), file: dir.join("scrot.png") })
    }

    /// Runs `scrot` once.
    ///
    /// # Errors
    /// When it fails.
    pub(super) async fn shoot(&self) -> Result<()> {
        let mut command = Command::new(SCROT);
        command.arg("--overwrite").arg(&self.file).env("DISPLAY", &self.display).kill_on_drop(true);
        let output = command.output().await?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("scrot failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
    }

    /// The last picture, PNG.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn last(&self) -> Result<Vec<u8>> {
        std::fs::read(&self.file).map_err(|e| format!("{}: {e}", self.file.display()).into())
    }
}

/// The line that is a number only: warnings of the server stand beside it.
fn display_number(output: &str) -> Option<u32> {
    // The last line may be half written.
    let (whole, _) = output.rsplit_once('\n')?;
    whole.lines().find_map(|line| line.parse().ok())
}

/// Writes the pixels into the file that the server draws into.
fn paint(path: &Path, picture: &Picture) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let pixels = picture.to_bgrx();
    let offset = u64::from(header_word(&file, 0)?) + u64::from(header_word(&file, COLORS_OFFSET)?) * COLOR_BYTES;
    let (has, needs) = (file.metadata()?.len(), offset + u64::try_from(pixels.len())?);
    if has < needs {
        return Err(format!("the framebuffer has {has} bytes, the picture needs {needs}").into());
    }
    Ok(file.write_all_at(&pixels, offset)?)
}

/// A number of the XWD header, which is big-endian.
fn header_word(file: &File, offset: u64) -> Result<u32> {
    let mut word = [0; 4];
    file.read_exact_at(&mut word, offset)?;
    Ok(u32::from_be_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_display_number_is_found_among_warnings_once_its_line_is_whole() {
        assert_eq!(display_number("warning: a key 4\n12\n"), Some(12));
        assert_eq!(display_number("1"), None);
        assert_eq!(display_number("warning: a key 4\n1"), None);
    }
}
