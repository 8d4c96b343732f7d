//! The cache file: records of directories, then their index.
//!
//! Magic and version; for each directory its files in order of their names; the list of the
//! directories, each with its path, and offset, length, number of files and checksum of its record;
//! offset and checksum of that list. Numbers are little endian. Texts are preceded by their length.
//! A record with a wrong checksum counts as missing: its files are hashed again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::tree::{ContentHash, Xattrs};

use super::{FileContent, Files, Stamp};

/// The first bytes of the file, with the format version.
const MAGIC: &[u8] = b"rbuild/hash-memo/v3\n";
/// Maximum size of the list of directories in bytes.
const MAX_LIST_BYTES: u64 = 1 << 30;

/// Length of a checksum in bytes. It detects accidental damage; other users cannot write into a
/// store.
const CHECKSUM_BYTES: usize = 8;
/// Length in bytes of the trailer: offset and checksum of the list.
const END_BYTES: u64 = 16;

/// Checksum of a directory's record, or of the list: a prefix of BLAKE3.
type Checksum = [u8; CHECKSUM_BYTES];

/// Location of a directory's record in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordLocation {
    pub(super) at: u64,
    pub(super) n_bytes: u64,
    pub(super) n_files: u64,
}

/// The cache file of an earlier build.
#[derive(Debug, Default)]
pub(super) struct CacheFile {
    file: Option<File>,
    directories: HashMap<Box<[u8]>, DirectoryRecord>,
}

#[derive(Debug)]
struct DirectoryRecord {
    place: RecordLocation,
    checksum: Checksum,
    was_used: AtomicBool,
}

/// Directories and the locations of their records.
type Directories<'a> = Vec<(&'a [u8], RecordLocation)>;

impl CacheFile {
    /// Reads the list of directories. `None` if the file is damaged or has another format.
    pub(super) fn open(file: File) -> Option<Self> {
        let length = file.metadata().ok()?.len();
        let list_end = length.checked_sub(END_BYTES)?;
        let end = read_at(&file, list_end, END_BYTES)?;
        let mut end = Reader(&end);
        let (list_at, checksum) = (end.u64()?, end.array()?);
        let n_bytes = list_end.checked_sub(list_at).filter(|n_bytes| *n_bytes <= MAX_LIST_BYTES)?;
        if read_at(&file, 0, u64::try_from(MAGIC.len()).ok()?)? != MAGIC {
            return None;
        }
        let list = read_at(&file, list_at, n_bytes).filter(|list| checksum_of(list) == checksum)?;
        let mut list = Reader(&list);
        let mut directories = HashMap::new();
        while !list.0.is_empty() {
            let directory = list.field()?;
            let place =
                RecordLocation { at: list.u64()?, n_bytes: list.u64()?, n_files: list.u64()? };
            if place.at.checked_add(place.n_bytes)? > list_at {
                return None;
            }
            let (checksum, was_used) = (list.array()?, AtomicBool::new(false));
            directories.insert(directory.into(), DirectoryRecord { place, checksum, was_used });
        }
        Some(Self { file: Some(file), directories })
    }

    /// Reads the record of a directory. `None` if it is missing or damaged.
    pub(super) fn read(&self, directory: &[u8]) -> Option<Vec<u8>> {
        let DirectoryRecord { place, checksum, .. } = self.directories.get(directory)?;
        read_at(self.file.as_ref()?, place.at, place.n_bytes)
            .filter(|record| checksum_of(record) == *checksum)
    }

    /// Reads the record of a directory and marks the directory as used.
    pub(super) fn read_used(&self, directory: &[u8]) -> Option<Vec<u8>> {
        self.directories.get(directory)?.was_used.store(true, Ordering::Relaxed);
        self.read(directory)
    }

