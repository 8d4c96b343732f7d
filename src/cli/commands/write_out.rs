//! The outputs of a build: files, archives, pushes to registries, images loaded into docker or podman,
//! and names in the store.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::environment::Environment;
use crate::cli::outputs::Outputs;
use crate::cli::outputs::engine::{self, EngineLocation, LoadError};
use crate::cli::outputs::output::{Output, OutputKind};
use crate::dockerfile::ir;
use crate::executor::{self, BuildError, BuildOptions, Built, Event, Services};
use crate::image::{
    self, ExportOptions, ExportTarget, ExportWarning, Image, ImageGroup, StoredImages, StreamFormat,
};
use crate::oci::{Annotation, Descriptor, DiffId, Digest, Reference};
use crate::store::{LayerOptions, Store};

type Result<T> = std::result::Result<T, WriteError>;

/// Error of writing an output.
pub(super) enum WriteError {
    /// An error of the library, as a failing build has.
    Build(executor::Failure),
    /// docker or podman could not load the image.
    Load(LoadError),
}

impl<E: Into<BuildError>> From<E> for WriteError {
    fn from(error: E) -> Self {
        Self::Build(executor::Failure::new(error.into()))
    }
}

/// Digests and names of the written outputs.
#[derive(Debug, Default)]
pub(super) struct WrittenOutputs {
    /// The last manifest or index that was written.
    pub(super) top: Option<Descriptor>,
    /// Names with digests, set for `name-canonical=true` and `dangling-name-prefix`.
    pub(super) canonical: Vec<Reference>,
}

/// Writes the outputs of one build.
#[derive(Clone, Copy)]
pub(super) struct OutputWriter<'a> {
    pub(super) services: &'a Services<'a>,
    pub(super) environment: &'a Environment,
    pub(super) options: &'a BuildOptions,
    pub(super) outputs: &'a Outputs,
}

