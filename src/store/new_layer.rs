//! New layers: from the upper directory that a RUN left, or from entries whose contents are elsewhere.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Timespec, Timestamps};

use crate::archive::{self, ArchiveError, DigestWriter, Pipelined, PipelinedHasher};
use crate::oci::DiffId;
use crate::pathio::{Context as _, PathError};
use crate::pool;
use crate::tree::{
    Entry, File, FileOrigin, LayerEntries, LayerItem, Meta, Node, TreePath, is_kept_xattr,
};

use super::layer_diff;
use super::listing_draft::ListingDraft;
use super::private_files::open_directory;
use super::{
    LayerOptions, LayerRecord, LowerDirectory, Store, StoreError, StoredLayer, TarObserver,
    WorkDirectory, unpack, unpacked_check,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Opens the content of a file of an unfinished layer.
pub type OpenContent<'a> = dyn Fn(&File, &TreePath) -> io::Result<Box<dyn Read>> + Sync + 'a;

/// The representation in which a new layer is stored first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Representation {
    /// A directory that can be mounted, because a later step runs on the layer.
    Directory,
    /// A plain tar, because no step mounts the layer.
    Tar,
}

/// DiffID and length of a tar, and the work directory if files were created.
type WrittenLayer = (DiffId, u64, Option<WorkDirectory>);

/// Called with each entry that was written and the offset of its content in the tar.
type NoteEntry<'a> = dyn FnMut(&Entry, u64) -> io::Result<()> + Send + 'a;

/// Number of bytes that are written to a pipe at once: its default capacity (pipe(7)).
const PIPE_BYTES: usize = 64 << 10;

impl Store {
    /// Lists the changes that a RUN left in `upper` over `lowers`, base first, in the order of a layer. No
    /// content of a changed file is read.
    ///
    /// # Errors
    /// [`StoreError::ReservedName`] or [`StoreError::LayerTooLarge`] if a layer cannot hold the files;
    /// [`StoreError::Io`] if they cannot be read.
    pub fn list_upper(
        &self,
        upper: BorrowedFd<'_>,
        lowers: &[LowerDirectory],
        options: &LayerOptions,
    ) -> Result<Vec<Entry>> {
        let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(|lower| lower.as_fd()).collect();
        let mut changed = layer_diff::diff_upper(upper, &lowers, self.user_namespace)?;
        self.check_changes(&mut changed, upper, options)?;
        Ok(changed)
    }

    /// Creates a layer from the upper directory `fs` of `work`, whose changes [`Self::list_upper`] has
    /// listed. `observer` gets the tar.
    ///
    /// # Errors
    /// [`StoreError::Layer`] or [`StoreError::Io`] if a file cannot be read.
    pub fn layer_from_upper(
        &self,
        work: &WorkDirectory,
        upper: BorrowedFd<'_>,
        changed: &[Entry],
        options: &LayerOptions,
        observer: Option<&mut dyn TarObserver>,
    ) -> Result<StoredLayer> {
        let mut listing = ListingDraft::new(&self.work, changed.len())?;
        let mut tar = ObservedTar { out: PipelinedHasher::hasher(), observer };
        let mut list = |entry: &Entry, tar_at| listing.entry(entry, tar_at);
        layer_diff::write_layer(changed, upper, &mut tar, &mut list)?;
        let ObservedTar { out, observer } = tar;
        let (digest, tar_bytes) = out.digest().context("hash a layer of", work.path())?;
        let diff_id = DiffId::new(digest);
        if let Some(observer) = observer {
            observer.hashed(diff_id);
        }
        let listed = listing.finish()?;
        let content = listed.content();
        let record = LayerRecord { content, tar_bytes, created_s: options.created_s };
        self.publish_layer(diff_id, &record, &listed, Some(work), None)?;
        Ok(StoredLayer { diff_id, record })
    }

