//! Attributes of files that the disk cannot hold, because this process may not set them: owners,
//! set-id bits, device numbers, and extended attributes outside the `user.` namespace.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Stat};

/// A file, independent of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device of its file system (stat(2), `st_dev`).
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
}

impl FileId {
    /// Returns the id of the file that `stat` describes.
    #[must_use]
    pub const fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// The attributes of a file as a step sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Type and permissions, as in `st_mode` of stat(2). A device is a regular file on the disk.
    pub mode: u32,
    /// The number of a device (makedev(3)); 0 for other files.
    pub device: u64,
    /// Extended attributes that are not stored on the disk, by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Attributes {
    /// Returns the attributes that the disk holds. All files that this process can create belong to
    /// one user, which stands for user 0.
    #[must_use]
    pub const fn on_disk(stat: &Stat) -> Self {
        Self { uid: 0, gid: 0, mode: stat.st_mode, device: stat.st_rdev, xattrs: BTreeMap::new() }
    }
}

/// The attributes of the files of one rootfs that differ from those on the disk.
#[derive(Debug, Clone, Default)]
pub struct EmulatedFiles {
    files: HashMap<FileId, Attributes>,
    is_changed: bool,
}

impl EmulatedFiles {
    /// Returns the attributes of the file that `stat` describes.
    #[must_use]
    pub fn of(&self, stat: &Stat) -> Attributes {
        self.get(FileId::of(stat)).cloned().unwrap_or_else(|| Attributes::on_disk(stat))
    }

    /// Returns the recorded attributes of a file; `None` if the disk holds them.
    #[must_use]
    pub fn get(&self, file: FileId) -> Option<&Attributes> {
        self.files.get(&file)
    }

    /// Records the attributes of a file.
    pub fn set(&mut self, file: FileId, attributes: Attributes) {
        self.files.insert(file, attributes);
        self.is_changed = true;
    }

    /// Records the attributes of the file at `path` below `directory`; does not follow a link.
    ///
    /// # Errors
    /// The error of fstatat(2).
    pub fn set_at(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &Path,
        attributes: Attributes,
    ) -> rustix::io::Result<()> {
        let stat = rustix::fs::statat(directory, path, AtFlags::SYMLINK_NOFOLLOW)?;
        self.set(FileId::of(&stat), attributes);
        Ok(())
    }

    /// Adds the attributes of other files.
    pub fn extend(&mut self, others: Self) {
        self.files.extend(others.files);
        self.is_changed = true;
    }

    /// Forgets a file that was removed: its inode number may be reused.
    pub fn remove(&mut self, file: FileId) {
        self.is_changed |= self.files.remove(&file).is_some();
    }

    /// Returns whether attributes were changed since [`Self::begin`].
    #[must_use]
    pub const fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Begins to note changes.
    pub const fn begin(&mut self) {
        self.is_changed = false;
    }

    /// Returns whether no attributes are recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}