impl OutputWriter<'_> {
    /// Writes the image to all outputs.
    pub(super) fn all(&self, built: &Built) -> Result<WrittenOutputs> {
        let mut written = WrittenOutputs::default();
        if self.outputs.all.is_empty() {
            return Ok(written);
        }
        let store = self.services.store;
        let loaded = StoredImages::load(store, built.top)?;
        let needs_layers = |output: &Output| {
            output.unpacked
                || !matches!(
                    output.kind,
                    OutputKind::Cache | OutputKind::Store | OutputKind::Registry
                )
        };
        if self.outputs.all.iter().any(needs_layers) {
            executor::fetch_images(self.services, &loaded.images).map_err(WriteError::Build)?;
        }
        for output in &self.outputs.all {
            let export = self.export_options(output, &loaded);
            let top = self.write(output, &loaded.images, &export)?;
            if matches!(output.kind, OutputKind::Store | OutputKind::Registry) {
                let digest = top.as_ref().map(|top| top.digest);
                written.canonical.extend(self.keep(output, built.top, digest)?);
            }
            written.top = top.or(written.top);
            if output.unpacked {
                loaded.images.iter().try_for_each(|image| unpack(store, image))?;
            }
        }
        Ok(written)
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
            // The index may have changed since the check before the first step.
            guarded_names: self.options.guarded_names.clone(),
            ignores_immutable_tags: self.outputs.ignores_immutable_tags,
            trusts_tag: true,
            split: output.split,
            keeps_special: self.outputs.keeps_special,
            deletes_others: output.deletes_others,
        }
    }

    /// Writes one output. Returns its manifest or index, if the output has one.
    fn write(
        &self,
        output: &Output,
        images: &[Image],
        export: &ExportOptions,
    ) -> Result<Option<Descriptor>> {
        let target = match &output.kind {
            OutputKind::Cache | OutputKind::Store => return Ok(None),
            OutputKind::Registry => return self.push(images, export),
            OutputKind::Engine => return self.load(images, export),
            OutputKind::OciArchive(path) => ExportTarget::OciArchive(path.clone()),
            OutputKind::OciDirectory(path) => ExportTarget::OciDirectory(path.clone()),
            OutputKind::DockerArchive(path) => ExportTarget::DockerArchive(path.clone()),
            OutputKind::Directory(path) => ExportTarget::Directory(path.clone()),
            OutputKind::Tar(path) => ExportTarget::Tar(path.clone()),
        };
        let mut warn =
            |warning: ExportWarning| self.emit(Event::Warning { text: warning.to_string() });
        let written = image::export_all(self.services.store, images, &target, export, &mut warn)?;
        let path = output.kind.path().map_or(Path::new("-"), |path| path);
        self.emit(Event::Wrote { path: path.to_owned() });
        // An output of plain files has no manifest.
        Ok(output.kind.has_documents().then_some(written))
    }

    fn push(&self, images: &[Image], export: &ExportOptions) -> Result<Option<Descriptor>> {
        let bases = base_names(&self.options.dockerfile);
        let mut names = export.names.clone();
        if export.by_digest {
            // Pushing by digest uses no tags: names of the same repository are the same push.
            names.dedup_by_key(|name| name.name());
        }
        let mut pushed = executor::push(self.services, images, &names, &bases, export)
            .map_err(WriteError::Build)?;
        for (name, top) in names.iter().zip(&pushed) {
            let name = if export.by_digest { name.name() } else { name.to_string() };
            self.emit(Event::Pushed { name, digest: top.digest });
        }
        Ok(pushed.pop())
    }

    /// Loads an image into docker or podman.
    fn load(&self, images: &[Image], export: &ExportOptions) -> Result<Option<Descriptor>> {
        let place = self.outputs.place.as_ref().unwrap_or(&EngineLocation::Program("docker"));
        let mut top = None;
        let no_annotations = BTreeMap::new();
        let lines = engine::load(place, self.environment, &mut |known, out| {
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
            top = Some(written);
            Ok(())
        });
        let lines = lines.map_err(|error| match error {
            LoadError::Export(error) => error.into(),
            other @ (LoadError::NotFound(_)
            | LoadError::Program { .. }
            | LoadError::Io { .. }
            | LoadError::Engine(_)) => WriteError::Load(other),
        })?;
        let lines = lines.into_iter().filter(|line| !line.is_empty());
        lines.for_each(|text| self.emit(Event::Note { text }));
        Ok(top)
    }

    /// Sets the further names of the image in the store. Returns them.
    fn keep(&self, output: &Output, top: Digest, pushed: Option<Digest>) -> Result<Vec<Reference>> {
        let names = self.outputs.names_of(output);
        let mut kept = Vec::new();
        if output.canonical {
            kept.extend(names.iter().map(|name| name.with_digest(pushed.unwrap_or(top))));
        }
        if names.is_empty() {
            kept.extend(output.dangling_prefix.iter().map(|prefix| prefix.with_digest(top)));
        }
        if output.stored {
            kept.iter().try_for_each(|name| self.services.store.tags().set(name, top))?;
        }
        Ok(kept)
    }

    fn emit(&self, event: Event) {
        (self.services.events)(event);
    }
}

/// Unpacks the layers of an image in the store, base first.
fn unpack(store: &Store, image: &Image) -> Result<()> {
    let options = LayerOptions { clamp_s: None, created_s: 0 };
    let mut lowers: Vec<DiffId> = Vec::new();
    for layer in image.layers() {
        store.unpacked_on(layer.diff_id, &lowers, &options, &|| {})?;
        lowers.push(layer.diff_id);
    }
    Ok(())
}

/// Returns the names of base images. Their repositories already have the lower layers, which a push
/// can mount from there (distribution-spec, "Mounting a blob from another repository").
fn base_names(dockerfile: &ir::Dockerfile) -> Vec<Reference> {
    dockerfile.stages.iter().filter_map(|stage| stage.from.image.value.parse().ok()).collect()
}
