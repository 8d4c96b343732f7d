//! The index over several sources.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::{ExportError, Result};
use crate::oci::{
    Annotation, AnnotationLevel, Digest, EntryPlatform, IndexDocument, IndexEntry, MediaType,
    Platform, Reference,
};
use crate::registry::Client;

use super::source::ResolvedSource;

/// Annotations of an attestation's entry: what it is, and the digest of its image
/// (<https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md>).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";
/// Type of an attestation that refers to its image as its subject.
pub(super) const ATTESTATION_ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";

/// Options of a new index.
#[derive(Debug, Clone)]
pub struct CombineOptions {
    /// Annotations of the index, and of its entries.
    pub annotations: Vec<Annotation>,
    /// True if a single image gets an index, too.
    pub prefers_index: bool,
    /// The platforms that are kept; all if there are none.
    pub platforms: Vec<Platform>,
}

/// A manifest or index that is to be pushed, and the documents that must be there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combined {
    /// Its media type, digest and size.
    pub entry: IndexEntry,
    /// The document.
    pub bytes: Vec<u8>,
    /// The manifests that it lists, or itself if it is the manifest of an image.
    pub parts: Vec<CombinedPart>,
}

/// A document in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CombinedPart {
    /// The entry of the index.
    pub entry: IndexEntry,
    /// A name in the repository that has it.
    pub source: Reference,
}

/// Makes an index over the sources. A single index, or a single image if no index is preferred, stays
/// unchanged if there are no annotations. Docker's type of an index, which is used if all images have
/// Docker's types, gets none. Attestations that an image has as referrers get entries.
///
/// # Errors
/// [`ExportError::Join`] if the annotations or platforms do not fit; [`ExportError::Remote`].
pub fn combine(
    registry: &Client,
    sources: &[ResolvedSource],
    options: &CombineOptions,
) -> Result<Combined> {
    let combined = join(sources, options)?;
    if combined.entry.media_type.is_manifest() {
        check_platform(&combined.entry, &options.platforms)?;
        return Ok(combined);
    }
    let attestations = |part: &CombinedPart| {
        let found = registry.referrers(&part.source, part.entry.digest);
        let found = found.map_err(|source| {
            let name = part.source.familiar();
            ExportError::Remote { name, source }
        })?;
        let is_wanted =
            |entry: &IndexEntry| entry.artifact_type.as_deref() == Some(ATTESTATION_ARTIFACT);
        Ok(found.into_iter().find(is_wanted))
    };
    select(combined, &options.platforms, &attestations)
}

/// Joins the sources, with all their platforms.
fn join(sources: &[ResolvedSource], options: &CombineOptions) -> Result<Combined> {
    if let [only] = sources
        && options.annotations.is_empty()
    {
        let part =
            |entry: &IndexEntry| CombinedPart { entry: entry.clone(), source: only.name.clone() };
        let copied =
            |parts| Combined { entry: only.entry.clone(), bytes: only.bytes.clone(), parts };
        if is_index(&only.entry) {
            let index = parsed(only)?;
            return Ok(copied(index.manifests.iter().map(part).collect()));
        }
        if !options.prefers_index {
            return Ok(copied(vec![part(&only.entry)]));
        }
    }
    let mut parts: Vec<CombinedPart> = Vec::new();
    for source in sources {
        if is_index(&source.entry) {
            for entry in parsed(source)?.manifests {
                add(&mut parts, entry, &source.name);
            }
        } else {
            add(&mut parts, source.entry.clone(), &source.name);
        }
    }
    let is_docker =
        |part: &CombinedPart| part.entry.media_type.as_str().starts_with("application/vnd.docker.");
    let all_docker = parts.iter().all(is_docker);
    let media_type = if all_docker { MediaType::DockerIndex } else { MediaType::OciIndex };
    let annotations = annotate(&media_type, &mut parts, &options.annotations)?;
    let index = IndexDocument {
        schema_version: 2,
        media_type: Some(media_type.clone()),
        artifact_type: None,
        manifests: parts.iter().map(|part| part.entry.clone()).collect(),
        subject: None,
        annotations,
    };
    Ok(described(media_type, index.to_bytes(), parts))
}

fn described(media_type: MediaType, bytes: Vec<u8>, parts: Vec<CombinedPart>) -> Combined {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let entry = IndexEntry::new(media_type, Digest::of(&bytes), size);
    Combined { entry, bytes, parts }
}

fn is_index(entry: &IndexEntry) -> bool {
    matches!(entry.media_type, MediaType::OciIndex | MediaType::DockerIndex)
}

fn parsed(source: &ResolvedSource) -> Result<IndexDocument> {
    serde_json::from_slice(&source.bytes).map_err(|error| {
        let why = format!("the index {} is not valid: {error}", source.name);
        ExportError::Join { why }
    })
}

/// Adds an entry. One that is listed already gets the platform and annotations of the later one.
fn add(parts: &mut Vec<CombinedPart>, entry: IndexEntry, source: &Reference) {
    let Some(known) = parts.iter_mut().find(|part| part.entry.digest == entry.digest) else {
        parts.push(CombinedPart { entry, source: source.clone() });
        return;
    };
    known.source = source.clone();
    known.entry.platform = entry.platform.or(known.entry.platform.take());
    known.entry.annotations.extend(entry.annotations);
}

