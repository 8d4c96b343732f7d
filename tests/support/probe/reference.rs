//! Names of images: the full and the familiar form mean the same.

use rbuild::oci::{Platform, Reference};
use rbuild::plan::context_name;

/// Reads `bytes` as the name of an image, and as a platform.
pub(crate) fn probe(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(name) = text.parse::<Reference>() {
        assert_eq!(name.to_string().parse().as_ref(), Ok(&name));
        assert_eq!(name.familiar().parse().as_ref(), Ok(&name));
        assert!(!name.repository().is_empty() && !name.selector().is_empty());
        assert!(context_name(&text).is_some());
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse().ok(), Some(platform));
    }
}
