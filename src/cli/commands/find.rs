//! Lookup of images in the store by a name or an id from the command line.

use super::{CliError, Exit};
use crate::image::{Image, StoredImages};
use crate::oci::{Digest, Platform, Reference};
use crate::store::{ImageId, Store, StoreError};

/// Minimum number of hex digits in an abbreviated id, so that a short misspelt name is not taken for
/// one.
const MIN_ID: usize = 4;

/// An image selected by a word on the command line.
#[derive(Debug)]
pub(super) struct SelectedImage {
    /// Digest of the manifest or index.
    pub(super) top: Digest,
    /// The name that selected the image; `None` for an id.
    pub(super) name: Option<Reference>,
}

/// Returns the image with this name, or else the image whose id begins with `text`.
///
/// # Errors
/// [`Exit::Environment`] if the store has no such image, [`Exit::Usage`] if several ids match or
/// `text` is neither a name nor an id.
pub(super) fn image(store: &Store, text: &str) -> Result<SelectedImage, CliError> {
    let failed = |error: StoreError| CliError::from_error(&error, Exit::Environment);
    let name = text.parse::<Reference>();
    if let Ok(name) = &name
        && let Some(top) = store.tags().get(name).map_err(failed)?
    {
        return Ok(SelectedImage { top, name: Some(name.clone()) });
    }
    match (id(text), name) {
        (None, Err(error)) => Err(CliError::from_error(&error, Exit::Usage)),
        (None, Ok(_)) => Err(absent(text)),
        (Some(hex), _) => match store.images().by_id(&hex).map_err(failed)?.as_slice() {
            [ImageId { top, .. }] => Ok(SelectedImage { top: *top, name: None }),
            [] => Err(absent(text)),
            several => {
                let ids: Vec<String> = several.iter().map(|image| image.id.to_string()).collect();
                let text = format!(
                    "error: image id {text} is ambiguous: it matches {}",
                    ids.join(" and ")
                );
                Err(CliError::new(text, Exit::Usage))
            }
        },
    }
}

fn absent(text: &str) -> CliError {
    let text = format!("error: no image {text} in the store; `rbuild images` lists all images");
    CliError::new(text, Exit::Environment)
}

/// Returns the hex digits of a whole or abbreviated id; `None` if `text` cannot be an id.
pub(super) fn id(text: &str) -> Option<String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let good = (MIN_ID..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    good.then_some(hex)
}

/// Returns the image for the `requested` platform, or else for the host. A single image is returned
/// whatever its platform is, unless one is requested.
///
/// # Errors
/// [`Exit::Usage`] if the image is not available for the platform.
pub(crate) fn for_platform(
    loaded: &StoredImages,
    requested: Option<&str>,
    shown: &str,
) -> Result<Image, CliError> {
    let requested = requested.map(super::build_options::platform).transpose()?;
    if let (None, [only]) = (&requested, loaded.images.as_slice()) {
        return Ok(only.clone());
    }
    let wanted = requested.unwrap_or_else(Platform::host);
    let has: Vec<String> = loaded.images.iter().map(|image| image.platform().to_string()).collect();
    loaded.images.iter().find(|image| image.platform() == wanted).cloned().ok_or_else(|| {
        let text = format!(
            "error: {shown} is not available for {wanted}, only for {}: choose one with --platform",
            has.join(", ")
        );
        CliError::new(text, Exit::Usage)
    })
}

/// Returns the warning for an index that loses entries because its manifests are rewritten.
pub(super) fn omitted_entries(name: &str, n_others: usize) -> String {
    let entries = match n_others {
        1 => "1 entry of its index that describes".to_owned(),
        n => format!("{n} entries of its index that describe"),
    };
    format!(
        "{name} is exported without {entries} other manifests, such as attestations: this export \
         rewrites those manifests"
    )
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn ids_are_distinguished_from_names() {
        for (text, want) in [
            ("sha256:ABCDEF", Some("abcdef")),
            ("0123", Some("0123")),
            ("012", None),
            ("app", None),
            ("face:1", None),
        ] {
            assert_eq!(id(text).as_deref(), want, "{text}");
        }
    }
}
