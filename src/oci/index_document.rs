//! Indexes of other tools, with all members that the image-spec defines.
//!
//! [`super::Index`] keeps only what rbuild uses. An index that is joined from others must lose nothing, and
//! have the bytes that `docker buildx imagetools` would write: members in the order of Go's structs
//! (<https://github.com/opencontainers/image-spec/blob/main/specs-go/v1/index.go>).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::json::pretty_as_go;
use super::{Digest, MediaType, Platform};

/// An index (image-spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexDocument {
    /// Always 2 (image-spec, image-index.md, "schemaVersion").
    pub schema_version: u32,
    /// The media type. Only some tools omit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The entries.
    #[serde(default)]
    pub manifests: Vec<IndexEntry>,
    /// The manifest that it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<IndexEntry>,
    /// Annotations by key (image-spec, annotations.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A descriptor (image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexEntry {
    /// The media type of the document.
    pub media_type: MediaType,
    /// The digest of the document.
    pub digest: Digest,
    /// The size of the document in bytes.
    pub size: u64,
    /// Other addresses of the document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations by key (image-spec, annotations.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The document itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The platform of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<EntryPlatform>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// A platform with the members for Windows (image-spec, image-index.md, "platform").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPlatform {
    /// The architecture, as in `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, as in `linux`.
    #[serde(default)]
    pub os: String,
    /// The version of the operating system.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The variant, as in `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl IndexDocument {
    /// Returns the document as docker writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        pretty_as_go(self)
    }
}

impl IndexEntry {
    /// Creates an entry without a platform.
    #[must_use]
    pub const fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Self {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }
}

impl EntryPlatform {
    /// Returns the platform in its normal form, without version and features.
    #[must_use]
    pub fn normalized(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}
