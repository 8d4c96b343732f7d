//! New layers: of what a RUN left, or of entries whose contents lie elsewhere.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Timespec, Timestamps};

use crate::archive::{self, ArchiveError, DigestWriter, Pipelined, PipelinedHasher};
use crate::oci::DiffId;
use crate::pathio::{Context as _, PathError};
use crate::pool;
use crate::tree::{
    Entry, File, FileOrigin, Item, LayerEntries, Meta, Node, TreePath, is_kept_xattr,
};

use super::layer::{Form, LayerDone, LayerOptions, LowerDirectory, OpenContent};
use super::layer_diff::{self, DiffOptions};
use super::unpack;
use super::work::open_directory;
use super::{LayerRecord, Store, StoreError, WorkDirectory};

type Result<T> = std::result::Result<T, StoreError>;

/// Identity, length, and the directory's home where there is one.
type Written = (DiffId, u64, Option<WorkDirectory>);

/// Learns of each entry that was written, and of the offset of its content.
type NoteEntry<'a> = dyn FnMut(&Entry, u64) -> io::Result<()> + Send + 'a;

/// What is written to a pipe at once.
const PIPE_BYTES: usize = 64 << 10;

impl Store {
    /// Makes a layer of what a RUN left in the upper directory `fs` of `work`, over `lowers`.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn layer_from_upper(
        &self,
        work: &WorkDirectory,
        upper: BorrowedFd<'_>,
        lowers: &[LowerDirectory],
        skip: &[TreePath],
        options: &LayerOptions,
    ) -> Result<LayerDone> {
        let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(|lower| lower.as_fd()).collect();
        let diff_options = DiffOptions { user_xattr: self.user_namespace, skip };
        let mut changed = layer_diff::diff_upper(upper, &lowers, &diff_options)?;
        let listed = changed.iter().map(Cow::Borrowed);
        check_entries(listed, self.archive_bounds().max_bytes)?;
        clamp(&mut changed, options.clamp_s, upper)?;
        let mut listing = self.listing_draft(changed.len())?;
        let mut hasher = PipelinedHasher::hasher();
        let mut list = |entry: &Entry, tar_at| listing.entry(entry, tar_at);
        layer_diff::write_layer(changed, upper, &mut hasher, &mut list)?;
        let (digest, tar_bytes) = hasher.digest().context("hash a layer of", work.path())?;
        let diff_id = DiffId::new(digest);
        let listed = listing.finish()?;
        let content = listed.content();
        let record = LayerRecord { content, tar_bytes, created_s: options.created_s };
        self.publish_layer(diff_id, &record, &listed, Some(work), None)?;
        Ok(LayerDone { diff_id, record })
    }

    /// Makes a layer of entries whose contents `open` gives, in the form that is needed.
    ///
    /// # Errors
    /// [`StoreError::Archive`] when a content is not what its hash says.
    pub fn layer_from_entries(
        &self,
        layer: &(dyn LayerEntries + Sync),
        open: &OpenContent<'_>,
        form: Form,
        options: &LayerOptions,
    ) -> Result<(LayerDone, Option<LowerDirectory>)> {
        check_entries(layer.stream(), self.archive_bounds().max_bytes)?;
        let planned = PlannedLayer { layer, clamp_s: options.clamp_s };
        let mut listing = self.listing_draft(planned.n_entries())?;
        let mut list = |entry: &Entry, tar_at| listing.entry(entry, tar_at);
        let written = match form {
            Form::Tar => self.write_tar_form(&planned, open, &mut list),
            Form::Directory => self.write_directory_form(&planned, open, &mut list),
        };
        let (diff_id, tar_bytes, work) = written.map_err(|error| self.blamed(error, layer))?;
        let listed = listing.finish()?;
        let content = listed.content();
        let record = LayerRecord { content, tar_bytes, created_s: options.created_s };
        let directory =
            work.as_ref().map(|work| open_directory(&work.path().join("fs"))).transpose()?;
        self.publish_layer(diff_id, &record, &listed, work.as_ref(), None)?;
        Ok((LayerDone { diff_id, record }, directory.map(Arc::new)))
    }

    /// Writes entries whose contents `open` gives as the directory `fs` of a work directory: for a mount
    /// and not for a layer.
    ///
    /// # Errors
    /// As [`Store::layer_from_entries`].
    pub fn directory_from_entries(
        &self,
        layer: &(dyn LayerEntries + Sync),
        open: &OpenContent<'_>,
    ) -> Result<WorkDirectory> {
        let written = self.write_directory_form(layer, open, &mut |_, _| Ok(()));
        let (_id, _n_bytes, work) = written.map_err(|error| self.blamed(error, layer))?;
        work.map_or_else(|| self.work_directory(), Ok)
    }

    /// Replaces the error of a file that is not what its listing says by the damage of the layer that the
    /// file is from: a layer does not change.
    fn blamed(&self, error: StoreError, layer: &dyn LayerEntries) -> StoreError {
        let StoreError::Archive(
            ArchiveError::ContentChanged { path } | ArchiveError::SizeChanged { path, .. },
        ) = &error
        else {
            return error;
        };
        let place = layer.stream().find(|entry| entry.path == *path).and_then(|entry| {
            entry.item.file().and_then(|file| match &file.origin {
                FileOrigin::Layer(place) => Some(place.clone()),
                FileOrigin::Directory(_) | FileOrigin::Inline(_) => None,
            })
        });
        place.map_or(error, |place| self.damaged_content(place.layer, &place.path))
    }

    fn write_tar_form(
        &self,
        planned: &dyn LayerEntries,
        open: &OpenContent<'_>,
        list: &mut NoteEntry<'_>,
    ) -> Result<Written> {
        let draft = Pipelined::new(self.draft()?);
        let open = |file: &File, path: &TreePath| open(file, path);
        let draft = archive::write_listing_checked(planned, &open, draft, list)?;
        let draft = draft.finish().context("write a blob in", self.root())?;
        let (digest, tar_bytes) = self.publish(draft)?;
        Ok((DiffId::new(digest), tar_bytes, None))
    }

    /// The tar goes through a pipe to the unpacker: one thread reads and hashes, the other makes
    /// files.
    fn write_directory_form(
        &self,
        planned: &(dyn LayerEntries + Sync),
        open: &OpenContent<'_>,
        list: &mut NoteEntry<'_>,
    ) -> Result<Written> {
        let work = self.work_directory()?;
        let into = work.directory("fs")?;
        let (mut reader, writer) = io::pipe().context("make a pipe for", work.path())?;
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
            // The writer must learn that nobody reads any more, or it waits forever.
            drop(reader);
            Ok::<_, PathError>((pool::join(writer), unpacked))
        })?;
        match (written, unpacked) {
            (Ok((diff_id, tar_bytes)), Ok(())) => Ok((diff_id, tar_bytes, Some(work))),
            // EPIPE of the writer follows from the unpacker's own error.
            (Err(ArchiveError::Write(_)), Err(first)) | (Ok(_), Err(first)) => Err(first.into()),
            (Err(first), _) => Err(first.into()),
        }
    }
}

