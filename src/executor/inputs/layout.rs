//! Base images in OCI layouts: their documents are read at once, their layers when a step needs
//! them.

use crate::diag::Span;
use crate::image::{LayoutError, LayoutReader};
use crate::oci::{ImageConfig, ManifestOrIndex, Platform};
use crate::plan::{ImageLocation, ImageRequest};
use crate::store::LayerSource;

use super::image::ResolvedImage;
use super::layout_path::absolute;
use crate::executor::{BuildError, Services, chain};

type Result<T> = std::result::Result<T, BuildError>;

/// Reads the image of a layout; `None` if the request is not for a layout.
pub(in crate::executor) fn resolve(
    services: &Services<'_>,
    request: &ImageRequest,
    span: Option<Span>,
) -> Result<Option<ResolvedImage>> {
    let ImageLocation::Layout(place) = &request.location else { return Ok(None) };
    let bad = |reason: String| bad_image(request, span, reason);
    let failed = |error: LayoutError| bad(chain(&error));
    let reader = LayoutReader::new(&place.path);
    let (_, bytes) =
        reader.manifest(place.tag.as_deref(), place.digest, &request.platform).map_err(failed)?;
    let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes) else {
        return Err(bad("its manifest is an index".to_owned()));
    };
    let config_bytes = reader.document(manifest.config.digest).map_err(failed)?;
    let config = ImageConfig::parse(&config_bytes).map_err(|error| bad(chain(&error)))?;
    warn_platform(services, request, &config.platform());
    let layout = absolute(&place.path)?;
    for (diff_id, blob) in config.rootfs.diff_ids.iter().zip(&manifest.layers) {
        let source = LayerSource { blob: blob.clone(), place: layout.clone() };
        services.store.layer_sources().record(*diff_id, &source)?;
    }
    services.store.put_blob(&config_bytes)?;
    let digest = services.store.put_blob(&bytes)?;
    let (name, place) = (request.name.clone(), request.location.clone());
    Ok(Some(ResolvedImage { name, place, span, digest, manifest, config }))
}

fn bad_image(request: &ImageRequest, span: Option<Span>, reason: String) -> BuildError {
    BuildError::BadImage { span, name: request.name.familiar(), reason }
}

fn warn_platform(services: &Services<'_>, request: &ImageRequest, have: &Platform) {
    if *have != request.platform {
        let (name, want) = (&request.name, &request.platform);
        let text = format!(
            "InvalidBaseImagePlatform: base image {name} is for platform \"{have}\", expected \"{want}\""
        );
        services.event(crate::executor::Event::Warning { text });
    }
}
