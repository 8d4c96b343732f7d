//! What a build writes out: files, archives, images in registries.

use std::path::Path;

use crate::build::{self, BuildError, BuildOptions, Built, Services};
use crate::cli::output::{Kind, Output};
use crate::cli::report;
use crate::image::{self, ExportOptions, Image, Loaded, Target};
use crate::ir;
use crate::oci::{Digest, Reference};

type Result<T> = std::result::Result<T, build::Failure>;

/// Hands the image to every sink that was asked for; gives the digest of the last manifest or index
/// that went out.
pub(super) fn all(
    services: &Services<'_>,
    options: &BuildOptions,
    built: &Built,
    outputs: &[Output],
    quiet: bool,
) -> Result<Option<Digest>> {
    let error = |error| build::Failure::new(BuildError::Export(error));
    if outputs.is_empty() {
        return Ok(None);
    }
    let Loaded { images, is_index } = Loaded::load(services.store, built.top).map_err(error)?;
    let is_written = |output: &Output| !matches!(output.kind, Kind::Store | Kind::Registry);
    if outputs.iter().any(is_written) {
        build::fetch_images(services, &images)?;
    }
    let mut sent = None;
    for output in outputs {
        let export = ExportOptions {
            packing: output.packing,
            force_packing: output.force_packing,
            docker_media_types: output.docker_media_types,
            jobs: options.jobs,
            names: options.tags.clone(),
            always_index: is_index,
            created: images.iter().filter_map(Image::created).max().map(str::to_owned),
        };
        let target = match &output.kind {
            Kind::Store => continue,
            Kind::Registry => {
                let pushed = push(services, &images, options, &export, quiet)?;
                sent = pushed.or(sent);
                continue;
            }
            Kind::OciArchive(path) => Target::OciArchive(path.clone()),
            Kind::OciFolder(path) => Target::OciFolder(path.clone()),
            Kind::DockerArchive(path) => Target::DockerArchive(path.clone()),
            Kind::Folder(path) => Target::Folder(path.clone()),
            Kind::Tar(path) => Target::Tar(path.clone()),
        };
        let mut warn = |warning| report::remark(&format!("warning: {warning}"));
        let written = image::export_all(services.store, &images, &target, &export, &mut warn)
            .map_err(error)?;
        // Where only files are written, there is no manifest.
        if !matches!(target, Target::Folder(_) | Target::Tar(_)) {
            sent = Some(written.digest);
        }
        if !quiet {
            report::remark(&format!("wrote {}", target_path(&output.kind).display()));
        }
    }
    Ok(sent)
}

fn target_path(kind: &Kind) -> &Path {
    match kind {
        Kind::Store | Kind::Registry => Path::new(""),
        Kind::OciArchive(path)
        | Kind::OciFolder(path)
        | Kind::DockerArchive(path)
        | Kind::Folder(path)
        | Kind::Tar(path) => path,
    }
}

fn push(
    services: &Services<'_>,
    images: &[Image],
    options: &BuildOptions,
    export: &ExportOptions,
    quiet: bool,
) -> Result<Option<Digest>> {
    let bases = base_names(&options.dockerfile);
    let pushed = build::push(services, images, &options.tags, &bases, export)?;
    for (name, digest) in options.tags.iter().zip(&pushed) {
        if !quiet {
            report::remark(&format!("pushed {name}@{digest}"));
        }
    }
    Ok(pushed.last().copied())
}

/// Images that the Dockerfile starts from: their repositories have the layers already.
fn base_names(dockerfile: &ir::Dockerfile) -> Vec<Reference> {
    dockerfile.stages.iter().filter_map(|stage| stage.from.image.value.parse().ok()).collect()
}
