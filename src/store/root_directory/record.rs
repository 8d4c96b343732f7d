//! The files of a root directory as of its last scan. A file whose record still fits did not change.

use std::collections::HashMap;

use rustix::fs::{FileType, Stat};

use crate::sandbox::{Attributes, FileId};
use crate::tree::{TreePath, Xattrs};

/// The entries of a directory, sorted by name.
pub(super) type DirectoryRecord = Vec<(Box<[u8]>, FileRecord)>;

/// Seconds and nanoseconds.
pub(super) type Time = (i64, u64);

/// Time before a scan in which a change counts as recent, nanoseconds: two ticks of the slowest
/// clock (`CONFIG_HZ=100`).
const RECENT_NS: u64 = 20_000_000;

/// Returns the time from which on changes are recent in a record that is made at `now`.
pub(super) const fn recent_since(now: Time) -> Time {
    match now.1.checked_sub(RECENT_NS) {
        Some(nanoseconds) => (now.0, nanoseconds),
        None => (now.0 - 1, now.1 + 1_000_000_000 - RECENT_NS),
    }
}

/// A file as of the last scan.
#[derive(Debug, Clone)]
pub(super) struct FileRecord {
    id: FileId,
    ctime: Time,
    mtime: Time,
    size: i64,
    /// The attributes that a step sees.
    attributes: Attributes,
    /// True if the file changed so shortly before the scan that a later change may leave the same
    /// times: the kernel's clock for them advances every 10 ms or faster (`CONFIG_HZ`).
    is_recent: bool,
    /// Extended attributes that layers keep, as a step sees them.
    pub(super) xattrs: Option<Box<Xattrs>>,
    /// The entries, if it is a directory.
    pub(super) entries: DirectoryRecord,
}

impl FileRecord {
    /// Records a file without its extended attributes and entries. Changes from `recent` on count as
    /// recent.
    pub(super) const fn new(stat: &Stat, attributes: Attributes, recent: Time) -> Self {
        let ctime = ctime(stat);
        Self {
            id: FileId::of(stat),
            ctime,
            mtime: mtime(stat),
            size: stat.st_size,
            attributes,
            is_recent: ctime.0 > recent.0 || ctime.0 == recent.0 && ctime.1 >= recent.1,
            xattrs: None,
            entries: Vec::new(),
        }
    }

    /// Returns the attributes that a step sees.
    pub(super) const fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Returns whether a step sees a directory.
    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.attributes.mode) == FileType::Directory
    }

    /// Returns whether the file is certainly the same, with the same content. The time of a directory
    /// covers its names, not the files.
    pub(super) fn is_untouched(&self, stat: &Stat, attributes: &Attributes) -> bool {
        !self.is_recent
            && self.id == FileId::of(stat)
            && self.ctime == ctime(stat)
            && self.has_properties(stat, attributes)
    }

    /// Returns whether type, mode, owner, size and time are the same.
    pub(super) fn has_properties(&self, stat: &Stat, attributes: &Attributes) -> bool {
        self.attributes == *attributes && self.size == stat.st_size && self.mtime == mtime(stat)
    }

    /// Returns whether type, mode and owner are the same.
    pub(super) fn has_owner(&self, attributes: &Attributes) -> bool {
        let owner = |it: &Attributes| (it.mode, it.uid, it.gid);
        owner(&self.attributes) == owner(attributes)
    }
}

/// Returns the record of the file at `path`, below the directory with these entries.
pub(super) fn find_mut<'a>(
    mut entries: &'a mut DirectoryRecord,
    path: &TreePath,
) -> Option<&'a mut FileRecord> {
    let mut names = path.names().peekable();
    loop {
        let name = names.next()?;
        let at = entries.binary_search_by(|(own, _)| (**own).cmp(name)).ok()?;
        let (_, record) = entries.get_mut(at)?;
        if names.peek().is_none() {
            return Some(record);
        }
        entries = &mut record.entries;
    }
}

/// Returns the number of files below a directory with these entries; stops counting above `most`.
pub(super) fn count(entries: &DirectoryRecord, most: usize) -> usize {
    let mut n_files = 0_usize;
    let mut open = vec![entries];
    while let Some(entries) = open.pop() {
        n_files = n_files.saturating_add(entries.len());
        if n_files > most {
            break;
        }
        let directories = entries.iter().map(|(_, record)| &record.entries);
        open.extend(directories.filter(|entries| !entries.is_empty()));
    }
    n_files
}

/// Replaces the records of files with several names, wherever those names are. `settled` has them by
/// id, and the state of each.
pub(super) fn settle_names(entries: &mut DirectoryRecord, settled: &HashMap<FileId, FileRecord>) {
    let mut open = vec![entries];
    while let Some(entries) = open.pop() {
        for (_, record) in entries {
            if let Some(settled) = settled.get(&record.id) {
                *record = settled.clone();
            }
            if !record.entries.is_empty() {
                open.push(&mut record.entries);
            }
        }
    }
}

const fn ctime(stat: &Stat) -> Time {
    (stat.st_ctime, stat.st_ctime_nsec)
}

const fn mtime(stat: &Stat) -> Time {
    (stat.st_mtime, stat.st_mtime_nsec)
}