    /// Creates a layer like [`Self::layer_from_upper`], as a plain tar: `upper` is on another file system
    /// than the store.
    ///
    /// # Errors
    /// The errors of [`Self::layer_from_upper`].
    pub fn tar_from_upper(
        &self,
        upper: BorrowedFd<'_>,
        changed: &[Entry],
        options: &LayerOptions,
        observer: Option<&mut dyn TarObserver>,
    ) -> Result<StoredLayer> {
        self.tar_from_changes(changed, upper, options, &mut |_entry| {}, observer)
    }

    /// Checks the changes below `root`, and clamps their times.
    pub(super) fn check_changes(
        &self,
        changed: &mut [Entry],
        root: BorrowedFd<'_>,
        options: &LayerOptions,
    ) -> Result<()> {
        check_entries(changed.iter().map(Cow::Borrowed), self.archive_bounds().max_bytes)?;
        clamp(changed, options.clamp_s, root)
    }

    /// Creates a layer, as a plain tar, from changed files below `root`, which were checked. Calls `note`
    /// for each entry that was written.
    ///
    /// # Errors
    /// The errors of [`Self::layer_from_upper`].
    pub(super) fn tar_from_changes(
        &self,
        changed: &[Entry],
        root: BorrowedFd<'_>,
        options: &LayerOptions,
        note: &mut (dyn FnMut(&Entry) + Send),
        observer: Option<&mut dyn TarObserver>,
    ) -> Result<StoredLayer> {
        let mut listing = ListingDraft::new(&self.work, changed.len())?;
        let mut tar = ObservedTar { out: Pipelined::new(self.draft()?), observer };
        layer_diff::write_layer(changed, root, &mut tar, &mut |entry, tar_at| {
            note(entry);
            listing.entry(entry, tar_at)
        })?;
        let ObservedTar { out, observer } = tar;
        let draft = out.finish().context("write a blob in", self.root())?;
        let (digest, tar_bytes) = self.publish(draft)?;
        let diff_id = DiffId::new(digest);
        if let Some(observer) = observer {
            observer.hashed(diff_id);
        }
        let listed = listing.finish()?;
        let content = listed.content();
        let record = LayerRecord { content, tar_bytes, created_s: options.created_s };
        self.publish_layer(diff_id, &record, &listed, None, None)?;
        Ok(StoredLayer { diff_id, record })
    }

    /// Creates a layer from entries whose contents `open` opens. Also returns its directory, if
    /// `representation` asks for one.
    ///
    /// # Errors
    /// [`StoreError::Archive`] if a content does not match its hash, or the damage of the layer that
    /// the content is from; [`StoreError::ReservedName`], [`StoreError::LayerTooLarge`],
    /// [`StoreError::NoSpace`] or [`StoreError::Io`].
    pub fn layer_from_entries(
        &self,
        layer: &(dyn LayerEntries + Sync),
        open: &OpenContent<'_>,
        representation: Representation,
        options: &LayerOptions,
    ) -> Result<(StoredLayer, Option<LowerDirectory>)> {
        check_entries(layer.stream(), self.archive_bounds().max_bytes)?;
        let planned = PlannedLayer { layer, clamp_s: options.clamp_s };
        let mut listing = ListingDraft::new(&self.work, planned.n_entries())?;
        let mut list = |entry: &Entry, tar_at| listing.entry(entry, tar_at);
        let written = match representation {
            Representation::Tar => self.write_as_tar(&planned, open, &mut list),
            Representation::Directory => self.write_as_directory(&planned, open, &mut list),
        };
        let (diff_id, tar_bytes, work) =
            written.map_err(|error| self.attribute_damage(error, layer))?;
        let listed = listing.finish()?;
        let content = listed.content();
        let record = LayerRecord { content, tar_bytes, created_s: options.created_s };
        let directory =
            work.as_ref().map(|work| open_directory(&work.path().join("fs"))).transpose()?;
        self.publish_layer(diff_id, &record, &listed, work.as_ref(), None)?;
        Ok((StoredLayer { diff_id, record }, directory.map(Arc::new)))
    }

