use std::io::Write;

use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

/// An archive of regular files and links: `link` is a target or empty.
fn archive(entries: &[(&str, EntryType, &str, &[u8])]) -> File {
    let mut builder = Builder::new(Vec::new());
    for &(path, kind, link, data) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        // The library refuses hostile paths: write them as they are.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    file(&builder.into_inner().unwrap())
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn plain<'a>(path: &'a str, data: &'a [u8]) -> (&'a str, EntryType, &'a str, &'a [u8]) {
    (path, EntryType::Regular, "", data)
}

fn refusal(entries: &[(&str, EntryType, &str, &[u8])]) -> String {
    Entries::read(&archive(entries)).unwrap_err().to_string()
}

fn text(file: &File, extent: Extent) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(extent.size_bytes).unwrap()];
    file.read_exact_at(&mut bytes, extent.offset).unwrap();
    bytes
}

#[test]
fn files_are_found_where_they_lie() {
    let long = format!("blobs/{}", "x".repeat(200));
    let mut builder = Builder::new(Vec::new());
    for (path, data) in [("./oci-layout", b"one".as_slice()), (&long, b"two"), ("empty", b"")] {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, data).unwrap();
    }
    let file = file(&builder.into_inner().unwrap());
    let entries = Entries::read(&file).unwrap();
    assert_eq!(text(&file, entries.find("oci-layout").unwrap()), b"one");
    assert_eq!(text(&file, entries.find(&long).unwrap()), b"two");
    assert_eq!(entries.find("empty").unwrap().size_bytes, 0);
    assert_eq!(entries.find("blobs"), None);
}

#[test]
fn links_lead_to_files_of_the_archive() {
    let file = archive(&[
        plain("a/layer.tar", b"layer"),
        ("b/layer.tar", EntryType::Symlink, "../a/layer.tar", b""),
        ("c/layer.tar", EntryType::Link, "b/layer.tar", b""),
    ]);
    let entries = Entries::read(&file).unwrap();
    assert_eq!(text(&file, entries.find("c/layer.tar").unwrap()), b"layer");
}

#[test]
fn links_that_turn_in_circles_or_lead_nowhere_find_nothing() {
    let file = archive(&[
        ("a", EntryType::Symlink, "b", b""),
        ("b", EntryType::Symlink, "a", b""),
        ("c", EntryType::Symlink, "d", b""),
    ]);
    let entries = Entries::read(&file).unwrap();
    assert_eq!((entries.find("a"), entries.find("c")), (None, None));
}

#[test]
fn paths_and_links_that_leave_the_archive_are_refused() {
    assert!(refusal(&[plain("../etc/passwd", b"x")]).contains("contains \"..\""));
    assert!(refusal(&[plain("a/../../b", b"x")]).contains("contains \"..\""));
    assert!(refusal(&[plain("/etc/passwd", b"x")]).contains("absolute"));
    assert!(refusal(&[("a", EntryType::Symlink, "/etc/passwd", b"")]).contains("inside the archive"));
    assert!(refusal(&[("a/b", EntryType::Symlink, "../../c", b"")]).contains("inside the archive"));
}

#[test]
fn one_path_twice_is_refused_however_it_is_spelled() {
    assert!(refusal(&[plain("index.json", b"a"), plain("./index.json", b"b")]).contains("there twice"));
    assert!(refusal(&[plain("a//b", b"a"), plain("a/b", b"b")]).contains("there twice"));
}

#[test]
fn devices_and_pipes_are_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        assert!(refusal(&[("dev/x", kind, "", b"")]).contains("only files"), "{kind:?}");
    }
}

#[test]
fn an_archive_cut_off_inside_a_file_or_header_is_refused() {
    let whole = archive(&[plain("a", &[7; 2000]), plain("b", b"x")]);
    for length in [600, 1024 + 512, 512 + 2048 + 100] {
        let cut = whole.try_clone().unwrap();
        cut.set_len(length).unwrap();
        assert!(Entries::read(&cut).is_err(), "{length}");
        whole.set_len(10_000).unwrap();
    }
}

#[test]
fn packed_archives_are_named_with_the_tool_that_unpacks_them() {
    let error = Entries::read(&file(&[0x1f, 0x8b, 8, 0, 0, 0, 0])).unwrap_err();
    assert!(error.to_string().contains("gunzip"), "{error}");
    let error = Entries::read(&file(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0])).unwrap_err();
    assert!(error.to_string().contains("unzstd"), "{error}");
}

#[test]
fn text_and_noise_are_no_archive() {
    assert!(matches!(Entries::read(&file(&[b'x'; 4096])), Err(ArchiveError::NotTar(_))));
    assert!(matches!(Entries::read(&file(b"<html>")), Err(ArchiveError::NotTar(_))));
    assert!(Entries::read(&file(b"")).unwrap().by_path.is_empty());
}

#[test]
fn a_long_name_of_gigabytes_is_not_taken_into_memory() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(4 << 30);
    header.set_cksum();
    let file = file(header.as_bytes());
    file.set_len(5 << 30).unwrap();
    let error = Entries::read(&file).unwrap_err();
    let ArchiveError::NotTar(source) = error else { panic!("{error}") };
    assert!(source.to_string().contains("larger than 64 KiB"), "{source}");
}

#[test]
fn sizes_that_overflow_are_refused() {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[0] = b'a';
    header.set_size(u64::MAX - 511);
    header.set_cksum();
    assert!(Entries::read(&file(header.as_bytes())).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_point_outside(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let length = bytes.len() as u64;
        if let Ok(entries) = Entries::read(&file(&bytes)) {
            for entry in entries.by_path.values() {
                if let Entry::File(extent) = entry {
                    prop_assert!(extent.offset + extent.size_bytes <= length);
                }
            }
        }
    }

    #[test]
    fn no_path_resolves_to_one_that_climbs(base in "[a-z./]{0,12}", path in "[a-z./]{0,20}") {
        if let Some(resolved) = resolve(&base, &path) {
            prop_assert!(!resolved.starts_with('/'));
            prop_assert!(resolved.split('/').all(|part| part != ".." && part != "."));
        }
    }
}
