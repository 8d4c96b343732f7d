//! Remembers files' digests between builds, so that a file is read again only after a change.
//!
//! A file counts as unchanged while path, device, inode, size, mtime and ctime are the same. That
//! is not enough for one that changed in the instant before it was hashed: a second change within
//! the file system's clock tick would leave no trace. Such files are not remembered, as git does
//! with its "racily clean" entries.
//!
//! What is remembered stays on the disk, one record a directory: that of the last build is read when
//! the directory is, that of this build is written when the directory has been, since a million files
//! take a hundred megabytes.

mod record;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::SpooledTempFile;

use crate::tree::{ContentHash, TreePath, Xattrs};

use record::{Place, Table};

/// A clock tick where times have whole seconds only (FAT has two).
const COARSE_TICK_NS: i64 = 2_000_000_000;
/// A clock tick where they have fractions: the kernel's timer, at worst 100 Hz, and some space.
const FINE_TICK_NS: i64 = 100_000_000;
/// Files of directories that no walk met are kept up to this number, or as many as were met.
const MAX_UNMET: u64 = 10_000;
/// More than this of what is new goes to the disk.
const SPILL_BYTES: usize = 1024 * 1024;

/// What tells whether a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
}

/// What was learned by opening a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Learned {
    pub(super) content: ContentHash,
    pub(super) xattrs: Option<Box<Xattrs>>,
}

/// Files by name.
type Files = BTreeMap<Box<[u8]>, (Stamp, Learned)>;

/// Digests by path, from an earlier build and this one.
#[derive(Debug)]
pub struct HashMemo {
    now_ns: i64,
    old: Table,
    /// Collected under a lock because all threads of a walk add to it; `None` when nothing is
    /// to be remembered.
    new: Option<Mutex<New>>,
    /// The directory in which a single file was looked for last, so that a pattern that means many
    /// files of one directory reads its record once.
    last: Mutex<Option<(TreePath, Files)>>,
}

/// What this build learned.
#[derive(Debug)]
struct New {
    /// Records of directories of which a file was read.
    records: SpooledTempFile,
    n_bytes: u64,
    places: BTreeMap<Box<[u8]>, Place>,
    /// Files that a step named one by one, by directory.
    single: BTreeMap<Box<[u8]>, Files>,
}

/// What is remembered of a directory that is being read, and what of it is to be next time.
#[derive(Debug)]
pub(super) struct DirectoryMemo {
    old: Vec<u8>,
    /// What of `old` comes before the next name.
    n_done: usize,
    new: Vec<u8>,
    n_files: u64,
    /// Whether a file was read that can be remembered.
    has_learned: bool,
}

impl HashMemo {
    /// A memo that remembers nothing, for files that no later build sees again.
    #[must_use]
    pub fn none() -> Self {
        Self { now_ns: 0, old: Table::default(), new: None, last: Mutex::default() }
    }

    /// What an earlier build wrote to `old` (see [`HashMemo::write`]), to be gone on with; a file
    /// that is damaged counts as empty: it only saves time. `now_ns` is the time in nanoseconds
    /// since 1970; `spill` a directory for what is too much for the memory.
    #[must_use]
    pub fn new(old: Option<File>, now_ns: i64, spill: &Path) -> Self {
        let new = New {
            records: tempfile::spooled_tempfile_in(SPILL_BYTES, spill),
            n_bytes: 0,
            places: BTreeMap::new(),
            single: BTreeMap::new(),
        };
        let old = old.and_then(Table::open).unwrap_or_default();
        Self { now_ns, old, new: Some(Mutex::new(new)), last: Mutex::default() }
    }

    /// Whether there is something for the next build that is not in the file of the last.
    #[must_use]
    pub fn has_learned(&self) -> bool {
        self.lock_new().is_some_and(|new| !new.places.is_empty() || !new.single.is_empty())
    }

    /// Writes the file for the next build.
    ///
    /// # Errors
    /// The sink's, and those of the files for what was too much for the memory.
    pub fn write(&self, sink: &mut dyn Write) -> io::Result<()> {
        let Some(mut new) = self.lock_new() else { return Ok(()) };
        let New { records, places, single, .. } = &mut *new;
        let mut out = record::Writer::new(sink)?;
        for (directory, files) in
            single.iter().filter(|(directory, _)| !places.contains_key(*directory))
        {
            let mut all =
                self.old.read(directory).map(|old| record::files(&old)).unwrap_or_default();
            all.extend(files.clone());
            let mut bytes = Vec::new();
            all.iter().for_each(|(name, (stamp, it))| record::write(&mut bytes, name, stamp, it));
            out.directory(directory, u64::try_from(all.len()).unwrap_or(u64::MAX), &mut &*bytes)?;
        }
        for (directory, place) in places.iter() {
            records.seek(SeekFrom::Start(place.at))?;
            out.directory(
                directory,
                place.n_files,
                &mut io::Read::by_ref(records).take(place.n_bytes),
            )?;
        }
        let (met, unmet) = self.old.directories(|directory| {
            !places.contains_key(directory) && !single.contains_key(directory)
        });
        met.into_iter().try_for_each(|(directory, place)| self.keep(&mut out, directory, place))?;
        let mut n_left = MAX_UNMET.max(out.n_files());
        for (directory, place) in unmet {
            let Some(left) = n_left.checked_sub(place.n_files) else { continue };
            n_left = left;
            self.keep(&mut out, directory, place)?;
        }
        out.finish()
    }

