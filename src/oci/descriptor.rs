//! Descriptors, manifests and indexes, in OCI and Docker media types.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_LAYERS;

use super::{Digest, Platform};

/// Which documents and layers rbuild reads and writes; others only as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum MediaType {
    /// An OCI image manifest.
    OciManifest,
    /// An OCI image index.
    OciIndex,
    /// An OCI image config.
    OciConfig,
    /// An OCI layer.
    OciLayer(LayerCompression),
    /// A Docker image manifest, schema 2.
    DockerManifest,
    /// A Docker manifest list.
    DockerIndex,
    /// A Docker image config.
    DockerConfig,
    /// A Docker layer.
    DockerLayer(LayerCompression),
    /// Something else.
    Other(Box<str>),
}

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerCompression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
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
    /// The text on the wire.
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

    /// Whether it is one image's manifest.
    #[must_use]
    pub const fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// How the layer is packed, if it is one.
    #[must_use]
    pub fn layer_compression(&self) -> Option<LayerCompression> {
        match self {
            Self::OciLayer(compression) | Self::DockerLayer(compression) => Some(*compression),
            // Layers that must not be pushed; obsolete, but base images still have them.
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

/// What a document says of a blob (image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The kind of file.
    pub media_type: MediaType,
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Where it may be had as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// For entries of an index.
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

    /// A descriptor without annotations and platform.
    #[must_use]
    pub const fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        let annotations = BTreeMap::new();
        Self { media_type, digest, size, urls: Vec::new(), annotations, platform: None }
    }
}

/// One image: config and layers, base first (image-spec, manifest.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// `None` only in documents of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Several images, one a platform (image-spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// `None` only in documents of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The images.
    pub manifests: Vec<Descriptor>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a registry answers when it is asked for a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Why bytes are no manifest or index that rbuild can use.
#[derive(Debug, thiserror::Error)]
#[error("the manifest is not valid: {reason}")]
pub struct ManifestError {
    reason: String,
}

impl Parsed {
    /// Reads a manifest or an index; which one it is, its members tell (their media type may lie
    /// or be missing).
    ///
    /// # Errors
    /// [`ManifestError`] when the bytes are neither.
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
    /// The entries that are images: attestations are for no platform (BuildKit's
    /// `docs/attestations/attestation-storage.md`).
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| {
            let is_unknown = |platform: &Platform| platform.os == "unknown";
            !entry.platform.as_ref().is_some_and(is_unknown)
                && !entry.annotations.contains_key("vnd.docker.reference.type")
        })
    }

    /// The image for `platform`, or for the best variant that it runs: an exact match first.
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
            // A machine runs what was made for its variant or an older one; arm64 runs no arm.
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
    fn parse_refuses_what_is_two_things_at_once() {
        let text = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        let error = Parsed::parse(text).unwrap_err().to_string();
        assert_eq!(error, "the manifest is not valid: it is both an index and a manifest");
    }
}
