//! Base images from OCI layouts: their documents at once, their layers when they are needed.

use std::path::Path;

use crate::diag::Span;
use crate::image::{LayoutError, LayoutReader};
use crate::oci::{ImageConfig, ManifestOrIndex, Platform};
use crate::pathio::PathError;
use crate::plan::{ImageLocation, ImageRequest};
use crate::store::LayerSource;

use super::images::Resolved;
use super::shared::Steps;
use super::{BuildError, error};

type Result<T> = std::result::Result<T, BuildError>;

/// The image of a layout.
pub(super) fn resolve(
    steps: &Steps<'_>,
    request: &ImageRequest,
    span: Option<Span>,
) -> Result<Option<Resolved>> {
    let ImageLocation::Layout(place) = &request.location else { return Ok(None) };
    let bad = |reason: String| bad_image(request, span, reason);
    let failed = |error: LayoutError| bad(error::chain(&error));
    let reader = LayoutReader::new(&place.path);
    let (_, bytes) =
        reader.manifest(place.tag.as_deref(), place.digest, &request.platform).map_err(failed)?;
    let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes) else {
        return Err(bad("its manifest is an index".to_owned()));
    };
    let config_bytes = reader.document(manifest.config.digest).map_err(failed)?;
    let config = ImageConfig::parse(&config_bytes).map_err(|error| bad(error::chain(&error)))?;
    warn_platform(steps, request, &config.platform());
    let layout = absolute(&place.path)?;
    for (diff_id, blob) in config.rootfs.diff_ids.iter().zip(&manifest.layers) {
        let source = LayerSource { blob: blob.clone(), place: layout.clone() };
        steps.services.store.layer_sources().record(*diff_id, &source)?;
    }
    steps.services.store.put_blob(&config_bytes)?;
    let digest = steps.services.store.put_blob(&bytes)?;
    let (name, place) = (request.name.clone(), request.location.clone());
    Ok(Some(Resolved { name, place, span, digest, manifest, config }))
}

fn bad_image(request: &ImageRequest, span: Option<Span>, reason: String) -> BuildError {
    BuildError::BadImage { span, name: request.name.familiar(), reason }
}

fn warn_platform(steps: &Steps<'_>, request: &ImageRequest, have: &Platform) {
    if *have != request.platform {
        let (name, want) = (&request.name, &request.platform);
        let text = format!(
            "InvalidBaseImagePlatform: base image {name} is for platform \"{have}\", expected \"{want}\""
        );
        steps.event(super::Event::Warning { text });
    }
}

/// A layout's directory as the store remembers it.
pub(super) fn absolute(directory: &Path) -> Result<String> {
    let path = std::path::absolute(directory)
        .map_err(|error| PathError::new("find the directory", directory, error))?;
    Ok(path.to_string_lossy().into_owned())
}