    fn keep(&self, out: &mut record::Writer<'_>, directory: &[u8], place: Place) -> io::Result<()> {
        // What can no longer be read is not remembered.
        let Some(bytes) = self.old.read(directory) else { return Ok(()) };
        out.directory(directory, place.n_files, &mut &*bytes)
    }

    /// What is remembered of the files of `directory`, all of which are going to be looked at.
    pub(super) fn directory(&self, directory: &TreePath) -> DirectoryMemo {
        let old = self.old.meet(directory.as_bytes()).unwrap_or_default();
        DirectoryMemo { old, n_done: 0, new: Vec::new(), n_files: 0, has_learned: false }
    }

    /// Takes the directory's memo back when all its files have been looked at.
    pub(super) fn finish(&self, directory: &TreePath, memo: &DirectoryMemo) -> io::Result<()> {
        let Some(mut new) = self.lock_new().filter(|_| memo.has_learned) else { return Ok(()) };
        let n_bytes = u64::try_from(memo.new.len()).unwrap_or(u64::MAX);
        let place = Place { at: new.n_bytes, n_bytes, n_files: memo.n_files };
        new.records.write_all(&memo.new)?;
        new.n_bytes += n_bytes;
        new.places.insert(directory.as_bytes().into(), place);
        Ok(())
    }

    /// Remembers a file of a directory that is being read; `was_read` says that it had to be.
    pub(super) fn add(
        &self,
        memo: &mut DirectoryMemo,
        name: &[u8],
        (stamp, learned): (&Stamp, &Learned),
        was_read: bool,
    ) {
        if self.new.is_some() && self.is_settled(stamp) {
            record::write(&mut memo.new, name, stamp, learned);
            memo.n_files += 1;
            memo.has_learned |= was_read;
        }
    }

