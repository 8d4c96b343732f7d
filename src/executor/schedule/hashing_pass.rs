//! The pass over the files of a new layer that hashes it, and compresses it if it is large.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::archive::Packing;
use crate::executor::{LayerUpload, Services};
use crate::image::{self, ExportOptions};
use crate::oci::DiffId;
use crate::store::{TarObserver, TarPacker};

use super::layer_stream::LayerStream;

/// Compresses a new layer while it is hashed. Dropping it ends the stream, for which another thread waits.
#[derive(Debug)]
pub(in crate::executor) struct HashingPass<'a> {
    services: &'a Services<'a>,
    stream: Arc<LayerStream>,
    /// The packing of the upload, or else of the first output; `None` without either.
    packing: Option<Packing>,
    jobs: NonZeroUsize,
    to: Option<LayerUpload>,
    /// `None` before it has begun, and once the compressed layer is unneeded.
    packer: Option<TarPacker>,
    diff_id: Option<DiffId>,
}

impl<'a> HashingPass<'a> {
    pub(super) fn new(
        services: &'a Services<'a>,
        stream: Arc<LayerStream>,
        (packing, jobs): (Option<Packing>, NonZeroUsize),
        to: Option<&LayerUpload>,
    ) -> Self {
        Self { services, stream, packing, jobs, to: to.cloned(), packer: None, diff_id: None }
    }

    /// Begins to compress the layer, if its files, of `n_bytes` in total, make it a large one. If that is not
    /// possible, it is compressed later.
    pub(in crate::executor) fn begin(&mut self, n_bytes: u64) {
        let is_large = n_bytes > image::LARGE_BYTES;
        let Some(packing) = self.packing.filter(|_| is_large && !self.services.cancel.is_set())
        else {
            return;
        };
        let (packer, reader) = match self.services.store.tar_packer(packing, self.jobs) {
            Ok(begun) => begun,
            Err(error) => {
                tracing::debug!(%error, "layer not packed while it is hashed");
                return;
            }
        };
        self.packer = Some(packer);
        match &self.to {
            Some(to) => self.stream.open(reader, to.clone()),
            None => self.stream.give_up(),
        }
    }

    /// Completes the blob of a layer that was recorded.
    pub(in crate::executor) fn finish(mut self) {
        let (Some(packer), Some(diff_id)) = (self.packer.take(), self.diff_id) else { return };
        match self.services.store.finish_packing(diff_id, packer) {
            Ok(record) => self.stream.end(Some(record)),
            Err(error) => {
                tracing::debug!(layer = %diff_id, %error, "layer not packed while it was hashed");
            }
        }
    }

    fn is_packed(&self, diff_id: DiffId) -> bool {
        let options = |packing| ExportOptions::of_layers(packing, self.jobs);
        let is_packed = |packing| image::is_packed(self.services.store, diff_id, &options(packing));
        self.packing.is_some_and(|packing| is_packed(packing).is_ok_and(|is_packed| is_packed))
    }

    /// Returns whether a registry or another cache is known to have the layer.
    fn has_source(&self, diff_id: DiffId) -> bool {
        let sources = self.services.store.layer_sources().of_layer(diff_id);
        sources.is_ok_and(|sources| !sources.is_empty())
    }
}

impl TarObserver for HashingPass<'_> {
    fn tar_bytes(&mut self, bytes: &[u8]) {
        if self.services.cancel.is_set() {
            self.packer = None;
        }
        if let Some(packer) = &mut self.packer {
            packer.add(bytes);
        }
    }

    fn hashed(&mut self, diff_id: DiffId) {
        self.diff_id = Some(diff_id);
        if self.packer.is_some() && self.is_packed(diff_id) {
            self.packer = None;
        }
        // A registry that may have the layer already is asked before it is sent.
        match &self.to {
            Some(to) if self.packer.is_some() && !self.has_source(diff_id) => {
                let registry = self.services.registry;
                self.stream.identify(|| registry.try_lock_sending(&to.name, diff_id));
            }
            _ => self.stream.give_up(),
        }
    }
}

impl Drop for HashingPass<'_> {
    fn drop(&mut self) {
        self.stream.end(None);
    }
}
