//! The scan of a root directory: finds the files that changed since the last one.

use std::ffi::OsStr;
use std::fs::File as OsFile;
use std::iter::Peekable;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Mutex;
use std::vec::IntoIter;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use crate::archive::HashingReader;
use crate::limits::{MAX_DIRECTORY_DEPTH, MAX_NAME_BYTES_OF_ARCHIVE};
use crate::pathio::{Context as _, PathError};
use crate::pool;
use crate::sandbox::{Attributes, EmulatedFiles, FileId};
use crate::store::layer_diff::{
    UpperEntry, changed, names, open_directory, open_file, read_xattrs,
};
use crate::tree::{
    ContentHash, Device, Dir, Entry, File, FileOrigin, LayerItem, Meta, Node, Tree, TreeNode,
    TreePath, Xattrs,
};

use super::record::{self, DirectoryRecord, FileRecord, Time};
use super::watch::Watch;

/// The attributes of files as a step sees them.
#[derive(Debug, Clone, Copy)]
pub(super) enum SeenAttributes<'a> {
    /// The disk holds them.
    OnDisk,
    /// Those that the disk does not hold are here.
    Emulated(&'a EmulatedFiles),
}

impl SeenAttributes<'_> {
    pub(super) fn of(self, stat: &Stat) -> Attributes {
        match self {
            Self::Emulated(files) => files.of(stat),
            Self::OnDisk => {
                Attributes { uid: stat.st_uid, gid: stat.st_gid, ..Attributes::on_disk(stat) }
            }
        }
    }
}

/// The result of a scan.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The changed paths, if they were asked for, in the order of a layer.
    pub(super) changed: Vec<Entry>,
    pub(super) record: FileRecord,
    /// The emulated attributes of the files that exist.
    pub(super) attributes: EmulatedFiles,
}

/// Scans the directory `root`, whose last record is `old`, and finds the paths that changed. `tree`
/// has the files as of the last scan. The rules are those of `layer_diff::diff_upper`.
///
/// # Errors
/// [`PathError`] if a directory or file cannot be read, or with `ENAMETOOLONG` if directories are
/// nested too deeply.
pub(super) fn changes(
    root: BorrowedFd<'_>,
    old: Option<FileRecord>,
    tree: &Tree,
    context: ScanContext<'_>,
) -> Result<Scanned, PathError> {
    Scan::new(context, true).run(root, old, tree)
}

/// Records the files in the directory `root`, which are those of `tree`.
///
/// # Errors
/// The errors of [`changes`].
pub(super) fn record(
    root: BorrowedFd<'_>,
    old: Option<FileRecord>,
    tree: &Tree,
    context: ScanContext<'_>,
) -> Result<Scanned, PathError> {
    Scan::new(context, false).run(root, old, tree)
}

/// The surroundings of a scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanContext<'a> {
    pub(super) seen: SeenAttributes<'a>,
    /// Changes from this time on are recent.
    pub(super) recent: Time,
    /// Watches the directories from then on.
    pub(super) watch: Option<&'a Watch>,
}

struct Scan<'a> {
    context: ScanContext<'a>,
    /// True to find changes, false to record all files as they are.
    compares: bool,
    no_origin: FileOrigin,
    found: Vec<UpperEntry>,
    /// Bytes of the extended attributes of directories, which all stay in memory.
    n_xattr_bytes: usize,
    attributes: EmulatedFiles,
}

/// A directory that is being scanned.
struct ScannedDirectory<'t> {
    opened: OwnedFd,
    at: TreePath,
    listed: Option<&'t Dir>,
    old: Peekable<IntoIter<(Box<[u8]>, FileRecord)>>,
    /// The names on the disk; `None` if they are those of `old`.
    names: Option<Peekable<IntoIter<Vec<u8>>>>,
    new: DirectoryRecord,
    /// Number of files below it in the last scan, counted up to [`MAX_WORTH`] and one more.
    n_known: usize,
}

