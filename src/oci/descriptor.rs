//! Descriptors, manifests and indexes, in OCI and Docker media types.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_LAYERS;

use super::{Digest, Platform};

/// The media types that rbuild reads and writes (image-spec, media-types.md). All others are kept
/// as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum MediaType {
    /// An OCI image manifest.
    OciManifest,
    /// An OCI image index.
    OciIndex,
    /// An OCI image config.
    OciConfig,
    /// An OCI image layer.
    OciLayer(LayerCompression),
    /// A Docker image manifest, schema 2.
    DockerManifest,
    /// A Docker manifest list.
    DockerIndex,
    /// A Docker image config.
    DockerConfig,
    /// A Docker image layer.
    DockerLayer(LayerCompression),
    /// Any other media type.
    Other(Box<str>),
}

/// The compression of a layer's tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerCompression {
    /// A tar without compression.
    None,
    /// Compression with gzip (RFC 1952).
    Gzip,
    /// Compression with zstd (RFC 8878).
    Zstd,
}

const MEDIA_TYPES: [(MediaType, &str); 12] = [
    (MediaType::OciManifest, "application/vnd.oci.image.manifest.v1+json"),
    (MediaType::OciIndex, "application/vnd.oci.image.index.v1+json"),
    (MediaType::OciConfig, "application/vnd.oci.image.config.v1+json"),
    (MediaType::OciLayer(LayerCompression::None), "application/vnd.oci.image.layer.v1.tar"),
    (MediaType::OciLayer(LayerCompression::Gzip), "application/vnd.oci.image.layer.v1.tar+gzip"),
    (MediaType::OciLayer(LayerCompression::Zstd), "application/vnd.oci.image.layer.v1.tar+zstd"),
    (MediaType::DockerManifest, "application/vnd.docker.distribution.manifest.v2+json"),
    (MediaType::DockerIndex, "application/vnd.docker.distribution.manifest.list.v2+json"),
    (MediaType::DockerConfig, "application/vnd.docker.container.image.v1+json"),
    (
        MediaType::DockerLayer(LayerCompression::None),
        "application/vnd.docker.image.rootfs.diff.tar",
    ),
    (
        MediaType::DockerLayer(LayerCompression::Gzip),
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
    (
        MediaType::DockerLayer(LayerCompression::Zstd),
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ),
];

impl MediaType {
    /// Returns the media type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(text) => text,
            known @ (Self::OciManifest
            | Self::OciIndex
            | Self::OciConfig
            | Self::OciLayer(_)
            | Self::DockerManifest
            | Self::DockerIndex
            | Self::DockerConfig
            | Self::DockerLayer(_)) => MEDIA_TYPES
                .iter()
                .find_map(|(media_type, text)| (media_type == known).then_some(*text))
                .expect("the table has every variant but `Other`"),
        }
    }

    /// Returns whether it is an image manifest, not an index.
    #[must_use]
    pub const fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// Returns the compression of a layer type. `None` for other types.
    #[must_use]
    pub fn layer_compression(&self) -> Option<LayerCompression> {
        match self {
            Self::OciLayer(compression) | Self::DockerLayer(compression) => Some(*compression),
            // Layers that must not be pushed, such as Windows base layers. Obsolete (image-spec,
            // layer.md, "Non-Distributable Layers"), but images still have them.
            Self::Other(text) if text.contains("nondistributable") || text.contains("foreign") => {
                Some(match text.rsplit(['+', '.']).next() {
                    Some("gzip") => LayerCompression::Gzip,
                    Some("zstd") => LayerCompression::Zstd,
                    _ => LayerCompression::None,
                })
            }
            Self::OciManifest
            | Self::OciIndex
            | Self::OciConfig
            | Self::DockerManifest
            | Self::DockerIndex
            | Self::DockerConfig
            | Self::Other(_) => None,
        }
    }
}

impl From<String> for MediaType {
    fn from(text: String) -> Self {
        MEDIA_TYPES
            .iter()
            .find_map(|(media_type, known)| (*known == text).then(|| media_type.clone()))
            .unwrap_or(Self::Other(text.into_boxed_str()))
    }
}

impl From<MediaType> for String {
    fn from(media_type: MediaType) -> Self {
        media_type.as_str().to_owned()
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reference to a blob (image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The blob's media type.
    pub media_type: MediaType,
    /// The digest of the blob.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// Other addresses of the blob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations by key (image-spec, annotations.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The image's platform, in entries of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Describes `bytes`.
    ///
    /// # Panics
    /// Never: a slice is shorter than 2^64.
    #[must_use]
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Self {
        let size = u64::try_from(bytes.len()).expect("a slice is shorter than 2^64");
        Self::new(media_type, Digest::of(bytes), size)
    }

    /// Creates a descriptor without annotations and platform.
    #[must_use]
    pub const fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        let annotations = BTreeMap::new();
        Self { media_type, digest, size, urls: Vec::new(), annotations, platform: None }
    }
}

/// An image manifest: config and layers, base first (image-spec, manifest.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2 (image-spec, manifest.md, "schemaVersion").
    pub schema_version: u32,
    /// The media type. Only other tools omit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The descriptor of the image config.
    pub config: Descriptor,
    /// The descriptors of the layers, base first.
    pub layers: Vec<Descriptor>,
    /// Annotations by key (image-spec, annotations.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An index: several images, usually one for each platform (image-spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2 (image-spec, manifest.md, "schemaVersion").
    pub schema_version: u32,
    /// The media type. Only other tools omit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The descriptors of the images, and of attestations.
    pub manifests: Vec<Descriptor>,
    /// Annotations by key (image-spec, annotations.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A parsed document: an image manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// The manifest of one image.
    Manifest(Manifest),
    /// An index of several images.
    Index(Index),
}

