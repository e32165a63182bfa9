//! Keeps the kept output of sandboxes within bounds.
//!
//! containerd's shim appends to a file that it holds open, so a file that is
//! full is copied to `<name>.1` and emptied in place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::{Error, blocking};

/// Between two looks at all files.
const PERIOD: Duration = Duration::from_secs(2);

/// Rotates the files below `dir` for ever; each is emptied above `max_bytes`.
pub async fn rotate(dir: PathBuf, max_bytes: u64) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let dir = dir.clone();
        if let Err(error) = blocking(move || rotate_all(&dir, max_bytes)).await {
            tracing::warn!(%error, "logs could not be rotated");
        }
    }
}

fn rotate_all(dir: &Path, max_bytes: u64) -> Result<(), Error> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
    for sandbox in entries(dir).collect::<Vec<_>>() {
        for file in entries(&sandbox).filter(|path| path.extension().is_some_and(|e| e == "log")) {
            // One file must not keep the others from being emptied.
            if let Err(error) = rotate_one(&file, max_bytes) {
                tracing::warn!(%error, "a log could not be rotated");
            }
        }
    }
    Ok(())
}

/// Copies a file that is a little too long whole, so that who follows finds in
/// the copy where it was; after a flood, which outruns the period, its end.
fn rotate_one(path: &Path, max_bytes: u64) -> Result<(), Error> {
    use std::io::{Read, Seek, SeekFrom};
    let error = |e| Error::path("rotate", path, e);
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).map_err(error)?;
    let len = file.metadata().map_err(error)?.len();
    if len <= max_bytes {
        return Ok(());
    }
    let slack = max_bytes / 4;
    let begin = if len > max_bytes.saturating_add(slack) { len - max_bytes } else { 0 };
    file.seek(SeekFrom::Start(begin)).map_err(error)?;
    let older = older(path);
    // To the end, which moves: what is written behind it would be lost.
    let copied = std::fs::File::create(&older)
        .and_then(|mut copy| std::io::copy(&mut (&file).take(max_bytes.saturating_add(2 * slack)), &mut copy))
        .map_err(|e| Error::path("copy to", &older, e));
    // Emptied even if the copy failed: a full disk heals only this way.
    file.set_len(0).map_err(error)?;
    copied.map(drop)
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_keeps_its_end_and_is_emptied_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = dir.path().join("sbx");
        std::fs::create_dir(&sandbox).unwrap();
        let path = sandbox.join("workload.log");
        std::fs::write(&path, "0123456789").unwrap();
        let mut writer = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        rotate_all(dir.path(), 4).unwrap();
        std::io::Write::write_all(&mut writer, b"new").unwrap();
        assert_eq!(std::fs::read_to_string(sandbox.join("workload.log.1")).unwrap(), "6789");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_log_that_is_a_little_too_long_keeps_its_places_for_who_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workload.log");
        std::fs::write(&path, "0123456789").unwrap();
        rotate_one(&path, 8).unwrap();
        assert_eq!(std::fs::read_to_string(older(&path)).unwrap(), "0123456789");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_small_log_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sbx")).unwrap();
        let path = dir.path().join("sbx/display.log");
        std::fs::write(&path, "0123").unwrap();
        rotate_all(dir.path(), 4).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0123");
        assert!(!older(&path).exists());
    }
}
