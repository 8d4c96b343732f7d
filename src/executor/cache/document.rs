//! The JSON document of a build cache: its steps and layers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::executor::BuildError;
use crate::oci::{Descriptor, DiffId, Digest};
use crate::plan::CacheKey;
use crate::store::{CacheArchive, LayerRecord, StepOrigin, StepRecord};
use crate::tree::ContentDigest;

use super::listings::CachedListing;

/// Media type of the document, which takes the place of an image's config in the manifest.
pub(in crate::executor) const MEDIA_TYPE: &str = "application/vnd.rbuild.cache.v1+json";
/// Member of an image's config that contains an inline cache.
pub(in crate::executor) const CONFIG_MEMBER: &str = "rbuild.cache.v1";

/// Steps of a build and their layers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::executor) struct CacheDocument {
    pub(in crate::executor) layers: Vec<CachedLayer>,
    pub(in crate::executor) steps: Vec<CachedStep>,
    /// Listings of layers, also of base images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::executor) listings: Vec<CachedListing>,
    /// Directories of `RUN --mount=type=cache`, by id and key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::executor) mounts: Vec<CachedMount>,
}

/// Reads a cache's document and writes it parsed, for fuzzing.
///
/// # Errors
/// Returns the reason as text.
#[doc(hidden)]
pub fn probe_cache_document(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let document: CacheDocument =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let steps = document.steps.iter().map(CachedStep::record).collect::<Vec<_>>();
    let layers = document.layers.iter().map(CachedLayer::record).collect::<Vec<_>>();
    drop((steps, layers));
    serde_json::to_vec(&document).map_err(|error| error.to_string())
}

/// A directory of `RUN --mount=type=cache`, packed as an archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::executor) struct CachedMount {
    /// Name in Dockerfiles; several keys may have the same one.
    pub(in crate::executor) id: String,
    key: Hex,
    /// Time of the last export that had it, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<i64>,
    #[serde(flatten)]
    pub(in crate::executor) archive: CacheArchive,
}

impl CachedMount {
    pub(in crate::executor) const fn new(id: String, key: CacheKey, archive: CacheArchive) -> Self {
        Self { id, key: Hex(*key.as_bytes()), used: None, archive }
    }

    /// Returns the time of the last use; that of a document without it is now.
    pub(in crate::executor) fn used_s(&self, now_s: i64) -> i64 {
        self.used.unwrap_or(now_s)
    }

    /// Returns the directory with another time of its last use.
    pub(in crate::executor) fn used_at(self, used_s: i64) -> Self {
        Self { used: Some(used_s), ..self }
    }

    pub(in crate::executor) const fn key(&self) -> CacheKey {
        CacheKey::new(self.key.0)
    }
}

impl CacheDocument {
    /// Returns the document as it is stored.
    pub(in crate::executor) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always serialize")
    }

    /// Returns all blobs that it names, each once.
    pub(in crate::executor) fn blobs(&self) -> Vec<Descriptor> {
        self.blobs_of(|_any| true)
    }

    /// Returns the blobs of these layers, of their listings and of these archives, each once.
    pub(in crate::executor) fn blobs_of(
        &self,
        is_wanted: impl Fn(&DiffId) -> bool,
    ) -> Vec<Descriptor> {
        let layers = self.layers.iter().map(|layer| (&layer.diff_id, layer.blob.as_ref()));
        let listings = self.listings.iter().map(|it| (&it.diff_id, it.blob.as_ref()));
        let archives = self.mounts.iter().map(|mount| &mount.archive);
        let archives = archives.map(|archive| (&archive.diff_id, Some(&archive.blob)));
        let blobs = layers.chain(listings).chain(archives);
        let mut known = BTreeSet::new();
        let blobs = blobs.filter(|(diff_id, _)| is_wanted(diff_id)).filter_map(|(_, blob)| blob);
        blobs.filter(|blob| known.insert(blob.digest)).cloned().collect()
    }

    /// Removes what needs one of these blobs. Returns whether there was any.
    pub(in crate::executor) fn remove_blobs(&mut self, gone: &BTreeSet<Digest>) -> bool {
        let n_entries = |document: &Self| {
            document.layers.len() + document.listings.len() + document.mounts.len()
        };
        let before = n_entries(self);
        let is_gone = |blob: &Descriptor| gone.contains(&blob.digest);
        self.layers.retain(|layer| !layer.blob.as_ref().is_some_and(is_gone));
        self.listings.retain(|listing| !listing.blob.as_ref().is_some_and(is_gone));
        self.mounts.retain(|mount| !is_gone(&mount.archive.blob));
        let left: BTreeSet<DiffId> = self.layers.iter().map(|layer| layer.diff_id).collect();
        self.steps.retain(|step| left.contains(&step.layer));
        before != n_entries(self)
    }

    /// Removes times. Durations would change every image with an inline cache; creation times would
    /// change one that is built with an epoch.
    pub(in crate::executor) fn forget_times(&mut self, epoch_s: Option<i64>) {
        for step in &mut self.steps {
            step.duration_ms = 0;
            step.created = epoch_s.unwrap_or(step.created);
        }
        for layer in &mut self.layers {
            layer.created = epoch_s.unwrap_or(layer.created);
        }
    }
}

