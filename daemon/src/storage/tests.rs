use std::io::{ErrorKind, Seek, SeekFrom, Write};

use super::*;
use crate::host::loop_device::LoopDevice;

const MIB: u64 = 1 << 20;

/// A place under a temporary root; unmounted with its owner.
struct Trial {
    storage: Storage,
    place: Place,
    root: tempfile::TempDir,
}

impl Trial {
    fn new(choice: LimitBy) -> Self {
        // On a disk: an image on a tmpfs would not show what a host has.
        let base = std::env::var_os("ROOST_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let root = tempfile::tempdir_in(base).unwrap();
        let storage = Storage::find(root.path(), choice, root.path().join("blanks")).unwrap();
        let place = Place { dir: root.path().join("place"), image: root.path().join("place.img") };
        Self { storage, place, root }
    }

    fn file(&self, name: &str) -> std::fs::File {
        std::fs::File::create(self.place.dir.join(name)).unwrap()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _closed = self.storage.close(&self.place);
    }
}

/// Writes until it is refused; how much went in, and why no more.
fn fill(file: &mut std::fs::File, most: u64) -> (u64, Option<ErrorKind>) {
    let piece = vec![7; 1 << 20];
    let mut written = 0;
    while written < most {
        if let Err(error) = file.write_all(&piece).and_then(|()| file.sync_data()) {
            return (written, Some(error.kind()));
        }
        written += MIB;
    }
    (written, None)
}

/// Whether these tests have CAP_SYS_RESOURCE, without which the kernel
/// resizes no file system that is mounted.
fn may_resize() -> bool {
    let status = procfs::process::Process::myself().unwrap().status().unwrap();
    status.capeff & 1 << 24 != 0
}

fn is_full(kind: Option<ErrorKind>) -> bool {
    matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

#[test]
fn a_place_takes_its_limit_and_no_more() {
    let trial = Trial::new(LimitBy::Auto);
    trial.storage.open(&trial.place, 70_000, 128 * MIB).unwrap();
    let (written, refused) = fill(&mut trial.file("fill"), 256 * MIB);
    assert!(is_full(refused), "{refused:?} after {written} bytes");
    assert!((100 * MIB..128 * MIB).contains(&written), "{written}");
    let held = trial.storage.held(&trial.place).unwrap().unwrap();
    assert_eq!(held.limit_bytes, 128 * MIB);
    assert!(held.used_bytes >= written && held.disk_bytes >= written, "{held:?}");
}

#[test]
fn removed_files_that_are_open_count_and_come_back_when_they_are_closed() {
    let trial = Trial::new(LimitBy::Loop);
    trial.storage.open(&trial.place, 70_001, 128 * MIB).unwrap();
    let mut hidden = trial.file("hidden");
    std::fs::remove_file(trial.place.dir.join("hidden")).unwrap();
    let (written, refused) = fill(&mut hidden, 256 * MIB);
    assert!(is_full(refused), "{refused:?} after {written} bytes");
    assert!(trial.storage.held(&trial.place).unwrap().unwrap().disk_bytes >= 100 * MIB);
    hidden.set_len(0).unwrap();
    hidden.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(fill(&mut hidden, 64 * MIB), (64 * MIB, None));
}

#[test]
fn a_closed_place_is_opened_again_with_what_it_held() {
    let trial = Trial::new(LimitBy::Loop);
    for limit in [64 * MIB, 64 * MIB, 96 * MIB] {
        trial.storage.open(&trial.place, 70_002, limit).unwrap();
        let name = format!("kept-{limit}");
        trial.file(&name).write_all(b"kept").unwrap();
        assert!(trial.place.dir.join(format!("kept-{}", 64 * MIB)).exists());
        trial.storage.close(&trial.place).unwrap();
        assert!(!trial.place.dir.join(&name).exists(), "it is closed");
    }
    assert_eq!(trial.storage.held(&trial.place).unwrap().unwrap().limit_bytes, 96 * MIB, "it grew at its opening");
}

#[test]
fn an_open_place_grows_while_files_are_open_and_does_not_shrink() {
    let trial = Trial::new(LimitBy::Loop);
    trial.storage.open(&trial.place, 70_003, 64 * MIB).unwrap();
    let mut file = trial.file("fill");
    let (before, _) = fill(&mut file, 256 * MIB);
    if !may_resize() {
        let error = trial.storage.raise(&trial.place, 192 * MIB).unwrap_err().to_string();
        assert!(error.contains("CAP_SYS_RESOURCE"), "{error}");
        assert_eq!(trial.storage.held(&trial.place).unwrap().unwrap().limit_bytes, 64 * MIB, "as it was");
        return;
    }
    assert_eq!(trial.storage.raise(&trial.place, 192 * MIB).unwrap(), 192 * MIB);
    file.seek(SeekFrom::Start(before)).unwrap();
    let (more, refused) = fill(&mut file, 256 * MIB);
    assert!(is_full(refused) && (96 * MIB..192 * MIB).contains(&(before + more)), "{before} and {more}");
    assert_eq!(trial.storage.raise(&trial.place, 64 * MIB).unwrap(), 192 * MIB);
}

#[test]
fn opening_twice_mounts_once_and_closing_leaves_no_device() {
    let trial = Trial::new(LimitBy::Loop);
    for _ in 0..2 {
        trial.storage.open(&trial.place, 70_004, 64 * MIB).unwrap();
    }
    assert_eq!(mount::mounts_under(trial.root.path()).unwrap(), std::slice::from_ref(&trial.place.dir));
    trial.storage.close(&trial.place).unwrap();
    assert!(mount::mounts_under(trial.root.path()).unwrap().is_empty());
    let freed = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        LoopDevice::of(&trial.place.image).unwrap().is_none()
    });
    assert!(freed, "its loop device is free");
    trial.storage.close(&trial.place).unwrap();
}

#[test]
fn an_empty_place_takes_little_of_the_disk_whatever_its_limit() {
    let trial = Trial::new(LimitBy::Loop);
    trial.storage.open(&trial.place, 70_005, 100 << 30).unwrap();
    let held = trial.storage.held(&trial.place).unwrap().unwrap();
    assert_eq!(held.limit_bytes, 100 << 30);
    assert!(held.disk_bytes < 64 * MIB, "{held:?}");
}

#[test]
fn project_quota_that_is_not_there_is_refused_with_the_fix() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let error = Storage::find(dir.path(), LimitBy::ProjectQuota, dir.path().join("b")).unwrap_err().to_string();
    assert!(error.contains("prjquota") && error.contains("auto"), "{error}");
    assert_eq!(Storage::find(dir.path(), LimitBy::Auto, dir.path().join("b")).unwrap().kind(), Kind::Loop);
}