/// A directory that a thread of its own may scan.
struct Apart<'t> {
    at: TreePath,
    directory: Mutex<Option<ScannedDirectory<'t>>>,
}

/// Maximum number of directories that are open for other threads.
const MAX_APART: usize = 64;
/// The number of files of a directory that is worth a thread; of larger ones, the directories in it are.
const MIN_WORTH: usize = 100;
const MAX_WORTH: usize = 2000;

impl ScannedDirectory<'_> {
    const fn is_worth_a_thread(&self) -> bool {
        MIN_WORTH <= self.n_known && self.n_known <= MAX_WORTH
    }

    /// Returns the next name in order, and its old record.
    fn next(&mut self) -> Option<(Box<[u8]>, Option<FileRecord>)> {
        let Some(names) = &mut self.names else {
            return self.old.next().map(|(name, old)| (name, Some(old)));
        };
        let is_old = match (names.peek(), self.old.peek()) {
            (None, None) => return None,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(name), Some((old, _))) => **name >= **old,
        };
        if !is_old {
            return names.next().map(|name| (name.into_boxed_slice(), None));
        }
        let (name, old) = self.old.next()?;
        names.next_if(|listed| **listed == *name);
        Some((name, Some(old)))
    }
}

impl<'a> Scan<'a> {
    fn new(context: ScanContext<'a>, compares: bool) -> Self {
        Self {
            context,
            compares,
            no_origin: FileOrigin::directory(0, TreePath::root()),
            found: Vec::new(),
            n_xattr_bytes: 0,
            attributes: EmulatedFiles::default(),
        }
    }

    fn run(
        mut self,
        root: BorrowedFd<'_>,
        old: Option<FileRecord>,
        tree: &Tree,
    ) -> Result<Scanned, PathError> {
        let at = TreePath::root();
        let opened = open_directory(root, b".", &at)?;
        let stat = rustix::fs::fstat(&opened).context("look at", at.as_path())?;
        let attributes = self.attributes_of(&stat);
        let is_untouched = old.as_ref().is_some_and(|old| old.is_untouched(&stat, &attributes));
        let mut record = FileRecord::new(&stat, attributes, self.context.recent);
        self.watch(&opened, is_untouched);
        let entries = old.map(|old| old.entries).unwrap_or_default();
        let first = enter(opened, at, Some(tree.root()), entries, is_untouched)?;
        let mut apart = Vec::new();
        record.entries = self.directory(first, Some(&mut apart))?;
        self.directories(&apart, &mut record)?;
        self.found.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
        Ok(Scanned { changed: changed(self.found), record, attributes: self.attributes })
    }