    /// Returns the directories selected by `wanted`: the used ones, and the others, both sorted.
    pub(super) fn directories(
        &self,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> (Directories<'_>, Directories<'_>) {
        let all = self.directories.iter().map(|(directory, known)| (&**directory, known));
        let mut all: Vec<(&[u8], &DirectoryRecord)> =
            all.filter(|(directory, _)| wanted(directory)).collect();
        all.sort_unstable_by_key(|(directory, _)| *directory);
        let (mut used, mut unused) = (Vec::new(), Vec::new());
        for (directory, known) in all {
            let was_used = known.was_used.load(Ordering::Relaxed);
            if was_used { &mut used } else { &mut unused }.push((directory, known.place));
        }
        (used, unused)
    }
}

fn read_at(file: &File, at: u64, n_bytes: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(n_bytes).ok()?];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn checksum_of(bytes: &[u8]) -> Checksum {
    shortened(&blake3::hash(bytes))
}

fn shortened(hash: &blake3::Hash) -> Checksum {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// A writer that hashes its bytes.
struct HashingWriter<'a> {
    sink: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Write for HashingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.sink.write(bytes)?;
        self.hasher.update(bytes.get(..n_written).unwrap_or(bytes));
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// A writer of the cache file, for the next build.
pub(super) struct Writer<'a> {
    sink: &'a mut dyn Write,
    at: u64,
    list: Vec<u8>,
    n_files: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(sink: &'a mut dyn Write) -> io::Result<Self> {
        sink.write_all(MAGIC)?;
        let at = u64::try_from(MAGIC.len()).unwrap_or(u64::MAX);
        Ok(Self { sink, at, list: Vec::new(), n_files: 0 })
    }

    /// Returns the number of files written so far.
    pub(super) const fn n_files(&self) -> u64 {
        self.n_files
    }

    /// Writes the record of a directory.
    pub(super) fn directory(
        &mut self,
        directory: &[u8],
        n_files: u64,
        record: &mut dyn Read,
    ) -> io::Result<()> {
        let mut hashing = HashingWriter { sink: &mut *self.sink, hasher: blake3::Hasher::new() };
        let n_bytes = io::copy(record, &mut hashing)?;
        let checksum = shortened(&hashing.hasher.finalize());
        field(&mut self.list, directory);
        for number in [self.at, n_bytes, n_files] {
            self.list.extend(number.to_le_bytes());
        }
        self.list.extend(checksum);
        self.at += n_bytes;
        self.n_files += n_files;
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.sink.write_all(&self.list)?;
        self.sink.write_all(&self.at.to_le_bytes())?;
        self.sink.write_all(&checksum_of(&self.list))
    }
}

/// Appends a file to a directory's record.
pub(super) fn write(record: &mut Vec<u8>, name: &[u8], stamp: &Stamp, file_content: &FileContent) {
    field(record, name);
    for number in [stamp.device, stamp.inode, stamp.size] {
        record.extend(number.to_le_bytes());
    }
    for time in [stamp.mtime_ns, stamp.ctime_ns] {
        record.extend(time.to_le_bytes());
    }
    record.extend(file_content.content.as_bytes());
    let xattrs = file_content.xattrs.as_deref();
    number(record, xattrs.map_or(0, Xattrs::len));
    for (name, value) in xattrs.into_iter().flatten() {
        field(record, name);
        field(record, value);
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

/// Parses the files of a record, up to the first invalid one.
pub(super) fn files(record: &[u8]) -> Files {
    let mut reader = Reader(record);
    std::iter::from_fn(|| reader.file())
        .map(|file| (file.name.into(), (file.stamp, file.file_content)))
        .collect()
}

/// An entry of a record: one file.
pub(super) struct FileRecord<'a> {
    pub(super) name: &'a [u8],
    pub(super) stamp: Stamp,
    pub(super) file_content: FileContent,
}

/// A parser of records.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Parses the next file of a record. `None` at its end, or if it is invalid.
    pub(super) fn file(&mut self) -> Option<FileRecord<'a>> {
        let name = self.field()?;
        let stamp = Stamp {
            device: self.u64()?,
            inode: self.u64()?,
            size: self.u64()?,
            mtime_ns: self.i64()?,
            ctime_ns: self.i64()?,
        };
        let content = ContentHash::new(self.array()?);
        let xattrs = self.xattrs()?;
        Some(FileRecord { name, stamp, file_content: FileContent { content, xattrs } })
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
