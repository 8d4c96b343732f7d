//! The table of all images that a build names.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::diag::Span;
use crate::executor::stack::Stack;
use crate::executor::{BuildError, BuildOptions, Services};
use crate::limits::MAX_IMAGES_AT_ONCE;
use crate::oci::DiffId;
use crate::plan::{ImageRequest, Images};
use crate::pool;

use super::image::{ResolvedImage, base_image};
use super::image_layers::{fetch_known, fetch_layers};
use super::resolve;

type Result<T> = std::result::Result<T, BuildError>;

/// The images that a build has resolved.
#[derive(Debug, Default)]
pub(in crate::executor) struct ImageTable {
    pub(in crate::executor) resolved: BTreeMap<ImageRequest, ResolvedImage>,
    /// Locked while layers are fetched, so that stages with the same base image wait for each
    /// other.
    layers: Mutex<()>,
    shared_stacks: Mutex<BTreeMap<ImageRequest, Stack>>,
}

impl ImageTable {
    pub(in crate::executor) fn get(&self, request: &ImageRequest) -> &ResolvedImage {
        self.resolved.get(request).expect("a plan names only images that were resolved")
    }

    /// Returns the stack of an image's layers.
    pub(in crate::executor) fn stack(&self, request: &ImageRequest) -> Stack {
        let mut stacks = pool::lock(&self.shared_stacks);
        stacks.entry(request.clone()).or_insert_with(|| self.get(request).stack()).clone()
    }

    /// Resolves all missing images at once, and adds what planning needs of them.
    pub(in crate::executor) fn resolve(
        &mut self,
        services: &Services<'_>,
        options: &BuildOptions,
        needs: &[(ImageRequest, Span)],
        images: &mut Images,
    ) -> Result<()> {
        let found = pool::map_in_order(needs, MAX_IMAGES_AT_ONCE, |(request, span)| {
            let resolved = resolve::image(services, options, request, Some(*span))?;
            let base = base_image(&resolved.config, *span)?;
            Ok::<_, BuildError>((request.clone(), resolved, base))
        });
        for found in found {
            let (request, resolved, base) = found?;
            images.insert(request.clone(), base);
            self.resolved.insert(request, resolved);
        }
        Ok(())
    }

    /// Returns the image that has this layer.
    pub(in crate::executor) fn image_of(&self, diff_id: DiffId) -> Option<&ResolvedImage> {
        let has = |resolved: &&ResolvedImage| resolved.layers().any(|(layer, _)| layer == diff_id);
        self.resolved.values().find(has)
    }

    /// Pulls the image that has this layer, or only the layer from a location that the store knows.
    pub(in crate::executor) fn fetch_layer(
        &self,
        services: &Services<'_>,
        diff_id: DiffId,
    ) -> Result<()> {
        // A panic while it was locked says nothing about the store.
        let _alone = pool::lock(&self.layers);
        match self.image_of(diff_id) {
            Some(resolved) => fetch_layers(services, resolved),
            None => fetch_known(services, diff_id),
        }
    }
}
