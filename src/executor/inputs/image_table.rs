//! The table of all images that a build names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::diag::Span;
use crate::executor::stack::Stack;
use crate::executor::{BuildError, BuildOptions, Services};
use crate::limits::MAX_IMAGES_AT_ONCE;
use crate::oci::DiffId;
use crate::plan::{ImageLocation, ImageRequest, Images};
use crate::pool;
use crate::store::LayerOptions;

use super::image::{ResolvedImage, base_image};
use super::image_layers::{fetch_known, fetch_layers};
use super::resolve;

type Result<T> = std::result::Result<T, BuildError>;

/// The images that a build has resolved.
#[derive(Debug, Default)]
pub(in crate::executor) struct ImageTable {
    pub(in crate::executor) resolved: BTreeMap<ImageRequest, ResolvedImage>,
    fetches: LayerFetches,
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
        for (request, _) in needs.iter().filter(|(it, _)| it.location == ImageLocation::Registry) {
            services.registry.expect_access(&request.name, false);
        }
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

    /// Pulls the image that has this layer, or only the layer from a location that the store knows. Unpacks
    /// it meanwhile if `unpack` says how.
    /// Waits for a thread that does so already.
    ///
    /// # Errors
    /// That of [`Self::fetch_ahead`], if it failed, or of the own attempt.
    pub(in crate::executor) fn fetch_layer(
        &self,
        services: &Services<'_>,
        diff_id: DiffId,
        unpack: Option<&LayerOptions>,
    ) -> Result<()> {
        let lock = self.lock_of(diff_id);
        let _alone = pool::lock(&lock);
        if let Some(error) = pool::lock(&self.fetches.errors).remove(&diff_id) {
            return Err(error);
        }
        self.fetch(services, diff_id, unpack)
    }

    /// Fetches a layer like [`Self::fetch_layer`], for a thread that will need it later and will
    /// report the error. Returns whether the store has it.
    pub(in crate::executor) fn fetch_ahead(
        &self,
        services: &Services<'_>,
        diff_id: DiffId,
        unpack: Option<&LayerOptions>,
    ) -> bool {
        let lock = self.lock_of(diff_id);
        let _alone = pool::lock(&lock);
        let Err(error) = self.fetch(services, diff_id, unpack) else { return true };
        pool::lock(&self.fetches.errors).insert(diff_id, error);
        false
    }

    fn fetch(
        &self,
        services: &Services<'_>,
        diff_id: DiffId,
        unpack: Option<&LayerOptions>,
    ) -> Result<()> {
        match self.image_of(diff_id) {
            Some(resolved) => fetch_layers(services, resolved, unpack),
            None => fetch_known(services, diff_id, unpack),
        }
    }

    fn lock_of(&self, diff_id: DiffId) -> Arc<Mutex<()>> {
        if self.image_of(diff_id).is_some() {
            return Arc::clone(&self.fetches.images);
        }
        Arc::clone(pool::lock(&self.fetches.layers).entry(diff_id).or_default())
    }
}

/// The layers that threads of a build fetch, each at most once. A panic while one of the locks was held
/// says nothing about the store.
#[derive(Debug, Default)]
struct LayerFetches {
    /// Locked while an image is pulled: others may have some of its layers.
    images: Arc<Mutex<()>>,
    /// Locked while a layer of no image is fetched.
    layers: Mutex<BTreeMap<DiffId, Arc<Mutex<()>>>>,
    /// Errors that no thread has reported.
    errors: Mutex<BTreeMap<DiffId, BuildError>>,
}
