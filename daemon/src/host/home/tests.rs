use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use super::*;
use crate::host::Error;

fn entries(path: &Path) -> Vec<Found> {
    let mut all = Vec::new();
    let mut keep = |found: Found| {
        all.push(found);
        Ok::<(), Error>(())
    };
    Home::open(path).unwrap().walk(&mut keep).unwrap();
    all
}

/// A tree with one of everything.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(at("a/b")).unwrap();
    std::fs::write(at("a/file"), "content").unwrap();
    std::fs::hard_link(at("a/file"), at("a/b/same")).unwrap();
    symlink("/etc/passwd", at("a/link")).unwrap();
    nix::unistd::mkfifo(&at("a/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut sparse = std::fs::File::create(at("sparse")).unwrap();
    sparse.write_all(b"head").unwrap();
    sparse.seek(SeekFrom::Start(8 << 20)).unwrap();
    sparse.write_all(b"tail").unwrap();
    crate::host::files::chown(&at("a/file"), 1000, 1001).unwrap();
    crate::host::files::set_mode(&at("a/b"), 0o550).unwrap();
    dir
}

/// Copies a tree with what this module has.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let home = Home::open(from)?;
    let mut new = NewHome::begin(to)?;
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for found in entries(from) {
        let Found { path, kind, meta, stamp, .. } = found;
        match kind {
            Kind::Dir => new.dir(&path, meta)?,
            Kind::Link(target) => new.link(&path, &target, &meta)?,
            Kind::Fifo => new.fifo(&path, &meta)?,
            Kind::File => {
                if let Some(first) = first.get(&stamp.inode) {
                    new.hard_link(&path, first)?;
                    continue;
                }
                first.insert(stamp.inode, path.clone());
                let source = home.file(&path)?.unwrap();
                let target = new.file(&path, stamp.size, &meta)?;
                for (offset, len) in data_segments(&source, stamp.size).unwrap() {
                    let mut data = vec![0; usize::try_from(len).unwrap()];
                    source.read_exact_at(&mut data, offset).unwrap();
                    target.write_all_at(&data, offset).unwrap();
                }
                new.finish_file(&path, &meta)?;
            }
            Kind::Socket | Kind::Device => {}
        }
    }
    new.finish()
}

/// Everything but what no copy can have.
fn shape(path: &Path) -> Vec<(PathBuf, Kind, Meta, u64, u64)> {
    entries(path)
        .into_iter()
        .map(|f| {
            let size = if f.kind == Kind::Dir { 0 } else { f.stamp.size };
            (f.path, f.kind.clone(), f.meta, size, if f.kind == Kind::Dir { 0 } else { f.links })
        })
        .collect()
}

#[test]
fn a_copy_has_owners_modes_times_links_hard_links_and_holes() {
    let (from, to) = (tree(), tempfile::tempdir_in("/var/tmp").unwrap());
    copy(from.path(), to.path()).unwrap();
    assert_eq!(shape(to.path()), shape(from.path()));
    let meta = to.path().join("a/b/same").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (1000, 1001, 2));
    let sparse = to.path().join("sparse");
    assert!(sparse.metadata().unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
    let mut text = Vec::new();
    std::fs::File::open(sparse).unwrap().read_to_end(&mut text).unwrap();
    assert!(text.starts_with(b"head") && text.ends_with(b"tail"));
    assert_eq!(std::fs::read_link(to.path().join("a/link")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn attributes_of_users_are_kept_and_those_of_the_host_refused() {
    let (from, to) = (tempfile::tempdir_in("/var/tmp").unwrap(), tempfile::tempdir_in("/var/tmp").unwrap());
    std::fs::write(from.path().join("file"), "").unwrap();
    let dir = std::fs::File::open(from.path()).unwrap();
    attributes::write(&dir, Path::new("file"), &[("user.colour".into(), b"blue".to_vec())]).unwrap();
    copy(from.path(), to.path()).unwrap();
    let read = attributes::read(&std::fs::File::open(to.path()).unwrap(), Path::new("file")).unwrap();
    assert_eq!(read, [("user.colour".to_owned(), b"blue".to_vec())]);
    let hosts = [("security.capability".into(), vec![1])];
    assert_eq!(attributes::write(&dir, Path::new("file"), &hosts), Err(nix::errno::Errno::EPERM));
}

#[test]
fn nothing_is_made_through_a_link_or_out_of_the_tree() {
    let (to, outside) = (tempfile::tempdir_in("/var/tmp").unwrap(), tempfile::tempdir_in("/var/tmp").unwrap());
    let new = NewHome::begin(to.path()).unwrap();
    let meta = Meta { mode: 0o777, ..Meta::default() };
    new.link(Path::new("way"), outside.path(), &meta).unwrap();
    for path in ["way/x", "../x", "/x", "a/../x", ""] {
        assert!(new.file(Path::new(path), 0, &meta).is_err(), "{path}");
        assert!(new.hard_link(Path::new("y"), Path::new(path)).is_err(), "{path}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let strange = Meta { uid: 70_000, ..meta };
    assert!(new.file(Path::new("z"), 0, &strange).unwrap_err().to_string().contains("70000"));
}

#[test]
fn a_file_that_becomes_a_link_is_not_read_through_it() {
    let from = tree();
    symlink("/etc/passwd", from.path().join("sneaky")).unwrap();
    let home = Home::open(from.path()).unwrap();
    assert!(home.file(Path::new("sneaky")).unwrap().is_none());
    assert!(home.file(Path::new("a/fifo")).unwrap().is_none(), "and a FIFO does not block");
    assert!(home.file(Path::new("none")).unwrap().is_none());
}
