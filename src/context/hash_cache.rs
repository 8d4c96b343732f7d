//! Caches the digests of files between builds, so that a file is read again only after a change.
//!
//! A file is unchanged if path, device, inode, size, mtime and ctime are the same. That is not
//! enough for a file that changed just before it was hashed: a second change within the clock tick
//! of the file system leaves no trace. Such files are not cached. Git does the same with "racily
//! clean" entries (<https://git-scm.com/docs/racy-git>).
//!
//! The cache stays on disk, one record per directory, since a million files take a hundred
//! megabytes. A record of the last build is read with its directory. The record of this build is
//! written when the directory was read.

mod record;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use tempfile::SpooledTempFile;

use crate::pool;
use crate::tree::{ContentHash, TreePath, Xattrs};

use record::{CacheFile, RecordLocation};

/// Clock tick of file systems with whole seconds. FAT has two.
const COARSE_TICK_NS: i64 = 2_000_000_000;
/// Clock tick of file systems with fractions: the kernel's timer, 100 Hz at worst, with a margin.
const FINE_TICK_NS: i64 = 100_000_000;
/// Maximum number of files kept of directories that this build did not read, unless it read more.
const MAX_UNUSED: u64 = 10_000;
/// Size in bytes from which new records are kept on disk.
const SPILL_BYTES: usize = 1024 * 1024;

/// The metadata that identify a version of a file (inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
}

/// The content of a file: its digest and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileContent {
    pub(super) content: ContentHash,
    pub(super) xattrs: Option<Box<Xattrs>>,
}

/// Files of a directory by name.
type Files = BTreeMap<Box<[u8]>, (Stamp, FileContent)>;

/// Digests of files, from an earlier build and from this one.
#[derive(Debug)]
pub struct HashCache {
    now_ns: i64,
    old: CacheFile,
    /// Results of this build, from all threads of a walk. `None` if nothing is to be cached.
    new: Option<Mutex<NewHashes>>,
    /// The directory of the last lookup of a single file, so that a pattern with many matches in
    /// one directory reads its record once.
    last: Mutex<Option<(TreePath, Files)>>,
}

/// New digests of this build.
#[derive(Debug)]
struct NewHashes {
    /// Records of directories of which at least one file was read.
    records: SpooledTempFile,
    n_bytes: u64,
    places: BTreeMap<Box<[u8]>, RecordLocation>,
    /// Files that steps refer to one by one, by directory.
    single: BTreeMap<Box<[u8]>, Files>,
}

/// The cached record of a directory that is being read, and its new record.
#[derive(Debug)]
pub(super) struct DirectoryHashes {
    old: Vec<u8>,
    /// Number of bytes of `old` before the next name.
    n_done: usize,
    new: Vec<u8>,
    n_files: u64,
    /// True if a file was read that can be cached.
    has_new_entries: bool,
}

impl HashCache {
    /// Creates a cache that stores nothing, for files that no later build sees again.
    #[must_use]
    pub fn none() -> Self {
        Self { now_ns: 0, old: CacheFile::default(), new: None, last: Mutex::default() }
    }

    /// Opens the cache that an earlier build wrote to `old` (see [`HashCache::write`]). A damaged
    /// file counts as empty: the cache only saves time. `now_ns` is the time in nanoseconds since
    /// 1970, `spill` a directory for records that exceed the memory limit.
    #[must_use]
    pub fn new(old: Option<File>, now_ns: i64, spill: &Path) -> Self {
        let new = NewHashes {
            records: tempfile::spooled_tempfile_in(SPILL_BYTES, spill),
            n_bytes: 0,
            places: BTreeMap::new(),
            single: BTreeMap::new(),
        };
        let old = old.and_then(CacheFile::open).unwrap_or_default();
        Self { now_ns, old, new: Some(Mutex::new(new)), last: Mutex::default() }
    }

    /// Returns whether this build added entries, so that the file has to be written.
    #[must_use]
    pub fn has_new_entries(&self) -> bool {
        self.lock_new().is_some_and(|new| !new.places.is_empty() || !new.single.is_empty())
    }

    /// Writes the file for the next build.
    ///
    /// # Errors
    /// Errors of the sink, and of the temporary file with spilled records.
    pub fn write(&self, sink: &mut dyn Write) -> io::Result<()> {
        let Some(mut new) = self.lock_new() else { return Ok(()) };
        let NewHashes { records, places, single, .. } = &mut *new;
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
        let (used, unused) = self.old.directories(|directory| {
            !places.contains_key(directory) && !single.contains_key(directory)
        });
        used.into_iter()
            .try_for_each(|(directory, place)| self.keep(&mut out, directory, place))?;
        let mut n_left = MAX_UNUSED.max(out.n_files());
        for (directory, place) in unused {
            let Some(left) = n_left.checked_sub(place.n_files) else { continue };
            n_left = left;
            self.keep(&mut out, directory, place)?;
        }
        out.finish()
    }

