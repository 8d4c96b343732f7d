//! Which image of the store a word on the command line means.

use super::{CliError, Exit};
use crate::image::{Image, StoredImages};
use crate::oci::{Digest, Platform, Reference};
use crate::store::{ImageId, Store, StoreError};

/// Hex digits that an id must have at least, so that a misspelt name is none.
const MIN_ID: usize = 4;

/// An image of the store.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Its manifest or index.
    pub(super) top: Digest,
    /// The name that it was chosen by; `None` if by its id.
    pub(super) name: Option<Reference>,
}

/// The image of this name, or else with an id that begins so.
pub(super) fn image(store: &Store, text: &str) -> Result<Chosen, CliError> {
    let failed = |error: StoreError| CliError::from_error(&error, Exit::Environment);
    let name = text.parse::<Reference>();
    if let Ok(name) = &name
        && let Some(top) = store.tags().get(name).map_err(failed)?
    {
        return Ok(Chosen { top, name: Some(name.clone()) });
    }
    match (id(text), name) {
        (None, Err(error)) => Err(CliError::from_error(&error, Exit::Usage)),
        (None, Ok(_)) => Err(absent(text)),
        (Some(hex), _) => match store.images().by_id(&hex).map_err(failed)?.as_slice() {
            [ImageId { top, .. }] => Ok(Chosen { top: *top, name: None }),
            [] => Err(absent(text)),
            several => {
                let ids: Vec<String> = several.iter().map(|image| image.id.to_string()).collect();
                let text = format!("error: {text} may be {}: give more of it", ids.join(" or "));
                Err(CliError::new(text, Exit::Usage))
            }
        },
    }
}

fn absent(text: &str) -> CliError {
    let text = format!("error: there is no image {text} in the store; `rbuild images` lists them");
    CliError::new(text, Exit::Environment)
}

/// The hex digits of an id or of its beginning.
pub(super) fn id(text: &str) -> Option<String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let good = (MIN_ID..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    good.then_some(hex)
}

/// Of an image for several platforms, the one that was asked for, or else this machine's.
pub(super) fn one(
    loaded: &StoredImages,
    asked: Option<&str>,
    shown: &str,
) -> Result<Image, CliError> {
    let asked = asked.map(super::build_options::platform).transpose()?;
    if let (None, [only]) = (&asked, loaded.images.as_slice()) {
        return Ok(only.clone());
    }
    let wanted = asked.unwrap_or_else(Platform::host);
    let has: Vec<String> = loaded.images.iter().map(|image| image.platform().to_string()).collect();
    loaded.images.iter().find(|image| image.platform() == wanted).cloned().ok_or_else(|| {
        let text = format!(
            "error: {shown} has nothing for {wanted}, only {}: choose with --platform",
            has.join(", ")
        );
        CliError::new(text, Exit::Usage)
    })
}

/// The note for an index that is rewritten.
pub(super) fn left_out(name: &str, n_others: usize) -> String {
    format!(
        "{name} goes out without {n_others} entries of its index that are not images, such as \
         attestations: they are about manifests that are written anew"
    )
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn ids_are_told_from_names() {
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