/// Entries as a layer of ours has them.
struct PlannedLayer<'a> {
    layer: &'a (dyn LayerEntries + Sync),
    clamp_s: Option<i64>,
}

impl LayerEntries for PlannedLayer<'_> {
    fn stream(&self) -> Box<dyn Iterator<Item = Cow<'_, Entry>> + '_> {
        Box::new(self.layer.stream().map(|mut entry| {
            let Item::Node(meta, _) = &entry.item else { return entry };
            if meta.xattrs.is_none() && self.clamp_s.is_none_or(|clamp_s| meta.mtime_s <= clamp_s) {
                return entry;
            }
            if let Item::Node(meta, _) = &mut entry.to_mut().item {
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

/// Drops what a layer's tar does not have: its directory must not have it either.
fn keep_layer_xattrs(meta: &mut Meta) {
    if let Some(xattrs) = &mut meta.xattrs {
        xattrs.retain(|name, _| is_kept_xattr(name));
        if xattrs.is_empty() {
            meta.xattrs = None;
        }
    }
}

/// Checks what a step left, or the sources of a COPY.
///
/// They do not have more than any layer may unpack to: a sparse file costs a step nothing, but every
/// reader of the layer as much time as its length. No name would be read as the removal of another file
/// (image-spec, layer.md, "Whiteouts").
fn check_entries<'a>(entries: impl Iterator<Item = Cow<'a, Entry>>, limit: u64) -> Result<()> {
    let size = |entry: &Entry| match &entry.item {
        Item::Node(_, Node::File(file)) => file.size,
        Item::Node(..) | Item::HardLink(_) | Item::Whiteout | Item::Opaque => 0,
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

/// Sets later times to `clamp_s`, on disk as well: a later step must not see what the layer does
/// not say.
fn clamp(entries: &mut [Entry], clamp_s: Option<i64>, upper: BorrowedFd<'_>) -> Result<()> {
    let Some(clamp_s) = clamp_s else { return Ok(()) };
    for entry in entries {
        let Item::Node(meta, _) = &mut entry.item else { continue };
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
    // No step runs while its layer is made, so nobody can put a link on the way.
    rustix::fs::utimensat(directory, path.as_path(), &times, AtFlags::SYMLINK_NOFOLLOW)
        .context("set the time of", path.as_path())?;
    Ok(())
}
