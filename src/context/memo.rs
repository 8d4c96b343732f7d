//! Remembers files' digests between builds, so that a file is read again only after a change.
//!
//! A file counts as unchanged while path, device, inode, size, mtime and ctime are the same. That
//! is not enough for one that changed in the instant before it was hashed: a second change within
//! the file system's clock tick would leave no trace. Such files are not remembered, as git does
//! with its "racily clean" entries.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::tree::{ContentHash, Xattrs};

/// The first bytes of the table; its version is part of them.
const MAGIC: &[u8] = b"rbuild/hash-memo/v1\n";
/// A clock tick where times have whole seconds only (FAT has two).
const COARSE_TICK_NS: i64 = 2_000_000_000;
/// A clock tick where they have fractions: the kernel's timer, at worst 100 Hz, and some room.
const FINE_TICK_NS: i64 = 100_000_000;
/// Entries that no walk met are kept up to this number, or as many as were met.
const MAX_UNMET: usize = 10_000;

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

#[derive(Debug)]
struct Remembered {
    stamp: Stamp,
    learned: Learned,
    was_met: AtomicBool,
}

/// What this build learned of a file.
type Fresh = (Stamp, Learned);

/// Digests by path, from an earlier build and this one.
#[derive(Debug)]
pub struct HashMemo {
    now_ns: i64,
    old: HashMap<Box<[u8]>, Remembered>,
    /// Collected under a lock because all threads of a walk add to it.
    new: Mutex<HashMap<Box<[u8]>, Fresh>>,
}

impl HashMemo {
    /// An empty memo; `now_ns` is the time in nanoseconds since 1970.
    #[must_use]
    pub fn new(now_ns: i64) -> Self {
        Self { now_ns, old: HashMap::new(), new: Mutex::new(HashMap::new()) }
    }

    /// Takes a table that [`HashMemo::to_bytes`] made. One that is damaged counts as empty: it
    /// only saves time.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], now_ns: i64) -> Self {
        let mut memo = Self::new(now_ns);
        if let Some(rest) = bytes.strip_prefix(MAGIC) {
            memo.old = Reader(rest).table().unwrap_or_default();
        }
        memo
    }

    /// The table for the next build; `None` when nothing was learned.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let new = self.new.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if new.is_empty() {
            return None;
        }
        let mut met: Vec<(&[u8], &Stamp, &Learned)> =
            new.iter().map(|(path, (stamp, learned))| (&**path, stamp, learned)).collect();
        let mut unmet = Vec::new();
        for (path, old) in self.old.iter().filter(|(path, _)| !new.contains_key(*path)) {
            let list = if old.was_met.load(Ordering::Relaxed) { &mut met } else { &mut unmet };
            list.push((&**path, &old.stamp, &old.learned));
        }
        unmet.sort_unstable_by_key(|(path, ..)| *path);
        unmet.truncate(MAX_UNMET.max(met.len()));
        met.append(&mut unmet);
        met.sort_unstable_by_key(|(path, ..)| *path);
        let mut bytes = MAGIC.to_vec();
        met.iter().for_each(|(path, stamp, learned)| write(&mut bytes, path, stamp, learned));
        Some(bytes)
    }

    /// What is known of the file at `path`, if it did not change.
    pub(super) fn get(&self, path: &[u8], stamp: &Stamp) -> Option<&Learned> {
        let found = self.old.get(path).filter(|old| old.stamp == *stamp)?;
        found.was_met.store(true, Ordering::Relaxed);
        Some(&found.learned)
    }

    /// Whether [`HashMemo::get`] would find something.
    pub(super) fn knows(&self, path: &[u8], stamp: &Stamp) -> bool {
        self.old.get(path).is_some_and(|old| old.stamp == *stamp)
    }

    /// Remembers what was learned of a file, unless it changed too short a time ago.
    pub(super) fn add(&self, path: &[u8], stamp: Stamp, learned: &Learned) {
        let changed_ns = stamp.mtime_ns.max(stamp.ctime_ns);
        let fine = stamp.ctime_ns % 1_000_000_000 != 0;
        let tick = if fine { FINE_TICK_NS } else { COARSE_TICK_NS };
        if changed_ns.saturating_add(tick) >= self.now_ns {
            return;
        }
        let mut new = self.new.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        new.insert(path.into(), (stamp, learned.clone()));
    }
}