    /// Scans a directory with all below it; returns its entries. Directories that are worth it are put
    /// into `apart` instead, and their entries are left out.
    fn directory<'t>(
        &mut self,
        first: ScannedDirectory<'t>,
        mut apart: Option<&mut Vec<Apart<'t>>>,
    ) -> Result<DirectoryRecord, PathError> {
        let depth = first.at.names().count();
        let mut open = vec![first];
        // Parent directories are kept in a vector and not on the thread's stack, which deeply nested
        // directories could overflow.
        while let Some(directory) = open.last_mut() {
            let Some((name, old)) = directory.next() else {
                let entries = open.pop().map(|done| done.new).unwrap_or_default();
                match open.last_mut().and_then(|parent| parent.new.last_mut()) {
                    Some((_, own)) => own.entries = entries,
                    None => return Ok(entries),
                }
                continue;
            };
            let Some(inner) = self.file(directory, name, old)? else { continue };
            if open.len().saturating_add(depth) > MAX_DIRECTORY_DEPTH {
                return Err(PathError::new("list", inner.at.as_path(), Errno::NAMETOOLONG));
            }
            match &mut apart {
                Some(apart) if inner.is_worth_a_thread() && apart.len() < MAX_APART => {
                    apart.push(Apart { at: inner.at.clone(), directory: Mutex::new(Some(inner)) });
                }
                Some(_) | None => open.push(inner),
            }
        }
        Ok(DirectoryRecord::new())
    }

    /// Scans directories on all processors, and puts their entries into the record of the root.
    fn directories(&mut self, apart: &[Apart<'_>], root: &mut FileRecord) -> Result<(), PathError> {
        let (context, compares) = (self.context, self.compares);
        let jobs = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let scanned = pool::map_in_order(apart, jobs, |Apart { directory, .. }| {
            let mut scan = Scan::new(context, compares);
            let directory = pool::lock(directory).take().expect("each is taken once");
            scan.directory(directory, None).map(|entries| (entries, scan))
        });
        for (Apart { at, .. }, scanned) in apart.iter().zip(scanned) {
            let (entries, scan) = scanned?;
            if let Some(record) = record::find_mut(&mut root.entries, at) {
                record.entries = entries;
            }
            self.found.extend(scan.found);
            self.attributes.extend(scan.attributes);
            self.n_xattr_bytes = self.n_xattr_bytes.saturating_add(scan.n_xattr_bytes);
            self.check_xattrs(at)?;
        }
        Ok(())
    }

    fn attributes_of(&mut self, stat: &Stat) -> Attributes {
        if let SeenAttributes::Emulated(files) = self.context.seen
            && let Some(known) = files.get(FileId::of(stat))
        {
            self.attributes.set(FileId::of(stat), known.clone());
        }
        self.context.seen.of(stat)
    }

    /// Scans one name; returns the directory if it is one.
    fn file<'t>(
        &mut self,
        directory: &mut ScannedDirectory<'t>,
        name: Box<[u8]>,
        old: Option<FileRecord>,
    ) -> Result<Option<ScannedDirectory<'t>>, PathError> {
        let at = OsStr::from_bytes(&name);
        let stat = match rustix::fs::statat(&directory.opened, at, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                if old.is_some() && self.compares {
                    let path = directory.at.join(&name);
                    self.found.push(UpperEntry::new(path, LayerItem::Whiteout, false, None));
                }
                return Ok(None);
            }
            stat => stat.map_err(|errno| {
                PathError::new("look at", directory.at.join(&name).as_path(), errno)
            })?,
        };
        let attributes = self.attributes_of(&stat);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.sub_directory(directory, name, old, &stat, attributes).map(Some);
        }
        let old = match old {
            Some(old) if old.is_untouched(&stat, &attributes) => {
                directory.new.push((name, old));
                return Ok(None);
            }
            old => old,
        };
        let path = directory.at.join(&name);
        let listed = directory.listed.and_then(|dir| dir.children.get(&name));
        let mut record = FileRecord::new(&stat, attributes, self.context.recent);
        if self.compares {
            self.compare(
                directory.opened.as_fd(),
                &name,
                path,
                old.as_ref(),
                &stat,
                &record,
                listed,
            )?;
            record.xattrs = old.and_then(|old| old.xattrs);
        } else if listed.is_some_and(|listed| listed.meta().xattrs.is_some())
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        {
            let opened = open_file(directory.opened.as_fd(), &name, path.as_path())?;
            record.xattrs = seen_xattrs(opened.as_fd(), record.attributes(), &path)?;
        }
        directory.new.push((name, record));
        Ok(None)
    }

    /// Adds a file that may have changed to the entries, if it did.
    #[expect(clippy::too_many_arguments, reason = "one call; each is a fact about the file")]
    fn compare(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: TreePath,
        old: Option<&FileRecord>,
        stat: &Stat,
        record: &FileRecord,
        listed: Option<&TreeNode>,
    ) -> Result<(), PathError> {
        let attributes = record.attributes();
        let node = match FileType::from_raw_mode(attributes.mode) {
            FileType::RegularFile => Node::File(File {
                size: u64::try_from(stat.st_size).unwrap_or(0),
                content: ContentHash::new([0; 32]),
                origin: self.no_origin.clone(),
            }),
            FileType::Symlink => Node::Symlink(link_target(directory, name, &path)?),
            FileType::CharacterDevice if attributes.device == 0 => {
                // Every reader of the layer would take it for a removed file.
                return Err(PathError::new("keep the device 0/0", path.as_path(), Errno::INVAL));
            }
            FileType::CharacterDevice => Node::CharDevice(device(attributes)),
            FileType::BlockDevice => Node::BlockDevice(device(attributes)),
            FileType::Fifo => Node::Fifo,
            // A socket has no use without the process that listens on it, and tar has no type for it.
            FileType::Socket | FileType::Directory | FileType::Unknown => return Ok(()),
        };
        if let Some(old) = old
            && old.has_properties(stat, attributes)
            && is_same_content(directory, name, &path, (old, record), listed, stat)?
        {
            return Ok(());
        }
        let mut meta = meta(stat, attributes);
        if matches!(node, Node::File(_)) {
            meta.xattrs = boxed(emulated_xattrs(attributes).collect());
        }
        let inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        self.found.push(UpperEntry::new(path, LayerItem::Node(meta, node), false, inode));
        Ok(())
    }

    fn sub_directory<'t>(
        &mut self,
        parent: &mut ScannedDirectory<'t>,
        name: Box<[u8]>,
        old: Option<FileRecord>,
        stat: &Stat,
        attributes: Attributes,
    ) -> Result<ScannedDirectory<'t>, PathError> {
        let path = parent.at.join(&name);
        let opened = open_directory(parent.opened.as_fd(), &name, &path)?;
        let listed = match parent.listed.and_then(|dir| dir.children.get(&name)) {
            Some(TreeNode::Dir(dir)) => Some(&**dir),
            Some(TreeNode::Leaf(_)) | None => None,
        };
        let old = old.filter(FileRecord::is_directory);
        let is_untouched = old.as_ref().is_some_and(|old| old.is_untouched(stat, &attributes));
        self.watch(&opened, is_untouched);
        let mut record = FileRecord::new(stat, attributes, self.context.recent);
        let has_xattrs = listed.is_some_and(|dir| dir.meta.xattrs.is_some());
        record.xattrs = match &old {
            Some(old) if is_untouched => old.xattrs.clone(),
            _ if self.compares || has_xattrs => {
                seen_xattrs(opened.as_fd(), record.attributes(), &path)?
            }
            _ => None,
        };
        if self.compares {
            self.count_xattrs(&record, &path)?;
            let is_same = old.as_ref().is_some_and(|old| {
                is_untouched || old.has_owner(record.attributes()) && old.xattrs == record.xattrs
            });
            let xattrs = record.xattrs.clone();
            let meta = Meta { xattrs, ..meta(stat, record.attributes()) };
            let item = LayerItem::Node(meta, Node::Directory { opaque: false });
            self.found.push(UpperEntry::new(path.clone(), item, is_same, None));
        }
        parent.new.push((name, record));
        let entries = old.map(|old| old.entries).unwrap_or_default();
        enter(opened, path, listed, entries, is_untouched)
    }

    /// Watches a directory, unless it is certainly that of the last scan: a new one may have got the
    /// inode number of a removed one.
    fn watch(&self, opened: &OwnedFd, is_untouched: bool) {
        if let Some(watch) = self.context.watch.filter(|_| !is_untouched) {
            watch.add(opened.as_fd());
        }
    }

    fn count_xattrs(&mut self, record: &FileRecord, path: &TreePath) -> Result<(), PathError> {
        let lengths = record.xattrs.iter().flat_map(|xattrs| xattrs.iter());
        self.n_xattr_bytes += lengths.map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.check_xattrs(path)
    }

    fn check_xattrs(&self, path: &TreePath) -> Result<(), PathError> {
        if u64::try_from(self.n_xattr_bytes).is_ok_and(|total| total <= MAX_NAME_BYTES_OF_ARCHIVE) {
            return Ok(());
        }
        Err(PathError::new("keep the extended attributes of", path.as_path(), Errno::TOOBIG))
    }
}