    /// Writes entries whose contents `open` opens into the directory `fs` of a work directory, for a
    /// mount. No layer is created.
    ///
    /// # Errors
    /// The errors of [`Store::layer_from_entries`].
    pub fn directory_from_entries(
        &self,
        layer: &(dyn LayerEntries + Sync),
        open: &OpenContent<'_>,
    ) -> Result<WorkDirectory> {
        let written = self.write_as_directory(layer, open, &mut |_, _| Ok(()));
        let (_id, _n_bytes, work) = written.map_err(|error| self.attribute_damage(error, layer))?;
        work.map_or_else(|| self.work_directory(), Ok)
    }

    /// Replaces the error for a changed file by the damage of the layer that the file is from. Files of
    /// layers never change, so a difference is damage.
    fn attribute_damage(&self, error: StoreError, layer: &dyn LayerEntries) -> StoreError {
        let StoreError::Archive(
            ArchiveError::ContentChanged { path } | ArchiveError::SizeChanged { path, .. },
        ) = &error
        else {
            return error;
        };
        let source = layer.stream().find(|entry| entry.path == *path).and_then(|entry| {
            entry.item.file().and_then(|file| match &file.origin {
                FileOrigin::Layer(source) => Some(source.clone()),
                FileOrigin::Directory(_) | FileOrigin::Inline(_) => None,
            })
        });
        source.map_or(error, |source| {
            unpacked_check::damaged_content(self, source.layer, &source.path)
        })
    }

    fn write_as_tar(
        &self,
        planned: &dyn LayerEntries,
        open: &OpenContent<'_>,
        list: &mut NoteEntry<'_>,
    ) -> Result<WrittenLayer> {
        let draft = Pipelined::new(self.draft()?);
        let open = |file: &File, path: &TreePath| open(file, path);
        let draft = archive::write_listing_checked(planned, &open, draft, list)?;
        let draft = draft.finish().context("write a blob in", self.root())?;
        let (digest, tar_bytes) = self.publish(draft)?;
        Ok((DiffId::new(digest), tar_bytes, None))
    }

    /// Writes the tar through a pipe to the unpacker: one thread reads and hashes contents, the other
    /// creates files.
    fn write_as_directory(
        &self,
        planned: &(dyn LayerEntries + Sync),
        open: &OpenContent<'_>,
        list: &mut NoteEntry<'_>,
    ) -> Result<WrittenLayer> {
        let work = self.work_directory()?;
        let into = work.directory("fs")?;
        let (mut reader, writer) = io::pipe().context("create a pipe for", work.path())?;
        let (written, unpacked) = pool::scope(|scope| {
            let writer = pool::start(scope, move || {
                let open = |file: &File, path: &TreePath| open(file, path);
                let sink = DigestWriter::new(io::BufWriter::with_capacity(PIPE_BYTES, writer));
                archive::write_listing_checked(planned, &open, sink, list).map(|sink| {
                    let (_pipe, digest, n_bytes) = sink.finish();
                    (DiffId::new(digest), n_bytes)
                })
            })
            .context("write a layer in", self.root())?;
            let options = self.unpack_options();
            let unpacked = unpack::unpack_planned(planned, &mut reader, into.as_fd(), &options);
            // Without it, a writer whose pipe is full would wait forever for a reader (pipe(7)).
            drop(reader);
            Ok::<_, PathError>((pool::join(writer), unpacked))
        })?;
        match (written, unpacked) {
            (Ok((diff_id, tar_bytes)), Ok(())) => Ok((diff_id, tar_bytes, Some(work))),
            // EPIPE of the writer is a consequence of the unpacker's error.
            (Err(ArchiveError::Write(_)), Err(first)) | (Ok(_), Err(first)) => Err(first.into()),
            (Err(first), _) => Err(first.into()),
        }
    }
}

/// Writes a tar to `out`, and shows what was written to an observer.
struct ObservedTar<'a, W> {
    out: W,
    observer: Option<&'a mut dyn TarObserver>,
}