fn write(bytes: &mut Vec<u8>, path: &[u8], stamp: &Stamp, learned: &Learned) {
    field(bytes, path);
    for number in [stamp.device, stamp.inode, stamp.size] {
        bytes.extend(number.to_le_bytes());
    }
    for time in [stamp.mtime_ns, stamp.ctime_ns] {
        bytes.extend(time.to_le_bytes());
    }
    bytes.extend(learned.content.as_bytes());
    let xattrs = learned.xattrs.as_deref();
    number(bytes, xattrs.map_or(0, Xattrs::len));
    for (name, value) in xattrs.into_iter().flatten() {
        field(bytes, name);
        field(bytes, value);
    }
}

fn field(bytes: &mut Vec<u8>, text: &[u8]) {
    number(bytes, text.len());
    bytes.extend(text);
}

fn number(bytes: &mut Vec<u8>, number: usize) {
    let number = u32::try_from(number).expect("paths and attributes are shorter than 4 GiB");
    bytes.extend(number.to_le_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn table(mut self) -> Option<HashMap<Box<[u8]>, Remembered>> {
        let mut table = HashMap::new();
        while !self.0.is_empty() {
            let path = self.field()?;
            let stamp = Stamp {
                device: self.u64()?,
                inode: self.u64()?,
                size: self.u64()?,
                mtime_ns: self.i64()?,
                ctime_ns: self.i64()?,
            };
            let content = ContentHash::new(self.array()?);
            let xattrs = self.xattrs()?;
            let learned = Learned { content, xattrs };
            let was_met = AtomicBool::new(false);
            table.insert(path.into(), Remembered { stamp, learned, was_met });
        }
        Some(table)
    }

    fn xattrs(&mut self) -> Option<Option<Box<Xattrs>>> {
        let mut xattrs = Xattrs::new();
        for _ in 0..self.u32()? {
            let name = self.field()?;
            xattrs.insert(name.into(), self.field()?.into());
        }
        Some(if xattrs.is_empty() { None } else { Some(Box::new(xattrs)) })
    }

    fn field(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn stamp(time_ns: i64) -> Stamp {
        Stamp { device: 1, inode: 2, size: 3, mtime_ns: time_ns, ctime_ns: time_ns }
    }

    fn learned(text: &str) -> Learned {
        Learned { content: ContentHash::of(text.as_bytes()), xattrs: None }
    }

    #[test]
    fn what_was_learned_outlives_the_build() {
        let memo = HashMemo::new(100 * SECOND);
        let xattrs = Xattrs::from([(b"user.a".as_slice().into(), b"1".as_slice().into())]);
        let with_xattrs = Learned { xattrs: Some(Box::new(xattrs)), ..learned("x") };
        memo.add(b"a", stamp(5), &with_xattrs);
        memo.add(b"b", stamp(6), &learned("y"));
        let bytes = memo.to_bytes().unwrap();
        let memo = HashMemo::from_bytes(&bytes, 200 * SECOND);
        assert_eq!(memo.get(b"a", &stamp(5)), Some(&with_xattrs));
        assert_eq!(memo.get(b"b", &stamp(6)), Some(&learned("y")));
        assert_eq!(memo.get(b"b", &stamp(5)), None);
        assert_eq!(memo.get(b"c", &stamp(5)), None);
        assert_eq!(memo.to_bytes(), None);
        memo.add(b"c", stamp(7), &learned("z"));
        let both = HashMemo::from_bytes(&memo.to_bytes().unwrap(), 200 * SECOND);
        assert_eq!(both.get(b"a", &stamp(5)), Some(&with_xattrs));
        assert_eq!(both.get(b"c", &stamp(7)), Some(&learned("z")));
    }

    #[test]
    fn files_that_changed_just_now_are_not_remembered() {
        let now = 100 * SECOND;
        let kept = |time_ns| {
            let memo = HashMemo::new(now);
            memo.add(b"a", stamp(time_ns), &learned("x"));
            memo.to_bytes().is_some()
        };
        assert!(!kept(now - SECOND));
        assert!(kept(now - 3 * SECOND));
        assert!(!kept(now - FINE_TICK_NS / 2));
        assert!(kept(now - SECOND + 1));
        assert!(!kept(now + SECOND));
    }

    #[test]
    fn a_damaged_table_counts_as_empty() {
        let memo = HashMemo::new(100 * SECOND);
        memo.add(b"a", stamp(5), &learned("x"));
        let bytes = memo.to_bytes().unwrap();
        for cut in 0..bytes.len() {
            let memo = HashMemo::from_bytes(&bytes[..cut], 0);
            assert_eq!(memo.get(b"a", &stamp(5)), None, "{cut}");
        }
        assert_eq!(HashMemo::from_bytes(b"something else", 0).get(b"a", &stamp(5)), None);
    }
}
