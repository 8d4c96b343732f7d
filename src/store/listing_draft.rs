//! The listing of a new layer: written entry by entry together with its tar, before the DiffID is
//! known.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::{self, ListingWriter};
use crate::pathio::{Context as _, PathError};
use crate::tree::{ContentDigest, Entry, LayerContent, LayerListing};

use super::private_files;
use super::work_directory::{ProcessDirectory, WorkArea};

/// An unfinished listing.
#[derive(Debug)]
pub(super) struct ListingDraft {
    path: PathBuf,
    out: ListingWriter<BufWriter<File>>,
    content: LayerContent,
    process: Arc<ProcessDirectory>,
}

/// A complete listing in this process's directory below `tmp`. Unless it is renamed, it is removed
/// with that directory.
#[derive(Debug)]
pub(super) struct FinishedListing {
    path: PathBuf,
    content: ContentDigest,
    _process: Arc<ProcessDirectory>,
}

impl ListingDraft {
    /// Begins the listing of a layer with `n_entries` entries.
    pub(super) fn new(work: &WorkArea, n_entries: usize) -> Result<Self, PathError> {
        let process = work.process()?;
        let path = process.fresh_path();
        let file = private_files::create_file(&path)?;
        let out = ListingWriter::new(BufWriter::new(file), n_entries);
        Ok(Self { path, out, content: LayerContent::new(), process })
    }

    /// Appends an entry, and the offset of its content in the tar.
    pub(super) fn entry(&mut self, entry: &Entry, tar_at: u64) -> io::Result<()> {
        self.content.entry(entry);
        self.out.entry(entry, tar_at)
    }

    /// Writes the end of the listing.
    pub(super) fn finish(self) -> Result<FinishedListing, PathError> {
        let flushed = self.out.finish().and_then(|out| Ok(out.into_inner()?));
        let _file = flushed.context("write", &self.path)?;
        let content = self.content.finish();
        Ok(FinishedListing { path: self.path, content, _process: self.process })
    }
}

impl FinishedListing {
    /// Writes the listing of a layer whose entries are all known.
    pub(super) fn write(work: &WorkArea, listing: &LayerListing) -> Result<Self, PathError> {
        let mut draft = ListingDraft::new(work, listing.entries().len())?;
        for entry in listing.entries() {
            draft.entry(entry, archive::tar_at(entry)).context("write", &draft.path)?;
        }
        draft.finish()
    }

    /// Returns the path of its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the content digest of the listed layer.
    pub(super) const fn content(&self) -> ContentDigest {
        self.content
    }
}
