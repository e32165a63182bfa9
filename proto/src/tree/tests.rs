//! Trees through archives and back, and archives that mean harm.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::*;
use crate::model::CopyReport;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn pack(top: &Path, name: &str) -> (CopyReport, Vec<u8>) {
    let mut packer = Packer::new(Vec::new(), 0);
    packer.add(open_top(top, false).unwrap().as_fd(), Path::new(name)).unwrap();
    packer.finish().unwrap()
}

fn unpack_at(archive: &[u8], path: &Path, may_rename: bool) -> Result<CopyReport, TreeError> {
    let target = Target::local(path, may_rename)?;
    unpack(archive, &target, Rules::default(), &mut |_| ())
}

/// Kind, name, link and content.
type Entry<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

/// An archive of entries as they are, however wrong.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (kind, name, link, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_mtime(5);
        header.set_uid(7);
        header.set_size(content.len() as u64);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Everything below a directory: path, kind, mode, time, content or target.
fn facts(top: &Path) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
    let mut all = Vec::new();
    let mut left = vec![top.to_path_buf()];
    while let Some(path) = left.pop() {
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_symlink() {
            std::fs::read_link(&path).unwrap().into_os_string().as_bytes().to_vec()
        } else if meta.is_file() {
            std::fs::read(&path).unwrap()
        } else {
            left.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            Vec::new()
        };
        all.push((path.strip_prefix(top).unwrap().into(), meta.mode(), meta.mtime(), content));
    }
    all.sort();
    all
}

fn set_time(path: &Path, seconds: i64) {
    let time = nix::sys::time::TimeSpec::new(seconds, 0);
    let follow = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, follow).unwrap();
}

