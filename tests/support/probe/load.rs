//! The tables of contents of archives that `load` reads.

use rbuild::image::probe_table;
use rbuild::oci::{ManifestOrIndex, Reference};

/// Reads `bytes` as `manifest.json` of an archive, and as `index.json` of a layout.
pub(crate) fn probe(bytes: &[u8]) {
    if let Err(error) = probe_table(bytes) {
        assert!(!error.is_empty());
    }
    let Ok(ManifestOrIndex::Index(index)) = ManifestOrIndex::parse(bytes) else { return };
    for entry in &index.manifests {
        let names = entry.annotations.values();
        let _ = names.filter(|name| name.parse::<Reference>().is_ok()).count();
    }
}
