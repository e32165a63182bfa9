use std::io::Write;

use tar::{Builder, EntryType, Header};

use super::*;

const LIMITS: UnpackLimits = UnpackLimits { max_bytes: 1 << 20, max_files: 8, reserve_bytes: 0 };

/// A tar of one entry, written without the checks of the tar library.
fn tar(kind: EntryType, path: &str, link: &str) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..path.len()].copy_from_slice(path.as_bytes());
    gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, io::empty()).unwrap();
    builder.into_inner().unwrap()
}

fn found(bytes: &[u8]) -> Result<Used, Finding> {
    look(bytes, Packing::Plain, LIMITS, Used::default())
}

fn problem(kind: EntryType, path: &str, link: &str) -> &'static str {
    match found(&tar(kind, path, link)) {
        Err(Finding::Entry { problem, .. }) => problem,
        other => panic!("{path}: {other:?}"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn paths_and_links_that_leave_the_image_are_refused() {
    assert!(problem(EntryType::Regular, "/etc/passwd", "").contains("absolute"));
    assert!(problem(EntryType::Regular, "a/../../etc/passwd", "").contains("out of the image"));
    assert!(problem(EntryType::Regular, "..", "").contains("out of the image"));
    assert!(problem(EntryType::Regular, "a/.wh...", "").contains("removes no name"));
    assert!(problem(EntryType::Link, "a", "/etc/shadow").contains("hard link"));
    assert!(problem(EntryType::Link, "a", "../../etc/shadow").contains("hard link"));
}

/// Looks through a tar of several entries.
fn looked(entries: &[(EntryType, &str, &str)]) -> Result<Used, Finding> {
    let mut bytes = Vec::new();
    for (kind, path, link) in entries {
        let one = tar(*kind, path, link);
        bytes.extend_from_slice(&one[..one.len() - 1024]);
    }
    bytes.extend_from_slice(&[0; 1024]);
    found(&bytes)
}

#[test]
fn links_that_climb_above_the_root_are_accepted_and_not_written_through() {
    use EntryType::{Directory, Link, Regular, Symlink};
    let climbing = (Symlink, "run/x", "../../../etc");
    assert!(looked(&[climbing, (Regular, "run/xy", ""), (Regular, "run/y/x", "")]).is_ok());
    for write in [(Regular, "run/x/passwd", ""), (Regular, "./run//x/./a", ""), (Link, "copy", "run/x/shadow")] {
        let refused = looked(&[climbing, write]);
        let is_told = matches!(refused, Err(Finding::Entry { problem, .. }) if problem.contains("leads through"));
        assert!(is_told, "{write:?}: {refused:?}");
    }
    // A link that stays inside may be written through, and one that was
    // replaced is none any more.
    assert!(looked(&[(Symlink, "bin", "usr/bin"), (Regular, "bin/sh", "")]).is_ok());
    assert!(looked(&[climbing, (Directory, "run/x/", ""), (Regular, "run/x/a", "")]).is_ok());
}

#[test]
fn not_more_climbing_links_than_can_be_remembered() {
    let names: Vec<String> = (0..5000).map(|n| format!("l{n}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (EntryType::Symlink, name.as_str(), "../x")).collect();
    let many = UnpackLimits { max_files: 1 << 20, max_bytes: 1 << 30, ..LIMITS };
    let mut bytes: Vec<u8> = Vec::new();
    for (kind, path, link) in &entries {
        let one = tar(*kind, path, link);
        bytes.extend_from_slice(&one[..one.len() - 1024]);
    }
    let refused = look(&*bytes, Packing::Plain, many, Used::default());
    assert!(matches!(refused, Err(Finding::Entry { problem, .. }) if problem.contains("4096")), "{refused:?}");
}

/// Looks at a layer with one device.
fn device(kind: EntryType, path: &str, major: u32, minor: u32) -> Result<Used, Finding> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(path).unwrap();
    header.set_size(0);
    header.set_device_major(major).unwrap();
    header.set_device_minor(minor).unwrap();
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, io::empty()).unwrap();
    found(&builder.into_inner().unwrap())
}

#[test]
fn devices_are_refused_and_whiteouts_are_not() {
    for (kind, path, major, minor) in [
        (EntryType::Block, "dev/sda", 8, 0),
        (EntryType::Block, "dev/null", 1, 3),
        (EntryType::Char, "dev/mem", 1, 1),
        (EntryType::Char, "srv/null", 1, 3),
        (EntryType::Char, "dev/deep/null", 1, 3),
    ] {
        let looked = device(kind, path, major, minor);
        assert!(matches!(looked, Err(Finding::Entry { problem, .. }) if problem.contains("device")), "{path}");
    }
    assert!(device(EntryType::Char, "gone", 0, 0).is_ok());
    assert!(found(&tar(EntryType::Regular, "a/.wh.b", "")).is_ok());
    assert!(found(&tar(EntryType::Regular, "a/.wh..wh..opq", "")).is_ok());
}

#[test]
fn the_devices_of_a_debian_root_file_system_are_accepted() {
    assert!(device(EntryType::Char, "./dev/console", 5, 1).is_ok());
    assert!(device(EntryType::Char, "dev/null", 1, 3).is_ok());
}

#[test]
fn what_images_have_is_accepted() {
    assert!(found(&tar(EntryType::Symlink, "./bin", "usr/bin")).is_ok());
    assert!(found(&tar(EntryType::Symlink, "etc/mtab", "../proc/mounts")).is_ok());
    assert!(found(&tar(EntryType::Symlink, "etc/alternatives/x", "/usr/bin/x")).is_ok());
    assert!(found(&tar(EntryType::Directory, "./", "")).is_ok());
    assert!(found(&tar(EntryType::Link, "b", "a/b")).is_ok());
    assert!(found(&tar(EntryType::Fifo, "run/fifo", "")).is_ok());
}

#[test]
fn a_few_kilobytes_that_become_gigabytes_are_refused() {
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(64 << 20);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, io::repeat(0).take(64 << 20)).unwrap();
    let bomb = gzip(&builder.into_inner().unwrap());
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(look(&*bomb, Packing::Gzip, LIMITS, Used::default()), Err(Finding::Bytes)));
    // Zeros behind the end of the tar are no files, and yet are unpacked.
    let hidden = gzip(&[tar(EntryType::Regular, "a", ""), vec![0; 64 << 20]].concat());
    assert!(matches!(look(&*hidden, Packing::Gzip, LIMITS, Used::default()), Err(Finding::Bytes)));
}

#[test]
fn layers_share_the_limits_of_their_image() {
    let one = tar(EntryType::Regular, "a", "");
    let before = Used { bytes: 0, files: LIMITS.max_files };
    assert!(matches!(look(&*one, Packing::Plain, LIMITS, before), Err(Finding::Files)));
    assert_eq!(found(&one).unwrap(), Used { bytes: 0, files: 1 });
}

#[test]
fn an_extended_header_of_any_size_is_not_held_in_memory() {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_path("x").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    let bytes = io::Read::chain(&header.as_bytes()[..], io::repeat(b'x'));
    let limits = UnpackLimits { max_bytes: 1 << 50, ..LIMITS };
    assert!(matches!(look(bytes, Packing::Plain, limits, Used::default()), Err(Finding::Unreadable(_))));
}