impl<W: Write> Write for ObservedTar<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = self.out.write(bytes)?;
        if let Some(observer) = &mut self.observer {
            observer.tar_bytes(bytes.get(..n_bytes).unwrap_or_default());
        }
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Entries with clamped times, and only with the extended attributes that layers keep.
struct PlannedLayer<'a> {
    layer: &'a (dyn LayerEntries + Sync),
    clamp_s: Option<i64>,
}

impl LayerEntries for PlannedLayer<'_> {
    fn stream(&self) -> Box<dyn Iterator<Item = Cow<'_, Entry>> + '_> {
        Box::new(self.layer.stream().map(|mut entry| {
            let LayerItem::Node(meta, _) = &entry.item else { return entry };
            if meta.xattrs.is_none() && self.clamp_s.is_none_or(|clamp_s| meta.mtime_s <= clamp_s) {
                return entry;
            }
            if let LayerItem::Node(meta, _) = &mut entry.to_mut().item {
                meta.mtime_s = meta.mtime_s.min(self.clamp_s.unwrap_or(i64::MAX));
                keep_layer_xattrs(meta);
            }
            entry
        }))
    }

    fn n_entries(&self) -> usize {
        self.layer.n_entries()
    }
}

/// Removes extended attributes that the tar of a layer does not have, so that its directory does not
/// have them either.
fn keep_layer_xattrs(meta: &mut Meta) {
    if let Some(xattrs) = &mut meta.xattrs {
        xattrs.retain(|name, _| is_kept_xattr(name));
        if xattrs.is_empty() {
            meta.xattrs = None;
        }
    }
}

/// Checks the files that a step left, or the sources of a COPY.
///
/// Their total length is bounded like that of any layer: a sparse file costs the step nothing, but
/// every reader of the layer time in proportion to its length. A file name with the whiteout prefix
/// would be read as the removal of another file (image-spec, layer.md, "Whiteouts").
///
/// # Errors
/// [`StoreError::ReservedName`] or [`StoreError::LayerTooLarge`].
pub(super) fn check_entries<'a>(
    entries: impl Iterator<Item = Cow<'a, Entry>>,
    limit: u64,
) -> Result<()> {
    let size = |entry: &Entry| match &entry.item {
        LayerItem::Node(_, Node::File(file)) => file.size,
        LayerItem::Node(..) | LayerItem::HardLink(_) | LayerItem::Whiteout | LayerItem::Opaque => 0,
    };
    let (mut total, mut largest) = (0_u64, (TreePath::root(), 0));
    for entry in entries {
        let name = entry.path.name().unwrap_or_default();
        if name.starts_with(archive::WHITEOUT_PREFIX) {
            return Err(StoreError::ReservedName { path: entry.path.clone() });
        }
        let size = size(&entry);
        total = total.saturating_add(size);
        if size > largest.1 {
            largest = (entry.path.clone(), size);
        }
    }
    if total <= limit {
        return Ok(());
    }
    let (path, size) = largest;
    Err(StoreError::LayerTooLarge { total, limit, path, size })
}

/// Sets later times to `clamp_s`, in the entries and on the disk: a later step sees the times that the
/// layer has.
pub(super) fn clamp(
    entries: &mut [Entry],
    clamp_s: Option<i64>,
    upper: BorrowedFd<'_>,
) -> Result<()> {
    let Some(clamp_s) = clamp_s else { return Ok(()) };
    for entry in entries {
        let LayerItem::Node(meta, _) = &mut entry.item else { continue };
        if meta.mtime_s <= clamp_s {
            continue;
        }
        meta.mtime_s = clamp_s;
        set_mtime(upper, &entry.path, clamp_s)?;
    }
    Ok(())
}

fn set_mtime(directory: BorrowedFd<'_>, path: &TreePath, mtime_s: i64) -> Result<()> {
    let time = Timespec { tv_sec: mtime_s, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    // By path: the step has ended, so no process can replace a directory by a link.
    rustix::fs::utimensat(directory, path.as_path(), &times, AtFlags::SYMLINK_NOFOLLOW)
        .context("set the time of", path.as_path())?;
    Ok(())
}
