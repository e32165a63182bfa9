//! Directories of a bounded size.
//!
//! A [`Place`] is a directory whose content may take so many bytes and no
//! more, by the kernel's word: as a project of the file system that carries
//! it, or as a file system of its own in a file beside it. Who uses the place,
//! and for what, is not known here. Nothing is remembered: what a place is
//! made of is read from what lies there, so that another daemon goes on with
//! it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::LimitBy;
use crate::host::{Error, disk, ext4, files, mount, quota};

/// Sizes are whole mebibytes: what a file system loses by less is nothing.
const GRAIN_BYTES: u64 = 1 << 20;
/// Numbers that are tried for a new project.
const PROJECT_ATTEMPTS: u32 = 1000;
/// Bytes of a block in `st_blocks`, whatever the file system: stat(2).
const BLOCK_BYTES: u64 = 512;

/// How the kernel bounds new places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A project of the file system that carries all places.
    ProjectQuota,
    /// An ext4 file system of its own in a sparse file.
    Loop,
}

impl Kind {
    /// `project-quota` or `loop`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProjectQuota => "project-quota",
            Self::Loop => "loop",
        }
    }
}

/// A directory that is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory itself.
    pub dir: PathBuf,
    /// The file of its own file system, where it has one; on the same file
    /// system as `dir`.
    pub image: PathBuf,
}

/// What a place takes and may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// What counts against the limit, in bytes.
    pub used_bytes: u64,
    /// The limit in force, in bytes.
    pub limit_bytes: u64,
    /// What it takes of the disk below, in bytes; removed files that are still
    /// open count.
    pub disk_bytes: u64,
    /// What can be written still, in bytes.
    pub free_bytes: u64,
    /// Files and directories in it; 0 while it is closed.
    pub inodes_used: u64,
    /// Most files and directories; 0 = not limited, or closed.
    pub inodes_limit: u64,
}

/// Makes bounded places.
#[derive(Debug, Clone)]
pub struct Storage {
    kind: Kind,
    /// Empty file systems of the sizes that were asked for, to be copied.
    blanks: PathBuf,
}

impl Storage {
    /// Finds out how places below `root` are bounded, unless the operator
    /// chose. `blanks`: an own directory on the same file system.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or project quota was chosen and is
    /// not enforced there.
    pub fn find(root: &Path, choice: LimitBy, blanks: PathBuf) -> Result<Self, Error> {
        let has_quota = choice != LimitBy::Loop && quota::enforces_projects(root)?;
        let kind = match (choice, has_quota) {
            (LimitBy::Auto | LimitBy::ProjectQuota, true) => Kind::ProjectQuota,
            (LimitBy::Auto, false) | (LimitBy::Loop, _) => Kind::Loop,
            (LimitBy::ProjectQuota, false) => {
                return Err(Error::Unfit(format!(
                    "storage.limit_by is \"project-quota\", and {} enforces none: mount its file system with \
                     prjquota, or choose \"auto\"",
                    root.display()
                )));
            }
        };
        Ok(Self { kind, blanks })
    }

    /// How new places are bounded.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Makes a place ready for use, with what it held before. `project`: a
    /// number that no other place of the file system has at the same time.
    /// One that is open already stays as it is. Takes 10 to 40 ms where a file
    /// system has to be made.
    ///
    /// # Errors
    /// What the host refuses; nothing stays mounted then.
    pub fn open(&self, place: &Place, project: u32, limit_bytes: u64) -> Result<(), Error> {
        let limit_bytes = limit_bytes / GRAIN_BYTES * GRAIN_BYTES;
        files::create_dir(&place.dir, 0o711)?;
        if self.kind == Kind::ProjectQuota && !place.image.exists() {
            quota::mark(&place.dir, project)?;
            return quota::set_limit(&place.dir, project, limit_bytes, limit_bytes / ext4::BYTES_PER_INODE);
        }
        if is_mounted(&place.dir)? {
            return Ok(());
        }
        if !place.image.exists() {
            self.lay_blank(&place.image, limit_bytes)?;
        } else if size_of_file(&place.image)? < limit_bytes {
            ext4::grow_unused(&place.image, limit_bytes)?;
        }
        ext4::mount_image(&place.image, &place.dir)?;
        let opened = files::set_mode(&place.dir, 0o711);
        if opened.is_err() {
            mount::unmount(&place.dir)?;
        }
        opened
    }

    /// Gives an open place a higher limit; returns what is in force, which is
    /// more than asked where it would have to shrink.
    ///
    /// # Errors
    /// What the host refuses; what was in force stays then, and the next
    /// opening tries in another way.
    pub fn raise(&self, place: &Place, limit_bytes: u64) -> Result<u64, Error> {
        let wanted = limit_bytes / GRAIN_BYTES * GRAIN_BYTES;
        if !place.image.exists() {
            let project = quota::project_of(&place.dir)?;
            quota::set_limit(&place.dir, project, wanted, wanted / ext4::BYTES_PER_INODE)?;
            return Ok(limit_bytes);
        }
        let held = size_of_file(&place.image)?;
        if wanted > held {
            ext4::grow_mounted(&place.image, &place.dir, wanted)?;
        }
        Ok(if wanted >= held { limit_bytes } else { held })
    }