    fn keep(
        &self,
        out: &mut record::Writer<'_>,
        directory: &[u8],
        place: RecordLocation,
    ) -> io::Result<()> {
        // An unreadable record is dropped.
        let Some(bytes) = self.old.read(directory) else { return Ok(()) };
        out.directory(directory, place.n_files, &mut &*bytes)
    }

    /// Returns the cached record of `directory`, all of whose files will be looked up.
    pub(super) fn directory(&self, directory: &TreePath) -> DirectoryHashes {
        let old = self.old.read_used(directory.as_bytes()).unwrap_or_default();
        DirectoryHashes { old, n_done: 0, new: Vec::new(), n_files: 0, has_new_entries: false }
    }

    /// Stores the directory's new record, after all its files were looked up.
    pub(super) fn finish(
        &self,
        directory: &TreePath,
        directory_hashes: &DirectoryHashes,
    ) -> io::Result<()> {
        let Some(mut new) = self.lock_new().filter(|_| directory_hashes.has_new_entries) else {
            return Ok(());
        };
        let n_bytes = u64::try_from(directory_hashes.new.len()).unwrap_or(u64::MAX);
        let place = RecordLocation { at: new.n_bytes, n_bytes, n_files: directory_hashes.n_files };
        new.records.write_all(&directory_hashes.new)?;
        new.n_bytes += n_bytes;
        new.places.insert(directory.as_bytes().into(), place);
        Ok(())
    }

    /// Adds a file to the directory's new record. `was_read` tells whether it was not cached.
    pub(super) fn add(
        &self,
        directory_hashes: &mut DirectoryHashes,
        name: &[u8],
        (stamp, file_content): (&Stamp, &FileContent),
        was_read: bool,
    ) {
        if self.new.is_some() && self.is_settled(stamp) {
            record::write(&mut directory_hashes.new, name, stamp, file_content);
            directory_hashes.n_files += 1;
            directory_hashes.has_new_entries |= was_read;
        }
    }

    /// Returns the cached content of the single file at `path`, if it is unchanged.
    pub(super) fn get(&self, path: &TreePath, stamp: &Stamp) -> Option<FileContent> {
        let directory = path.parent()?;
        let mut last = pool::lock(&self.last);
        if last.as_ref().is_none_or(|(known, _)| *known != directory) {
            let old = self.old.read_used(directory.as_bytes()).unwrap_or_default();
            *last = Some((directory, record::files(&old)));
        }
        let (_, files) = last.as_ref()?;
        let (_, file_content) = files.get(path.name()?).filter(|(known, _)| known == stamp)?;
        Some(file_content.clone())
    }

    /// Caches the content of the single file at `path`.
    pub(super) fn add_single(&self, path: &TreePath, stamp: Stamp, file_content: &FileContent) {
        let (Some(directory), Some(name)) = (path.parent(), path.name()) else { return };
        if let Some(mut new) = self.lock_new().filter(|_| self.is_settled(&stamp)) {
            let files = new.single.entry(directory.as_bytes().into()).or_default();
            files.insert(name.into(), (stamp, file_content.clone()));
        }
    }

    /// Returns whether the file's last change is old enough that a later one would be visible.
    fn is_settled(&self, stamp: &Stamp) -> bool {
        let changed_ns = stamp.mtime_ns.max(stamp.ctime_ns);
        let fine = stamp.ctime_ns % 1_000_000_000 != 0;
        let tick = if fine { FINE_TICK_NS } else { COARSE_TICK_NS };
        changed_ns.saturating_add(tick) < self.now_ns
    }

    fn lock_new(&self) -> Option<MutexGuard<'_, NewHashes>> {
        self.new.as_ref().map(|new| pool::lock(new))
    }
}