/// Adds the annotations of entries, and returns those of the index.
fn annotate(
    media_type: &MediaType,
    parts: &mut [CombinedPart],
    annotations: &[Annotation],
) -> Result<BTreeMap<String, String>> {
    let refused = |why: String| Err(ExportError::Join { why });
    if *media_type == MediaType::DockerIndex {
        return Ok(BTreeMap::new());
    }
    let mut of_index = BTreeMap::new();
    for Annotation { level, platform, key, value } in annotations {
        match level {
            AnnotationLevel::Index => {
                of_index.insert(key.clone(), value.clone());
            }
            AnnotationLevel::ManifestDescriptor => {
                let fits = |part: &CombinedPart| {
                    let own = part.entry.platform.as_ref().map(EntryPlatform::normalized);
                    platform.is_none() || *platform == own
                };
                for part in parts.iter_mut().filter(|part| fits(part)) {
                    part.entry.annotations.insert(key.clone(), value.clone());
                }
            }
            AnnotationLevel::Manifest => {
                return refused(format!(
                    "the annotation {key} would change the images; use index:{key} or \
                     manifest-descriptor:{key}"
                ));
            }
            AnnotationLevel::IndexDescriptor => {
                return refused(format!(
                    "the annotation index-descriptor:{key} needs a layout; use index:{key}"
                ));
            }
        }
    }
    Ok(of_index)
}

/// Returns whether a platform is selected. An entry without one always is.
fn matches(platform: Option<&EntryPlatform>, platforms: &[Platform]) -> bool {
    platforms.is_empty()
        || platform.is_none_or(|platform| platforms.contains(&platform.normalized()))
}

fn check_platform(entry: &IndexEntry, platforms: &[Platform]) -> Result<()> {
    if matches(entry.platform.as_ref(), platforms) {
        return Ok(());
    }
    let has = entry.platform.as_ref().map_or_else(String::new, |it| it.normalized().to_string());
    Err(ExportError::Join { why: format!("the image is for {has}, not for a given platform") })
}

/// Finds the attestation that refers to a part.
type FindAttestation<'a> = dyn Fn(&CombinedPart) -> Result<Option<IndexEntry>> + 'a;

/// Selects the entries for the platforms, with their attestations.
fn select(
    combined: Combined,
    platforms: &[Platform],
    find_attestation: &FindAttestation<'_>,
) -> Result<Combined> {
    let selected: BTreeSet<Digest> = combined
        .parts
        .iter()
        .filter(|part| matches(part.entry.platform.as_ref(), platforms))
        .map(|part| part.entry.digest)
        .collect();
    let listed: BTreeSet<Digest> = combined.parts.iter().map(|part| part.entry.digest).collect();
    // The digest of the image that an entry attests.
    let subject = |entry: &IndexEntry| {
        let is_attestation =
            entry.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == ATTESTATION);
        let digest = entry.annotations.get(REFERENCE_DIGEST).filter(|_| is_attestation)?;
        digest.parse::<Digest>().ok().filter(|digest| listed.contains(digest))
    };
    let is_kept = |part: &&CombinedPart| {
        selected.contains(&part.entry.digest)
            || subject(&part.entry).is_some_and(|image| selected.contains(&image))
    };
    let mut parts: Vec<CombinedPart> = combined.parts.iter().filter(is_kept).cloned().collect();
    if parts.is_empty() {
        let why = "no image is for a given platform".to_owned();
        return Err(ExportError::Join { why });
    }
    let attested: BTreeSet<Digest> = parts.iter().filter_map(|part| subject(&part.entry)).collect();
    let mut found = Vec::new();
    for part in &parts {
        let is_image = part.entry.media_type.is_manifest() && subject(&part.entry).is_none();
        if !is_image || attested.contains(&part.entry.digest) {
            continue;
        }
        if let Some(mut entry) = find_attestation(part)? {
            entry.platform = Some(EntryPlatform {
                os: "unknown".to_owned(),
                architecture: "unknown".to_owned(),
                ..EntryPlatform::default()
            });
            let digest = part.entry.digest.to_string();
            entry.annotations.insert(REFERENCE_TYPE.to_owned(), ATTESTATION.to_owned());
            entry.annotations.insert(REFERENCE_DIGEST.to_owned(), digest);
            entry.artifact_type = None;
            found.push(CombinedPart { entry, source: part.source.clone() });
        }
    }
    if parts.len() == combined.parts.len() && found.is_empty() {
        return Ok(combined);
    }
    parts.extend(found);
    let index: IndexDocument = serde_json::from_slice(&combined.bytes)
        .map_err(|error| ExportError::Join { why: format!("the index is not valid: {error}") })?;
    let manifests = parts.iter().map(|part| part.entry.clone()).collect();
    let bytes = IndexDocument { manifests, ..index }.to_bytes();
    let annotations = combined.entry.annotations;
    let mut selected = described(combined.entry.media_type, bytes, parts);
    selected.entry.annotations = annotations;
    Ok(selected)
}

#[cfg(test)]
mod tests;