    /// What an open place holds; none if it is not there.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn held(&self, place: &Place) -> Result<Option<Held>, Error> {
        if place.image.exists() {
            let facts = std::fs::metadata(&place.image).map_err(|e| Error::path("look at", &place.image, e))?;
            let disk_bytes = facts.blocks().saturating_mul(BLOCK_BYTES);
            let limit_bytes = facts.len();
            if !is_mounted(&place.dir)? {
                // Its file is all that there is.
                let free_bytes = limit_bytes.saturating_sub(disk_bytes);
                let held = Held { used_bytes: disk_bytes, limit_bytes, disk_bytes, free_bytes, ..Held::default() };
                return Ok(Some(held));
            }
            let disk::DiskSpace { used_bytes, free_bytes, inodes, inodes_free, .. } = disk::space(&place.dir)?;
            let inodes_used = inodes.saturating_sub(inodes_free.unwrap_or(inodes));
            return Ok(Some(Held {
                used_bytes,
                limit_bytes,
                disk_bytes,
                free_bytes,
                inodes_used,
                inodes_limit: inodes,
            }));
        }
        let project = if place.dir.exists() { quota::project_of(&place.dir)? } else { 0 };
        if project == 0 {
            return Ok(None);
        }
        let quota::Usage { limit_bytes, used_bytes, inodes_limit, inodes_used } = quota::usage(&place.dir, project)?;
        let free_bytes = limit_bytes.saturating_sub(used_bytes);
        Ok(Some(Held { used_bytes, limit_bytes, disk_bytes: used_bytes, free_bytes, inodes_used, inodes_limit }))
    }

    /// Ends the use of a place; its content stays. Nothing there is success.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn close(&self, place: &Place) -> Result<(), Error> {
        mount::unmount(&place.dir)
    }

    /// Lets the number of a closed place be used by another one. Its files are
    /// the caller's to remove.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn release(&self, place: &Place) -> Result<(), Error> {
        if place.image.exists() || !place.dir.exists() {
            return Ok(());
        }
        match quota::project_of(&place.dir)? {
            0 => Ok(()),
            project => quota::set_limit(&place.dir, project, 0, 0),
        }
    }

    /// One of `numbers` that no project near `dir` has; 0 where places
    /// have file systems of their own.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or none is free.
    pub fn free_project(&self, dir: &Path, numbers: std::ops::Range<u32>) -> Result<u32, Error> {
        if self.kind == Kind::Loop {
            return Ok(0);
        }
        for _ in 0..PROJECT_ATTEMPTS {
            let number = rand::random_range(numbers.clone());
            if quota::usage(dir, number)? == quota::Usage::default() {
                return Ok(number);
            }
        }
        Err(Error::Unfit(format!("no project number from {} to {} is free for a quota", numbers.start, numbers.end)))
    }

    /// A file system is made once for each size and copied: a copy of some
    /// mebibytes is quicker than a program.
    fn lay_blank(&self, image: &Path, bytes: u64) -> Result<(), Error> {
        let blank = self.blanks.join(format!("{}.ext4", bytes / GRAIN_BYTES));
        files::create_dir(&self.blanks, 0o700)?;
        if !blank.exists() {
            let unfinished = self.blanks.join(format!(".{:016x}", rand::random::<u64>()));
            let made = ext4::make(&unfinished, bytes)
                .and_then(|()| std::fs::rename(&unfinished, &blank).map_err(|e| Error::path("rename to", &blank, e)));
            if made.is_err() {
                files::remove_tree(&unfinished)?;
            }
            made?;
        }
        // A copy that was cut off must not pass for a file system.
        let unfinished = image.with_extension("new");
        ext4::copy_sparse(&blank, &unfinished)?;
        std::fs::rename(&unfinished, image).map_err(|e| Error::path("rename to", image, e))
    }
}

fn size_of_file(path: &Path) -> Result<u64, Error> {
    Ok(std::fs::metadata(path).map_err(|e| Error::path("look at", path, e))?.len())
}

/// Whether something is mounted on a directory: it then lies on another file
/// system than the one that holds it.
fn is_mounted(dir: &Path) -> Result<bool, Error> {
    let device = |path: &Path| Ok(std::fs::metadata(path).map_err(|e| Error::path("look at", path, e))?.dev());
    let parent = dir.parent().unwrap_or(dir);
    Ok(dir.exists() && device(dir)? != device(parent)?)
}

#[cfg(test)]
mod tests;
