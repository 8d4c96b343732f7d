//! What a build writes out: files, archives, images in registries and engines, names in the store.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::environment::Environment;
use crate::cli::outputs::Outputs;
use crate::cli::outputs::engine::{self, LoadError, Place};
use crate::cli::outputs::output::{Kind, Output};
use crate::dockerfile::ir;
use crate::executor::{self, BuildError, BuildOptions, Built, Event, Services};
use crate::image::{
    self, ExportOptions, ExportTarget, ExportWarning, Image, ImageGroup, RegistryRetries,
    StoredImages, StreamFormat,
};
use crate::oci::{Annotation, DiffId, Digest, Platform, Reference};
use crate::store::{LayerOptions, Store};

type Result<T> = std::result::Result<T, WriteError>;

/// Why something was not written.
pub(super) enum WriteError {
    /// As for a build.
    Build(executor::Failure),
    /// Neither docker nor podman took the image.
    Load(LoadError),
}

impl<E: Into<BuildError>> From<E> for WriteError {
    fn from(error: E) -> Self {
        Self::Build(executor::Failure::new(error.into()))
    }
}

/// What went out.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The digest of the last manifest or index.
    pub(super) digest: Option<Digest>,
    /// Names with digests that the image got beside its others.
    pub(super) canonical: Vec<Reference>,
}

/// All that writing out needs.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) services: &'a Services<'a>,
    pub(super) environment: &'a Environment,
    pub(super) options: &'a BuildOptions,
    pub(super) outputs: &'a Outputs,
}