fn enter(
    opened: OwnedFd,
    at: TreePath,
    listed: Option<&Dir>,
    old: DirectoryRecord,
    is_untouched: bool,
) -> Result<ScannedDirectory<'_>, PathError> {
    let names =
        if is_untouched { None } else { Some(names(opened.as_fd(), &at)?.into_iter().peekable()) };
    let new = Vec::with_capacity(old.len());
    let n_known = record::count(&old, MAX_WORTH);
    let old = old.into_iter().peekable();
    Ok(ScannedDirectory { opened, at, listed, old, names, new, n_known })
}

/// Returns whether a file with the same properties has the same content and extended attributes.
/// An equal time proves nothing: see `layer_diff::unchanged`.
fn is_same_content(
    directory: BorrowedFd<'_>,
    name: &[u8],
    path: &TreePath,
    (old, new): (&FileRecord, &FileRecord),
    listed: Option<&TreeNode>,
    stat: &Stat,
) -> Result<bool, PathError> {
    let listed = match listed {
        Some(TreeNode::Leaf(leaf)) => Some(leaf.node()),
        Some(TreeNode::Dir(_)) | None => None,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let opened = open_file(directory, name, path.as_path())?;
            if seen_xattrs(opened.as_fd(), new.attributes(), path)? != old.xattrs {
                return Ok(false);
            }
            if stat.st_size == 0 {
                return Ok(true);
            }
            let Some(Node::File(listed)) = listed else { return Ok(false) };
            let mut content = HashingReader::new(OsFile::from(opened));
            std::io::copy(&mut content, &mut std::io::sink()).context("read", path.as_path())?;
            Ok(content.hash() == listed.content)
        }
        FileType::Symlink => {
            let target = link_target(directory, name, path)?;
            Ok(matches!(listed, Some(Node::Symlink(listed)) if *listed == target))
        }
        FileType::Directory
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Ok(true),
    }
}

