//! A layer's listing in the making: written entry by entry while its tar is, before the layer has
//! a name.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::{self, ListingWriter};
use crate::pathio::{Context as _, PathError};
use crate::tree::{ContentDigest, Entry, LayerContent, LayerListing};

use super::work::ProcessDirectory;
use super::{Store, guard};

/// A listing that is being written.
#[derive(Debug)]
pub(super) struct ListingDraft {
    path: PathBuf,
    out: ListingWriter<BufWriter<File>>,
    content: LayerContent,
    process: Arc<ProcessDirectory>,
}

/// A listing that is complete, in this process's directory below `tmp`. If it is moved nowhere, it
/// goes with that.
#[derive(Debug)]
pub(super) struct Listed {
    path: PathBuf,
    content: ContentDigest,
    _process: Arc<ProcessDirectory>,
}

impl ListingDraft {
    /// Writes the next entry.
    pub(super) fn entry(&mut self, entry: &Entry, tar_at: u64) -> io::Result<()> {
        self.content.entry(entry);
        self.out.entry(entry, tar_at)
    }

    /// Ends the listing.
    pub(super) fn finish(self) -> Result<Listed, PathError> {
        let flushed = self.out.finish().and_then(|out| Ok(out.into_inner()?));
        let _file = flushed.context("write", &self.path)?;
        let content = self.content.finish();
        Ok(Listed { path: self.path, content, _process: self.process })
    }
}

impl Listed {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of what it lists.
    pub(super) const fn content(&self) -> ContentDigest {
        self.content
    }
}

impl Store {
    /// Starts the listing of a layer of `n_entries` entries.
    pub(super) fn listing_draft(&self, n_entries: usize) -> Result<ListingDraft, PathError> {
        let process = self.process_directory()?;
        let path = process.fresh();
        let out = ListingWriter::new(BufWriter::new(guard::create_file(&path)?), n_entries);
        Ok(ListingDraft { path, out, content: LayerContent::new(), process })
    }

    /// Writes the listing of a layer that is complete.
    pub(super) fn list(&self, listing: &LayerListing) -> Result<Listed, PathError> {
        let mut draft = self.listing_draft(listing.entries().len())?;
        for entry in listing.entries() {
            draft.entry(entry, archive::tar_at(entry)).context("write", &draft.path)?;
        }
        draft.finish()
    }
}