    /// What is known of the single file at `path`, if it did not change.
    pub(super) fn get(&self, path: &TreePath, stamp: &Stamp) -> Option<Learned> {
        let directory = path.parent()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(known, _)| *known != directory) {
            let old = self.old.meet(directory.as_bytes()).unwrap_or_default();
            *last = Some((directory, record::files(&old)));
        }
        let (_, files) = last.as_ref()?;
        let (_, learned) = files.get(path.name()?).filter(|(known, _)| known == stamp)?;
        Some(learned.clone())
    }

    /// Remembers what was learned of the single file at `path`.
    pub(super) fn add_single(&self, path: &TreePath, stamp: Stamp, learned: &Learned) {
        let (Some(directory), Some(name)) = (path.parent(), path.name()) else { return };
        if let Some(mut new) = self.lock_new().filter(|_| self.is_settled(&stamp)) {
            let files = new.single.entry(directory.as_bytes().into()).or_default();
            files.insert(name.into(), (stamp, learned.clone()));
        }
    }

    /// Whether the file changed so long ago that a change since would show.
    fn is_settled(&self, stamp: &Stamp) -> bool {
        let changed_ns = stamp.mtime_ns.max(stamp.ctime_ns);
        let fine = stamp.ctime_ns % 1_000_000_000 != 0;
        let tick = if fine { FINE_TICK_NS } else { COARSE_TICK_NS };
        changed_ns.saturating_add(tick) < self.now_ns
    }

    fn lock_new(&self) -> Option<MutexGuard<'_, New>> {
        self.new.as_ref().map(|new| new.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl DirectoryMemo {
    /// What is known of the file `name`, if it did not change. Names are asked for in order.
    pub(super) fn get(&mut self, name: &[u8], stamp: &Stamp) -> Option<Learned> {
        let mut rest = record::Reader(self.old.get(self.n_done..)?);
        loop {
            let before = rest.0.len();
            let file = rest.file()?;
            if file.name > name {
                return None;
            }
            self.n_done += before - rest.0.len();
            if file.name == name {
                return (file.stamp == *stamp).then_some(file.learned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn stamp(time_ns: i64) -> Stamp {
        Stamp { device: 1, inode: 2, size: 3, mtime_ns: time_ns, ctime_ns: time_ns }
    }

    fn learned(text: &str) -> Learned {
        Learned { content: ContentHash::of(text.as_bytes()), xattrs: None }
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn memo(old: Option<&[u8]>, now_ns: i64) -> HashMemo {
        let old = old.map(|bytes| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        });
        HashMemo::new(old, now_ns, &std::env::temp_dir())
    }

    fn bytes(memo: &HashMemo) -> Vec<u8> {
        let mut bytes = Vec::new();
        memo.write(&mut bytes).unwrap();
        bytes
    }

    /// Goes through a directory with these files, reading those that are not known; gives their names.
    fn walk(memo: &HashMemo, directory: &str, files: &[(&str, i64)]) -> String {
        let mut read = Vec::new();
        let mut of_directory = memo.directory(&path(directory));
        for (name, time_ns) in files {
            let known = of_directory.get(name.as_bytes(), &stamp(*time_ns));
            let was_read = known.is_none();
            read.extend(was_read.then_some(*name));
            let learned = known.unwrap_or_else(|| learned(name));
            assert_eq!(learned.content, ContentHash::of(name.as_bytes()));
            memo.add(&mut of_directory, name.as_bytes(), (&stamp(*time_ns), &learned), was_read);
        }
        memo.finish(&path(directory), &of_directory).unwrap();
        read.join(" ")
    }

    #[test]
    fn what_was_learned_outlives_the_build() {
        let first = memo(None, 100 * SECOND);
        assert_eq!(walk(&first, "d", &[("a", 5), ("b", 6)]), "a b");
        assert_eq!(walk(&first, "d/e", &[("a", 7)]), "a");
        let table = bytes(&first);
        let second = memo(Some(&table), 200 * SECOND);
        assert_eq!(walk(&second, "d", &[("a", 5), ("b", 6)]), "");
        assert!(!second.has_learned());
        assert_eq!(walk(&second, "d", &[("0", 4), ("a", 9), ("b", 6), ("c", 1)]), "0 a c");
        let third = memo(Some(&bytes(&second)), 200 * SECOND);
        assert_eq!(walk(&third, "d", &[("0", 4), ("a", 9), ("b", 6), ("c", 1)]), "");
        // The directory that the second did not meet is kept.
        assert_eq!(walk(&third, "d/e", &[("a", 7)]), "");
    }

    #[test]
    fn single_files_and_directories_know_of_each_other() {
        let xattrs = Xattrs::from([(b"user.a".as_slice().into(), b"1".as_slice().into())]);
        let with_xattrs = Learned { xattrs: Some(Box::new(xattrs)), ..learned("a") };
        let first = memo(None, 100 * SECOND);
        first.add_single(&path("d/a"), stamp(5), &with_xattrs);
        let second = memo(Some(&bytes(&first)), 100 * SECOND);
        assert_eq!(second.get(&path("d/a"), &stamp(5)), Some(with_xattrs.clone()));
        assert_eq!(second.get(&path("d/a"), &stamp(6)), None);
        assert_eq!(second.get(&path("d/b"), &stamp(5)), None);
        assert_eq!(walk(&second, "e", &[("x", 1)]), "x");
        second.add_single(&path("d/b"), stamp(7), &learned("b"));
        let third = memo(Some(&bytes(&second)), 100 * SECOND);
        assert_eq!(walk(&third, "d", &[("a", 5), ("b", 7)]), "");
        assert_eq!(third.get(&path("d/a"), &stamp(5)), Some(with_xattrs));
    }

    #[test]
    fn much_that_is_new_goes_through_the_disk() {
        let first = memo(None, 100 * SECOND);
        let names: Vec<String> = (10_000..13_000).map(|name| format!("{name:0100}")).collect();
        let files: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 5)).collect();
        for directory in ["a", "b", "c"] {
            walk(&first, directory, &files);
        }
        let second = memo(Some(&bytes(&first)), 100 * SECOND);
        for directory in ["a", "b", "c"] {
            assert_eq!(walk(&second, directory, &files), "");
        }
    }

    #[test]
    fn files_that_changed_just_now_are_not_remembered() {
        let now = 100 * SECOND;
        let kept = |time_ns| {
            let memo = memo(None, now);
            walk(&memo, "", &[("a", time_ns)]);
            memo.has_learned()
        };
        assert!(!kept(now - SECOND));
        assert!(kept(now - 3 * SECOND));
        assert!(!kept(now - FINE_TICK_NS / 2));
        assert!(kept(now - SECOND + 1));
        assert!(!kept(now + SECOND));
    }

    #[test]
    fn a_damaged_table_counts_as_empty() {
        let first = memo(None, 100 * SECOND);
        walk(&first, "", &[("a", 5)]);
        let table = bytes(&first);
        for cut in 0..table.len() {
            let cut_off = memo(Some(&table[..cut]), 100 * SECOND);
            assert_eq!(cut_off.get(&path("a"), &stamp(5)), None, "{cut}");
        }
        for at in 0..table.len() {
            let mut flipped = table.clone();
            flipped[at] ^= 1;
            let flipped = memo(Some(&flipped), 100 * SECOND);
            assert_eq!(flipped.get(&path("a"), &stamp(5)), None, "{at}");
            assert_eq!(walk(&flipped, "", &[("a", 5)]), "a", "{at}");
        }
        let other = memo(Some(b"something else, and long enough"), 0);
        assert_eq!(other.get(&path("a"), &stamp(5)), None);
    }
}