fn link_target(
    directory: BorrowedFd<'_>,
    name: &[u8],
    path: &TreePath,
) -> Result<Box<[u8]>, PathError> {
    let target = rustix::fs::readlinkat(directory, name, Vec::new());
    Ok(target.context("read link", path.as_path())?.into_bytes().into_boxed_slice())
}

fn meta(stat: &Stat, attributes: &Attributes) -> Meta {
    Meta {
        mode: attributes.mode & 0o7777,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime_s: stat.st_mtime,
        xattrs: None,
    }
}

fn device(attributes: &Attributes) -> Device {
    Device {
        major: rustix::fs::major(attributes.device),
        minor: rustix::fs::minor(attributes.device),
    }
}

/// Returns the extended attributes that layers keep, on the disk and emulated.
fn seen_xattrs(
    file: BorrowedFd<'_>,
    attributes: &Attributes,
    path: &TreePath,
) -> Result<Option<Box<Xattrs>>, PathError> {
    let mut xattrs = read_xattrs(file, path)?;
    xattrs.extend(emulated_xattrs(attributes));
    Ok(boxed(xattrs))
}

fn emulated_xattrs(attributes: &Attributes) -> impl Iterator<Item = (Box<[u8]>, Box<[u8]>)> {
    let kept = attributes.xattrs.iter().filter(|(name, _)| crate::tree::is_kept_xattr(name));
    kept.map(|(name, value)| (name.as_slice().into(), value.as_slice().into()))
}

fn boxed(xattrs: Xattrs) -> Option<Box<Xattrs>> {
    (!xattrs.is_empty()).then(|| Box::new(xattrs))
}
