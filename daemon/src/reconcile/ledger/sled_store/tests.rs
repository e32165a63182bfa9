//! What is left of a ledger after a crash in the middle of a write, after
//! damage, after a full disk, and of an earlier daemon's.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use roost_proto::id::SandboxId;
use roost_proto::model::PoolSpec;

use super::*;
use crate::reconcile::ledger::record::tests::record;
use crate::reconcile::startup::is_broken;

/// What a disk holds at once or not at all.
const SECTOR: usize = 512;
/// Seeds of the runs; a failure names its own.
const SEEDS: std::ops::Range<u64> = 0..4;

/// Every file of a directory.
type Image = BTreeMap<String, Vec<u8>>;
/// What a ledger tells, to be compared.
type Told = (BTreeMap<SandboxId, (Record, Progress)>, u64, Vec<PoolSpec>);

/// Files of tests lie in memory: sled syncs hundreds of times.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn image(dir: &Path) -> Image {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|e| e.file_type().unwrap().is_file());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

fn lay(image: &Image) -> tempfile::TempDir {
    let dir = tempdir();
    for (name, content) in image {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn told(contents: Contents) -> Told {
    let records = contents.records.into_iter().map(|(r, p)| (r.desired.id.clone(), (r, p))).collect();
    (records, contents.central_generation, contents.pools)
}

/// What a daemon that starts on an image reads.
fn read(image: &Image) -> Result<Told, LedgerError> {
    let dir = lay(image);
    let mut store = SledStore::open(dir.path())?;
    store.load().map(told)
}

/// Some change: new, changed and removed sandboxes of all sizes.
fn change(rng: &mut StdRng, ids: &mut Vec<SandboxId>, step: u64) -> Change {
    let mut sized = record();
    let size = if rng.random_bool(0.2) { 40_000 } else { rng.random_range(0..900) };
    Arc::make_mut(&mut sized.desired).spec.env.insert("PAD".into(), "x".repeat(size));
    let known = (!ids.is_empty()).then(|| rng.random_range(0..ids.len()));
    match (rng.random_range(0..6), known) {
        (0, Some(index)) => Change::Remove(ids.swap_remove(index)),
        (1 | 2, Some(index)) => {
            let progress = Progress { restarts_done: step, ..Progress::default() };
            Change::Progress(ids[index].clone(), Box::new(progress))
        }
        (3, Some(index)) => {
            let desired = Arc::make_mut(&mut sized.desired);
            (desired.id, desired.generation) = (ids[index].clone(), step);
            Change::Put(Box::new(sized))
        }
        (4, _) => Change::CentralGeneration(step),
        _ => {
            ids.push(sized.desired.id.clone());
            Change::Put(Box::new(sized))
        }
    }
}

/// Commits some changes and calls `each` with the files and the content
/// before and after every one of them.
fn write(
    seed: u64,
    commits: u64,
    mut each: impl FnMut(&mut StdRng, (&Image, &Told), (&Image, &Told)),
) -> (Image, Told) {
    let (mut rng, mut ids) = (StdRng::seed_from_u64(seed), Vec::new());
    let dir = tempdir();
    let mut store = SledStore::open(dir.path()).unwrap();
    let mut before = (image(dir.path()), told(store.load().unwrap()));
    for step in 1..=commits {
        store.commit(&[change(&mut rng, &mut ids, step)]).unwrap();
        let after = (image(dir.path()), told(store.load().unwrap()));
        each(&mut rng, (&before.0, &before.1), (&after.0, &after.1));
        before = after;
    }
    before
}

/// `before` with those sectors of `after` that made it to the disk: the first
/// ones, or any.
fn torn(rng: &mut StdRng, before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut disk = before.to_vec();
    disk.resize(after.len().max(before.len()), 0);
    let changed: Vec<usize> = (0..after.len().div_ceil(SECTOR))
        .filter(|i| {
            let range = i * SECTOR..((i + 1) * SECTOR).min(after.len());
            disk[range.clone()] != after[range]
        })
        .collect();
    let (in_order, cut) = (rng.random_bool(0.5), rng.random_range(0..=changed.len()));
    for (place, sector) in changed.into_iter().enumerate() {
        if if in_order { place < cut } else { rng.random_bool(0.5) } {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(after.len());
            disk[range.clone()].copy_from_slice(&after[range]);
        }
    }
    disk
}

#[test]
fn a_crash_anywhere_in_a_commit_leaves_all_of_it_or_nothing() {
    let mut halves = [0, 0];
    for seed in SEEDS {
        write(seed, 40, |rng, (before, told_before), (after, told_after)| {
            for _ in 0..4 {
                let mut disk = before.clone();
                for (name, content) in after.iter().filter(|(name, _)| *name == "db") {
                    disk.insert(name.clone(), torn(rng, &before[name], content));
                }
                let told = read(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
                assert!(told == *told_before || told == *told_after, "seed {seed}: neither before nor after");
                halves[usize::from(told == *told_after)] += 1;
            }
        });
    }
    assert!(halves.iter().all(|count| *count > 50), "only one of both was tried: {halves:?}");
}

/// Reads a damaged image: all that was acknowledged, or the word that it is
/// broken.
fn is_seen(image: &Image, acknowledged: &Told, what: &str) -> bool {
    match read(image) {
        Ok(told) => {
            assert!(told == *acknowledged, "{what}: something is missing, and nothing was said");
            false
        }
        Err(error) => {
            assert!(is_broken(&error), "{what}: {error:?} would not be rebuilt");
            true
        }
    }
}

#[test]
fn a_log_that_is_cut_is_whole_or_said_to_be_broken() {
    for seed in SEEDS {
        let (image, acknowledged) = write(seed, 60, |_, _, _| {});
        let whole = &image["db"];
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        let mut rng = StdRng::seed_from_u64(seed);
        let tail = (0..24).map(|i| used.saturating_sub(i * 97));
        let anywhere: Vec<usize> = (0..40).map(|_| rng.random_range(0..=used)).collect();
        let mut seen = 0;
        for at in tail.chain(anywhere) {
            let cut = Image::from([("db".to_owned(), whole[..at].to_vec())]);
            let cut = image.clone().into_iter().chain(cut).collect();
            seen += u32::from(is_seen(&cut, &acknowledged, &format!("seed {seed}, cut at {at} of {used}")));
        }
        assert!(seen > 30, "seed {seed}: {seen}");
    }
}

#[test]
fn a_log_with_wrong_bytes_is_whole_or_said_to_be_broken() {
    for seed in SEEDS {
        let (image, acknowledged) = write(seed, 60, |_, _, _| {});
        let used = image["db"].iter().rposition(|byte| *byte != 0).unwrap();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut seen = 0;
        for _ in 0..80 {
            let (at, len) = (rng.random_range(0..used), [1, 1, 8, SECTOR, 4096][rng.random_range(0..5)]);
            let kind = rng.random_range(0..3);
            let mut wrong = image.clone();
            for byte in wrong.get_mut("db").unwrap().iter_mut().skip(at).take(len) {
                *byte = match kind {
                    0 => 0,
                    1 => *byte ^ 0x40,
                    _ => rng.random(),
                };
            }
            let what = format!("seed {seed}: {len} bytes at {at} of {used}, kind {kind}");
            seen += u32::from(is_seen(&wrong, &acknowledged, &what));
        }
        assert!(seen > 10, "seed {seed}: {seen}");
    }
}

#[test]
fn a_missing_or_wrong_file_beside_the_log_is_seen_or_does_no_harm() {
    let (image, acknowledged) = write(7, 60, |_, _, _| {});
    for name in image.keys() {
        let without = image.clone().into_iter().filter(|(other, _)| other != name).collect();
        is_seen(&without, &acknowledged, &format!("without {name}"));
        for content in [&b""[..], b"garbage", &image[name][..image[name].len() / 2]] {
            let mut other = image.clone();
            other.insert(name.clone(), content.to_vec());
            is_seen(&other, &acknowledged, &format!("{name} of {} bytes", content.len()));
        }
    }
}

/// As a full disk does: refused writes, and room again later.
#[test]
fn a_full_disk_refuses_until_there_is_room_and_what_was_refused_is_not_there() {
    use crate::host::mount::{Tmpfs, mount_tmpfs, resize_tmpfs, unmount};
    let top = tempdir();
    mount_tmpfs(top.path(), Tmpfs { size_bytes: 6 << 20, mode: 0o700, uid: 0, gid: 0 }).unwrap();
    let dir = top.path().join("ledger");
    let mut store = SledStore::open(&dir).unwrap();
    let sized = || {
        let mut sized = record();
        Arc::make_mut(&mut sized.desired).spec.env.insert("PAD".into(), "x".repeat(60_000));
        sized
    };
    let mut acknowledged = Vec::new();
    let refused = loop {
        let next = sized();
        match store.commit(&[Change::Put(Box::new(next.clone()))]) {
            Ok(()) => acknowledged.push(next),
            Err(error) => break (next, error),
        }
        assert!(acknowledged.len() < 1_000, "the disk is never full");
    };
    assert!(!is_broken(&refused.1), "a full disk is no damage: {:?}", refused.1);
    assert!(store.commit(&[Change::Put(Box::new(sized()))]).is_err(), "it is full still");
    assert!(resize_tmpfs(top.path(), 64 << 20).unwrap());
    let later = record();
    store.commit(&[Change::Put(Box::new(later.clone()))]).unwrap();
    acknowledged.push(later);
    let entry = |r: &Record| (r.desired.id.clone(), (r.clone(), Progress::default()));
    let expected: BTreeMap<_, _> = acknowledged.iter().map(entry).collect();
    assert!(told(store.load().unwrap()).0 == expected, "what was refused is not there");
    drop(store);
    let next = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        SledStore::open(&dir).ok()
    });
    assert!(told(next.unwrap().load().unwrap()).0 == expected);
    unmount(top.path()).unwrap();
}

/// The directory that release 0.1 left with one sandbox, before pools, claims
/// and numbered commits; it never changes.
const LEDGER_0_1: &[u8] = include_bytes!("../golden/ledger-0.1.tar.zst");

#[test]
fn a_ledger_of_an_earlier_daemon_is_read_and_written_on() {
    let dir = tempdir();
    tar::Archive::new(zstd::Decoder::new(LEDGER_0_1).unwrap()).unpack(dir.path()).unwrap();
    let mut store = SledStore::open(dir.path()).unwrap();
    let contents = store.load().unwrap();
    let [(record, progress)] = contents.records.as_slice() else { panic!("{:?}", contents.records) };
    assert_eq!((record.desired.id.as_str(), record.first_id), ("sbx-0123456789abcdef", 1 << 20));
    assert_eq!(record.desired.binding, None);
    assert_eq!((progress.starts, contents.central_generation, contents.pools.len()), (3, 12, 0));
    store.commit(&[Change::CentralGeneration(13)]).unwrap();
    assert_eq!(store.mark.durable(), 1);
    assert_eq!(store.load().unwrap().central_generation, 13);
}