#[test]
fn a_tree_with_odd_names_links_and_modes_comes_back_as_it_was() {
    let (from, to) = (dir(), dir());
    let tree = from.path().join("tree");
    let deep = tree.join("a".repeat(120)).join("b".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join(OsStr::from_bytes(b"\xff\n\"odd name\" ")), "odd").unwrap();
    std::fs::write(tree.join("-rf"), vec![7; 600_000]).unwrap();
    std::fs::write(tree.join("empty"), "").unwrap();
    std::fs::hard_link(tree.join("-rf"), tree.join("again")).unwrap();
    symlink("..//./x/", tree.join("dangling")).unwrap();
    symlink("l".repeat(300), tree.join("long")).unwrap();
    std::fs::create_dir(tree.join("closed")).unwrap();
    std::fs::write(tree.join("closed/in"), "in").unwrap();
    for (path, mode) in [("-rf", 0o640), ("empty", 0o400), ("closed", 0o500)] {
        std::fs::set_permissions(tree.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for (number, name) in ["-rf", "empty", "dangling", "long", "closed", ""].iter().enumerate() {
        set_time(&tree.join(name), 1_000_000 + i64::try_from(number).unwrap());
    }
    let (report, bytes) = pack(&tree, "tree");
    assert_eq!((report.files, report.directories, report.links), (4, 4, 3), "{report:?}");
    assert_eq!(report.problems, []);
    let unpacked = unpack_at(&bytes, to.path(), true).unwrap();
    assert_eq!((unpacked.files, unpacked.directories, unpacked.links), (4, 4, 3));
    assert_eq!(unpacked.bytes, report.bytes);
    let strip = |all: Vec<(PathBuf, u32, i64, Vec<u8>)>| {
        // The long ones have the present time.
        all.into_iter().filter(|(path, ..)| !path.starts_with("a".repeat(120))).collect::<Vec<_>>()
    };
    assert_eq!(strip(facts(&to.path().join("tree"))), strip(facts(&tree)));
    let odd = to.path().join(deep.strip_prefix(from.path()).unwrap()).join(OsStr::from_bytes(b"\xff\n\"odd name\" "));
    assert_eq!(std::fs::read(odd).unwrap(), b"odd");
    let twins = ["tree/-rf", "tree/again"].map(|name| to.path().join(name).metadata().unwrap().ino());
    assert_eq!(twins[0], twins[1], "one file with two names");
    // Once more over itself: nothing temporary is left, links included.
    unpack_at(&bytes, to.path(), true).unwrap();
    assert_eq!(facts(&to.path().join("tree")).len(), facts(&tree).len());
}

#[test]
fn the_target_is_what_cp_would_make_of_it() {
    let (from, to) = (dir(), dir());
    std::fs::create_dir(from.path().join("d")).unwrap();
    std::fs::write(from.path().join("d/f"), "f").unwrap();
    let (tree, file) = (pack(&from.path().join("d"), "d").1, pack(&from.path().join("d/f"), "f").1);
    let content = pack(&from.path().join("d"), ".").1;
    let at = |name: &str| to.path().join(name);
    unpack_at(&tree, &at("new"), true).unwrap();
    assert_eq!(std::fs::read(at("new/f")).unwrap(), b"f");
    unpack_at(&tree, &at("new"), true).unwrap();
    assert!(at("new/d/f").exists());
    unpack_at(&content, &at("content"), true).unwrap();
    unpack_at(&content, &at("content"), true).unwrap();
    assert_eq!(std::fs::read_dir(at("content")).unwrap().count(), 1);
    unpack_at(&file, &at("name"), true).unwrap();
    unpack_at(&file, &at("name"), true).unwrap();
    assert_eq!(std::fs::read(at("name")).unwrap(), b"f");
    assert!(matches!(unpack_at(&tree, &at("name"), true), Err(TreeError::Refused { .. })), "a file is in its place");
    assert!(matches!(unpack_at(&file, &at("no/such"), true), Err(TreeError::NotFound(path)) if path == at("no")));
    assert!(matches!(unpack_at(&file, &at("no/"), true), Err(TreeError::NotFound(_))));
    assert!(matches!(unpack_at(&file, &at("name/"), true), Err(TreeError::NotADirectory(_))));
    assert!(matches!(unpack_at(&file, &at("no"), false), Err(TreeError::NotFound(_))));
    let both = archive(&[(EntryType::Regular, "a", "", b"a"), (EntryType::Regular, "b", "", b"b")]);
    assert!(matches!(unpack_at(&both, &at("one"), true), Err(TreeError::Refused { .. })));
    unpack_at(&both, &at("content"), false).unwrap();
    assert!(unpack_at(&file, &at("new"), true).is_ok() && at("new/f").is_file());
}

#[test]
fn nothing_is_written_outside_of_the_target_whatever_the_archive_says() {
    use EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    let outside = dir();
    let kept = outside.path().join("kept");
    std::fs::write(&kept, "kept").unwrap();
    let away = outside.path().to_str().unwrap();
    let absolute = format!("{away}/evil");
    let evil: &[&[Entry<'_>]] = &[
        &[(Regular, "../evil", "", b"x")],
        &[(Regular, "a/../../evil", "", b"x")],
        &[(Regular, &absolute, "", b"x")],
        &[(Symlink, "l", away, b""), (Regular, "l/evil", "", b"x")],
        &[(Symlink, "l", "..", b""), (Directory, "l", "", b""), (Regular, "l/evil", "", b"x")],
        &[(Symlink, "l", away, b""), (Link, "h", "l/kept", b"")],
        &[(Symlink, "l", "../kept", b""), (Link, "h", "l", b"")],
        &[(Link, "h", "../kept", b"")],
        &[(Link, "h", kept.to_str().unwrap(), b"")],
        &[(Directory, "d", "", b""), (Link, "h", "d", b"")],
        &[(Fifo, "f", "", b"")],
        &[(Char, "c", "", b"")],
        &[(Block, "b", "", b"")],
        &[(EntryType::new(b'Z'), "z", "", b"")],
        &[(Regular, ".", "", b"x")],
        &[(Directory, "d", "", b""), (Regular, "d", "", b"x")],
    ];
    for entries in evil {
        let target = outside.path().join("target");
        std::fs::create_dir(&target).unwrap();
        let result = unpack_at(&archive(entries), &target, false);
        let names: Vec<_> = entries.iter().map(|entry| entry.1).collect();
        assert!(matches!(result, Err(TreeError::Refused { .. })), "{names:?}: {result:?}");
        let left = facts(outside.path()).into_iter().map(|(path, ..)| path).filter(|path| !path.starts_with("target"));
        assert_eq!(left.collect::<Vec<_>>(), ["", "kept"].map(PathBuf::from), "{names:?}");
        assert_eq!(std::fs::read(&kept).unwrap(), b"kept");
        assert!(!facts(&target).iter().any(|(path, ..)| path.to_string_lossy().contains(".roost-")), "{names:?}");
        std::fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn a_link_in_a_files_place_is_replaced_and_set_id_bits_are_kept_for_their_owner_alone() {
    let to = dir();
    std::fs::write(to.path().join("kept"), "kept").unwrap();
    symlink("kept", to.path().join("f")).unwrap();
    let mut program = archive(&[(EntryType::Regular, "f", "", b"new")]);
    program[100..107].copy_from_slice(b"0006755");
    let mut header = Header::from_byte_slice(&program[..512]).clone();
    header.set_cksum();
    program[..512].copy_from_slice(header.as_bytes());
    unpack_at(&program, to.path(), false).unwrap();
    assert_eq!(std::fs::read(to.path().join("kept")).unwrap(), b"kept");
    let mode = || to.path().join("f").symlink_metadata().unwrap().mode();
    assert_eq!(mode() & 0o177_777, 0o100_755);
    let target = Target::local(to.path(), false).unwrap();
    unpack(&program[..], &target, Rules { set_id_of: Some(7) }, &mut |_| ()).unwrap();
    assert_eq!(mode() & 0o7777, 0o6755);
}

#[test]
fn an_archive_that_is_cut_anywhere_leaves_whole_files_and_an_error() {
    let content = [vec![1; 700], vec![0; 2000]].concat();
    let whole = archive(&[(EntryType::Regular, "a", "", &content), (EntryType::Regular, "b", "", &content)]);
    for length in (0..whole.len()).step_by(100).chain([512, 1024, whole.len() - 512, whole.len() - 1024]) {
        let to = dir();
        let result = unpack_at(&whole[..length], to.path(), false);
        // Of the end mark one block is enough: nothing else is missing then.
        let is_whole = length >= whole.len() - 512;
        assert!(is_whole || matches!(result, Err(TreeError::Archive(_))), "{length} of {}: {result:?}", whole.len());
        for (path, _, _, found) in facts(to.path()).into_iter().skip(1) {
            assert_eq!((path.to_str(), found == content), (path.to_str(), true), "{length}");
            assert!(["a", "b"].contains(&path.to_str().unwrap()), "{path:?}");
        }
    }
    let to = dir();
    let trailing = [whole.clone(), vec![0; 9216]].concat();
    unpack_at(&trailing, to.path(), false).unwrap();
}

/// Reads some of an archive, then breaks as a connection does.
struct Breaking<'a>(&'a [u8]);

impl std::io::Read for Breaking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            return Err(std::io::Error::other("reset"));
        }
        self.0.read(buffer)
    }
}

#[test]
fn a_sender_that_is_gone_is_told_from_a_wrong_archive() {
    let to = dir();
    let whole = archive(&[(EntryType::Regular, "a", "", &[1; 2000])]);
    let target = Target::local(to.path(), false).unwrap();
    let result = unpack(Breaking(&whole[..1200]), &target, Rules::default(), &mut |_| ());
    assert!(matches!(result, Err(TreeError::Input(_))), "{result:?}");
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
    let garbage = unpack_at(&[7; 4096], to.path(), false);
    assert!(matches!(garbage, Err(TreeError::Archive(_))), "{garbage:?}");
}

#[test]
fn holes_stay_holes_on_both_sides() {
    let (from, to) = (dir(), dir());
    let file = std::fs::File::create(from.path().join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"end", (64 << 20) - 3).unwrap();
    let (_, bytes) = pack(&from.path().join("sparse"), "sparse");
    unpack_at(&bytes, to.path(), true).unwrap();
    let meta = to.path().join("sparse").metadata().unwrap();
    assert_eq!(meta.len(), 64 << 20);
    assert!(meta.blocks() * 512 < 2 << 20, "{} blocks", meta.blocks());
}

/// A sink in the middle of which something is done.
struct Interfering<F: FnMut(usize)>(Vec<u8>, F);

impl<F: FnMut(usize)> std::io::Write for Interfering<F> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.extend(data);
        (self.1)(self.0.len());
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_grows_is_cut_and_one_that_shrinks_is_named() {
    for (change, is_problem) in [(2_000_000_u64, true), (9_000_000, false)] {
        let (from, to) = (dir(), dir());
        let path = from.path().join("log");
        std::fs::write(&path, vec![7; 4_000_000]).unwrap();
        let mut is_changed = false;
        let sink = Interfering(Vec::new(), |written| {
            if written > 500_000 && !is_changed {
                is_changed = true;
                std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(change).unwrap();
            }
        });
        let mut packer = Packer::new(sink, 0);
        packer.add(open_top(&path, false).unwrap().as_fd(), Path::new("log")).unwrap();
        let (report, sink) = packer.finish().unwrap();
        assert_eq!(report.problem_count, u64::from(is_problem), "{report:?}");
        unpack_at(&sink.0, to.path(), true).unwrap();
        let copy = std::fs::read(to.path().join("log")).unwrap();
        assert_eq!(copy.len(), 4_000_000);
        assert_eq!(copy[3_999_999], if is_problem { 0 } else { 7 });
    }
}

#[test]
fn a_directory_that_is_swapped_for_a_link_leads_nowhere() {
    let (to, outside) = (dir(), dir());
    let entries = archive(&[
        (EntryType::Directory, "d", "", b""),
        (EntryType::Regular, "d/one", "", b"1"),
        (EntryType::Regular, "d/two", "", b"2"),
    ]);
    let target = Target::local(to.path(), false).unwrap();
    let (d, moved) = (to.path().join("d"), to.path().join("moved"));
    let mut is_swapped = false;
    unpack(&entries[..], &target, Rules::default(), &mut |report| {
        if report.files == 1 && !is_swapped {
            is_swapped = true;
            std::fs::rename(&d, &moved).unwrap();
            symlink(outside.path(), &d).unwrap();
        }
    })
    .unwrap();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(std::fs::read(moved.join("two")).unwrap(), b"2");
    // Found as a link from the beginning, it is refused.
    let result = unpack_at(&entries, to.path(), false);
    assert!(matches!(result, Err(TreeError::Refused { .. })), "{result:?}");
}

#[test]
fn what_is_no_file_is_named_and_the_rest_is_packed() {
    let from = dir();
    let _socket = std::os::unix::net::UnixListener::bind(from.path().join("socket")).unwrap();
    nix::unistd::mkfifo(&from.path().join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    std::fs::write(from.path().join("file"), "x").unwrap();
    let (report, _) = pack(from.path(), ".");
    assert_eq!((report.files, report.problem_count), (1, 2), "{report:?}");
    let (report, bytes) = pack(Path::new("/proc/version"), "version");
    assert_eq!(
        report.bytes,
        std::fs::read("/proc/version").unwrap().len() as u64,
        "it says of itself that it is empty"
    );
    assert!(bytes.len() >= 1024);
    let opened: Result<OwnedFd, _> = open_top(Path::new("/no/such"), false);
    assert!(matches!(opened, Err(TreeError::NotFound(_))));
}
