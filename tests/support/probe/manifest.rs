//! Documents of images: what is written again is the same.

use rbuild::oci::{ImageConfig, ManifestOrIndex, Platform, compact};

/// Reads `bytes` as a manifest, an index and a config.
pub(crate) fn probe(bytes: &[u8]) {
    let platform = Platform::new("linux", "arm64", Some("v8"));
    match ManifestOrIndex::parse(bytes) {
        Ok(ManifestOrIndex::Manifest(manifest)) => {
            for layer in &manifest.layers {
                let _ = layer.media_type.layer_compression();
            }
            let again = ManifestOrIndex::parse(&compact(&manifest));
            assert_eq!(again.ok(), Some(ManifestOrIndex::Manifest(manifest)));
        }
        Ok(ManifestOrIndex::Index(index)) => {
            let _ = index.select(&platform);
            assert_eq!(
                ManifestOrIndex::parse(&compact(&index)).ok(),
                Some(ManifestOrIndex::Index(index))
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(config) = ImageConfig::parse(bytes) {
        let _ = (config.platform(), config.config.env("PATH"));
        let json = config.to_json();
        let again = ImageConfig::parse(&json).map(|config| config.to_json());
        assert_eq!(again.ok(), Some(json));
    }
}