/// A layer of the cache, with its listing's digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::executor) struct CachedLayer {
    pub(in crate::executor) diff_id: DiffId,
    content: Hex,
    tar_bytes: u64,
    created: i64,
    /// Descriptor of its blob; `None` in an inline cache, whose image has it in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::executor) blob: Option<Descriptor>,
}

/// A step of the cache, by its three keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::executor) struct CachedStep {
    definition: Hex,
    content: Hex,
    operation: Hex,
    /// The parts of the operation's key, as `[[name, value], …]`.
    components: Vec<(String, String)>,
    pub(in crate::executor) layer: DiffId,
    created: i64,
    /// Time of its last use by a build that exported, in seconds since 1970. Absent in an inline cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<i64>,
    duration_ms: u64,
}

/// 32 bytes, written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex([u8; 32]);

impl TryFrom<String> for Hex {
    type Error = blake3::HexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes()))
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        blake3::Hash::from_bytes(hex.0).to_hex().to_string()
    }
}

impl CachedLayer {
    pub(in crate::executor) const fn new(diff_id: DiffId, record: &LayerRecord) -> Self {
        let content = Hex(*record.content.as_bytes());
        let LayerRecord { tar_bytes, created_s: created, .. } = *record;
        Self { diff_id, content, tar_bytes, created, blob: None }
    }

    /// Returns the size of its blob.
    pub(in crate::executor) fn blob_bytes(&self) -> u64 {
        self.blob.as_ref().map_or(0, |blob| blob.size)
    }

    pub(in crate::executor) const fn record(&self) -> LayerRecord {
        LayerRecord {
            content: ContentDigest::new(self.content.0),
            tar_bytes: self.tar_bytes,
            created_s: self.created,
        }
    }
}

impl CachedStep {
    pub(in crate::executor) fn new(step: &StepRecord) -> Self {
        Self {
            definition: Hex(*step.definition.as_bytes()),
            content: Hex(*step.content.as_bytes()),
            operation: Hex(*step.operation.as_bytes()),
            components: serde_json::from_str(&step.components).unwrap_or_default(),
            layer: step.layer,
            created: step.created_s,
            used: None,
            duration_ms: step.duration_ms,
        }
    }

    pub(in crate::executor) const fn definition(&self) -> CacheKey {
        CacheKey::new(self.definition.0)
    }

    /// Returns the time of the last use, or else of the execution.
    pub(in crate::executor) fn used_s(&self) -> i64 {
        self.used.unwrap_or(self.created)
    }

    /// Returns the step with another time of its last use.
    pub(in crate::executor) fn used_at(self, used_s: i64) -> Self {
        Self { used: Some(used_s), ..self }
    }

    /// Returns whether both describe the same execution.
    pub(in crate::executor) fn is_same(&self, other: &Self) -> bool {
        *self == Self { used: self.used, ..other.clone() }
    }

    pub(in crate::executor) fn record(&self) -> StepRecord {
        StepRecord {
            definition: CacheKey::new(self.definition.0),
            content: CacheKey::new(self.content.0),
            operation: CacheKey::new(self.operation.0),
            components: serde_json::to_string(&self.components)
                .expect("pairs of texts always serialize"),
            layer: self.layer,
            created_s: self.created,
            duration_ms: self.duration_ms,
            origin: StepOrigin::default(),
        }
    }
}

pub(in crate::executor) fn bad_cache(reason: impl ToString) -> BuildError {
    BuildError::BadCache { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{LayerCompression, MediaType};

    #[test]
    fn document_is_read_as_it_was_written() {
        let key = |byte| CacheKey::new([byte; 32]);
        let layer = DiffId::new(Digest::of(b"layer"));
        let step = StepRecord {
            definition: key(1),
            content: key(2),
            operation: key(3),
            components: r#"[["argv","true"]]"#.to_owned(),
            layer,
            created_s: 4,
            duration_ms: 5,
            origin: StepOrigin::default(),
        };
        let record =
            LayerRecord { content: ContentDigest::new([6; 32]), tar_bytes: 7, created_s: 8 };
        let mut cached = CachedLayer::new(layer, &record);
        cached.blob = Some(Descriptor::of(MediaType::OciLayer(LayerCompression::Gzip), b"packed"));
        let blob = Descriptor::of(MediaType::OciLayer(LayerCompression::Zstd), b"archive");
        let archive = CacheArchive { diff_id: layer, tar_bytes: 9, blob };
        let document = CacheDocument {
            layers: vec![cached],
            steps: vec![CachedStep::new(&step)],
            listings: Vec::new(),
            mounts: vec![CachedMount::new("go".to_owned(), key(10), archive)],
        };
        let json = serde_json::to_vec(&document).unwrap();
        let parsed: CacheDocument = serde_json::from_slice(&json).unwrap();
        assert_eq!(parsed, document);
        assert_eq!(parsed.steps[0].record(), step);
        assert_eq!(parsed.layers[0].record(), record);
        assert_eq!(parsed.mounts[0].key(), key(10));
    }

    #[test]
    fn invalid_key_is_refused() {
        let json = r#"{"layers":[],"steps":[{"definition":"00","content":"","operation":""}]}"#;
        assert!(serde_json::from_str::<CacheDocument>(json).is_err());
    }
}