impl Writer<'_> {
    /// Sees to it that no push drops platforms from an index, unless that was asked for.
    pub(super) fn check_indexes(
        &self,
        platforms: &[Platform],
        patience: RegistryRetries,
    ) -> std::result::Result<(), executor::Failure> {
        if self.outputs.replaces_index {
            return Ok(());
        }
        executor::check_platforms(self.services, &self.outputs.pushed_names(), platforms, patience)
    }

    /// Hands the image to every sink that was asked for.
    pub(super) fn all(&self, built: &Built) -> Result<Sent> {
        let mut sent = Sent::default();
        if self.outputs.all.is_empty() {
            return Ok(sent);
        }
        let store = self.services.store;
        let loaded = StoredImages::load(store, built.top)?;
        let needs_layers = |output: &Output| {
            output.unpacked || !matches!(output.kind, Kind::Cache | Kind::Store | Kind::Registry)
        };
        if self.outputs.all.iter().any(needs_layers) {
            executor::fetch_images(self.services, &loaded.images).map_err(WriteError::Build)?;
        }
        let platforms: Vec<Platform> = loaded.images.iter().map(Image::platform).collect();
        self.check_indexes(&platforms, RegistryRetries::Retries).map_err(WriteError::Build)?;
        for output in &self.outputs.all {
            let export = self.export_options(output, &loaded);
            let digest = self.write(output, &loaded.images, &export)?;
            sent.digest = digest.or(sent.digest);
            if matches!(output.kind, Kind::Store | Kind::Registry) {
                sent.canonical.extend(self.keep(output, built.top, digest)?);
            }
            if output.unpacked {
                loaded.images.iter().try_for_each(|image| unpack(store, image))?;
            }
        }
        Ok(sent)
    }

    fn export_options(&self, output: &Output, loaded: &StoredImages) -> ExportOptions {
        let mut annotations = Annotation::of_index(&loaded.annotations);
        annotations.extend(self.outputs.annotations_of(output));
        ExportOptions {
            packing: output.packing,
            force_packing: output.force_packing,
            docker_media_types: output.docker_media_types,
            jobs: self.options.jobs,
            names: self.outputs.names_of(output).to_vec(),
            always_index: loaded.is_index,
            created: loaded.images.iter().filter_map(Image::created).max().map(str::to_owned),
            annotations,
            by_digest: output.by_digest,
            split: output.split,
            keeps_special: self.outputs.keeps_special,
        }
    }

    /// Writes one output; gives the digest of a manifest or index.
    fn write(
        &self,
        output: &Output,
        images: &[Image],
        export: &ExportOptions,
    ) -> Result<Option<Digest>> {
        let target = match &output.kind {
            Kind::Cache | Kind::Store => return Ok(None),
            Kind::Registry => return self.push(images, export),
            Kind::Engine => return self.load(images, export),
            Kind::OciArchive(path) => ExportTarget::OciArchive(path.clone()),
            Kind::OciDirectory(path) => ExportTarget::OciDirectory(path.clone()),
            Kind::DockerArchive(path) => ExportTarget::DockerArchive(path.clone()),
            Kind::Directory(path) => ExportTarget::Directory(path.clone()),
            Kind::Tar(path) => ExportTarget::Tar(path.clone()),
        };
        let mut warn =
            |warning: ExportWarning| self.tell(Event::Warning { text: warning.to_string() });
        let written = image::export_all(self.services.store, images, &target, export, &mut warn)?;
        let path = output.kind.path().map_or(Path::new("-"), |path| path);
        self.tell(Event::Wrote { path: path.to_owned() });
        // Where only files are written, there is no manifest.
        Ok(output.kind.has_documents().then_some(written.digest))
    }

    fn push(&self, images: &[Image], export: &ExportOptions) -> Result<Option<Digest>> {
        let bases = base_names(&self.options.dockerfile);
        let mut names = export.names.clone();
        if export.by_digest {
            // Without tags, all names of a repository are one.
            names.dedup_by_key(|name| name.name());
        }
        let digests = executor::push(self.services, images, &names, &bases, export)
            .map_err(WriteError::Build)?;
        for (name, digest) in names.iter().zip(&digests) {
            let name = if export.by_digest { name.name() } else { name.to_string() };
            self.tell(Event::Pushed { name, digest: *digest });
        }
        Ok(digests.last().copied())
    }

    /// Loads an image into docker or podman.
    fn load(&self, images: &[Image], export: &ExportOptions) -> Result<Option<Digest>> {
        let place = self.outputs.place.as_ref().unwrap_or(&Place::Program("docker"));
        let mut digest = None;
        let no_annotations = BTreeMap::new();
        let said = engine::load(place, self.environment, &mut |known, out| {
            let group = ImageGroup {
                images,
                is_index: false,
                names: &export.names,
                created: export.created.as_deref(),
                annotations: &no_annotations,
                left_out: Some(known),
            };
            let store = self.services.store;
            let written =
                image::save_stream(store, &[group], StreamFormat::DockerArchive, out, export)?;
            digest = Some(written.digest);
            Ok(())
        });
        let said = said.map_err(|error| match error {
            LoadError::Export(error) => error.into(),
            other @ (LoadError::Nowhere(_)
            | LoadError::Program { .. }
            | LoadError::Io { .. }
            | LoadError::Engine(_)) => WriteError::Load(other),
        })?;
        let said = said.into_iter().filter(|line| !line.is_empty());
        said.for_each(|text| self.tell(Event::Note { text }));
        Ok(digest)
    }

    /// Gives the image its further names in the store.
    fn keep(&self, output: &Output, top: Digest, sent: Option<Digest>) -> Result<Vec<Reference>> {
        let names = self.outputs.names_of(output);
        let mut kept = Vec::new();
        if output.canonical {
            kept.extend(names.iter().map(|name| name.with_digest(sent.unwrap_or(top))));
        }
        if names.is_empty() {
            kept.extend(output.dangling_prefix.iter().map(|prefix| prefix.with_digest(top)));
        }
        if output.stored {
            kept.iter().try_for_each(|name| self.services.store.tags().set(name, top))?;
        }
        Ok(kept)
    }

    fn tell(&self, event: Event) {
        (self.services.events)(event);
    }
}

/// Unpacks an image's layers in the store, base first.
fn unpack(store: &Store, image: &Image) -> Result<()> {
    let options = LayerOptions { clamp_s: None, created_s: 0 };
    let mut lowers: Vec<DiffId> = Vec::new();
    for layer in image.layers() {
        store.unpacked_on(layer.diff_id, &lowers, &options, &|| {})?;
        lowers.push(layer.diff_id);
    }
    Ok(())
}

/// Images that the Dockerfile starts from: their repositories have the layers already.
fn base_names(dockerfile: &ir::Dockerfile) -> Vec<Reference> {
    dockerfile.stages.iter().filter_map(|stage| stage.from.image.value.parse().ok()).collect()
}