impl DirectoryHashes {
    /// Returns the cached content of the file `name`, if it is unchanged. Names must be requested
    /// in order.
    pub(super) fn get(&mut self, name: &[u8], stamp: &Stamp) -> Option<FileContent> {
        let mut rest = record::Reader(self.old.get(self.n_done..)?);
        loop {
            let before = rest.0.len();
            let file = rest.file()?;
            if file.name > name {
                return None;
            }
            self.n_done += before - rest.0.len();
            if file.name == name {
                return (file.stamp == *stamp).then_some(file.file_content);
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

    fn file_content(text: &str) -> FileContent {
        FileContent { content: ContentHash::of(text.as_bytes()), xattrs: None }
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn cache(old: Option<&[u8]>, now_ns: i64) -> HashCache {
        let old = old.map(|bytes| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        });
        HashCache::new(old, now_ns, &std::env::temp_dir())
    }

    fn bytes(cache: &HashCache) -> Vec<u8> {
        let mut bytes = Vec::new();
        cache.write(&mut bytes).unwrap();
        bytes
    }

    /// Looks up these files of a directory, reading the unknown ones. Returns the names of those.
    fn walk(cache: &HashCache, directory: &str, files: &[(&str, i64)]) -> String {
        let mut read = Vec::new();
        let mut of_directory = cache.directory(&path(directory));
        for (name, time_ns) in files {
            let known = of_directory.get(name.as_bytes(), &stamp(*time_ns));
            let was_read = known.is_none();
            read.extend(was_read.then_some(*name));
            let file_content = known.unwrap_or_else(|| file_content(name));
            assert_eq!(file_content.content, ContentHash::of(name.as_bytes()));
            cache.add(
                &mut of_directory,
                name.as_bytes(),
                (&stamp(*time_ns), &file_content),
                was_read,
            );
        }
        cache.finish(&path(directory), &of_directory).unwrap();
        read.join(" ")
    }

    #[test]
    fn cached_digests_outlive_the_build() {
        let first = cache(None, 100 * SECOND);
        assert_eq!(walk(&first, "d", &[("a", 5), ("b", 6)]), "a b");
        assert_eq!(walk(&first, "d/e", &[("a", 7)]), "a");
        let table = bytes(&first);
        let second = cache(Some(&table), 200 * SECOND);
        assert_eq!(walk(&second, "d", &[("a", 5), ("b", 6)]), "");
        assert!(!second.has_new_entries());
        assert_eq!(walk(&second, "d", &[("0", 4), ("a", 9), ("b", 6), ("c", 1)]), "0 a c");
        let third = cache(Some(&bytes(&second)), 200 * SECOND);
        assert_eq!(walk(&third, "d", &[("0", 4), ("a", 9), ("b", 6), ("c", 1)]), "");
        // The directory that the second build did not read is kept.
        assert_eq!(walk(&third, "d/e", &[("a", 7)]), "");
    }

    #[test]
    fn single_files_and_directories_share_records() {
        let xattrs = Xattrs::from([(b"user.a".as_slice().into(), b"1".as_slice().into())]);
        let with_xattrs = FileContent { xattrs: Some(Box::new(xattrs)), ..file_content("a") };
        let first = cache(None, 100 * SECOND);
        first.add_single(&path("d/a"), stamp(5), &with_xattrs);
        let second = cache(Some(&bytes(&first)), 100 * SECOND);
        assert_eq!(second.get(&path("d/a"), &stamp(5)), Some(with_xattrs.clone()));
        assert_eq!(second.get(&path("d/a"), &stamp(6)), None);
        assert_eq!(second.get(&path("d/b"), &stamp(5)), None);
        assert_eq!(walk(&second, "e", &[("x", 1)]), "x");
        second.add_single(&path("d/b"), stamp(7), &file_content("b"));
        let third = cache(Some(&bytes(&second)), 100 * SECOND);
        assert_eq!(walk(&third, "d", &[("a", 5), ("b", 7)]), "");
        assert_eq!(third.get(&path("d/a"), &stamp(5)), Some(with_xattrs));
    }

    #[test]
    fn many_new_records_are_spilled_to_disk() {
        let first = cache(None, 100 * SECOND);
        let names: Vec<String> = (10_000..13_000).map(|name| format!("{name:0100}")).collect();
        let files: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 5)).collect();
        for directory in ["a", "b", "c"] {
            walk(&first, directory, &files);
        }
        let second = cache(Some(&bytes(&first)), 100 * SECOND);
        for directory in ["a", "b", "c"] {
            assert_eq!(walk(&second, directory, &files), "");
        }
    }

    #[test]
    fn files_that_changed_just_now_are_not_cached() {
        let now = 100 * SECOND;
        let kept = |time_ns| {
            let cache = cache(None, now);
            walk(&cache, "", &[("a", time_ns)]);
            cache.has_new_entries()
        };
        assert!(!kept(now - SECOND));
        assert!(kept(now - 3 * SECOND));
        assert!(!kept(now - FINE_TICK_NS / 2));
        assert!(kept(now - SECOND + 1));
        assert!(!kept(now + SECOND));
    }

    #[test]
    fn damaged_cache_counts_as_empty() {
        let first = cache(None, 100 * SECOND);
        walk(&first, "", &[("a", 5)]);
        let table = bytes(&first);
        for cut in 0..table.len() {
            let cut_off = cache(Some(&table[..cut]), 100 * SECOND);
            assert_eq!(cut_off.get(&path("a"), &stamp(5)), None, "{cut}");
        }
        for at in 0..table.len() {
            let mut flipped = table.clone();
            flipped[at] ^= 1;
            let flipped = cache(Some(&flipped), 100 * SECOND);
            assert_eq!(flipped.get(&path("a"), &stamp(5)), None, "{at}");
            assert_eq!(walk(&flipped, "", &[("a", 5)]), "a", "{at}");
        }
        let other = cache(Some(b"something else, and long enough"), 0);
        assert_eq!(other.get(&path("a"), &stamp(5)), None);
    }
}