/// The reason why a manifest or index is invalid.
#[derive(Debug, thiserror::Error)]
#[error("the manifest is not valid: {reason}")]
pub struct ManifestError {
    reason: String,
}

impl ManifestOrIndex {
    /// Parses a manifest or an index, distinguished by their members: the media type may be wrong
    /// or missing.
    ///
    /// # Errors
    /// [`ManifestError`] if the bytes are neither, or both.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let error = |reason: String| ManifestError { reason };
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|e| error(e.to_string()))?;
        let has = |name: &str| value.get(name).is_some();
        if has("manifests") && (has("layers") || has("config")) {
            return Err(error("it is both an index and a manifest".to_owned()));
        }
        if has("fsLayers") {
            return Err(error("it is of schema 1, which is obsolete".to_owned()));
        }
        let parsed = if has("manifests") {
            serde_json::from_value(value).map(Self::Index)
        } else {
            serde_json::from_value(value).map(Self::Manifest)
        };
        match parsed.map_err(|e| error(e.to_string()))? {
            Self::Manifest(manifest) if manifest.layers.len() > MAX_LAYERS => {
                Err(error(format!("it has more than {MAX_LAYERS} layers")))
            }
            good @ (Self::Manifest(_) | Self::Index(_)) => Ok(good),
        }
    }
}

impl Index {
    /// Returns the entries that are images. Attestations have the platform `unknown`
    /// (<https://docs.docker.com/build/metadata/attestations/attestation-storage/>).
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| {
            let is_unknown = |platform: &Platform| platform.os == "unknown";
            !entry.platform.as_ref().is_some_and(is_unknown)
                && !entry.annotations.contains_key("vnd.docker.reference.type")
        })
    }

    /// Returns the image for `platform`, or else for the best variant that it can run.
    #[must_use]
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let rank = |descriptor: &Descriptor| {
            let have = descriptor.platform.as_ref()?;
            let have = Platform::new(&have.os, &have.architecture, have.variant.as_deref());
            if have.os != platform.os || have.architecture != platform.architecture {
                return None;
            }
            let level = |p: &Platform| {
                let digits = p.variant.as_deref().map(|v| v.trim_start_matches('v').parse::<u8>());
                digits.map_or(Some(0), Result::ok)
            };
            let (want, got) = (level(platform)?, level(&have)?);
            // A machine runs images for its variant or an older one. arm64 does not run arm.
            (got <= want).then(|| want - got)
        };
        self.manifests
            .iter()
            .filter_map(|descriptor| Some((rank(descriptor)?, descriptor)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, descriptor)| descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_print_what_they_parse() {
        for (media_type, text) in MEDIA_TYPES {
            assert_eq!(MediaType::from(text.to_owned()), media_type);
            assert_eq!(media_type.as_str(), text);
        }
        assert_eq!(MediaType::from("x/y".to_owned()), MediaType::Other("x/y".into()));
    }

    #[test]
    fn select_takes_the_nearest_variant_that_runs() {
        let entry = |platform: &str| Descriptor {
            platform: Some(platform.parse().unwrap()),
            ..Descriptor::of(MediaType::OciManifest, platform.as_bytes())
        };
        let index = Index {
            schema_version: 2,
            media_type: None,
            manifests: ["linux/arm/v5", "linux/arm/v6", "linux/amd64", "linux/arm64"]
                .map(entry)
                .to_vec(),
            annotations: BTreeMap::new(),
        };
        let select = |platform: &str| {
            let found = index.select(&platform.parse().unwrap())?;
            Some(found.platform.as_ref().unwrap().to_string())
        };
        assert_eq!(select("linux/arm/v7").as_deref(), Some("linux/arm/v6"));
        assert_eq!(select("linux/arm/v5").as_deref(), Some("linux/arm/v5"));
        assert_eq!(select("linux/amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(select("linux/s390x"), None);
    }

    #[test]
    fn parse_refuses_manifest_that_is_also_an_index() {
        let text = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        let error = ManifestOrIndex::parse(text).unwrap_err().to_string();
        assert_eq!(error, "the manifest is not valid: it is both an index and a manifest");
    }
}
