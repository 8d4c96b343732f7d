//! Sources of an index: names, digests, or descriptors.

use serde::Deserialize;

use crate::image::{ExportError, Result};
use crate::limits::{MAX_DOCUMENT_BYTES, MAX_IMAGES_AT_ONCE};
use crate::oci::{Descriptor, Digest, EntryPlatform, IndexEntry, Manifest, MediaType, Reference};
use crate::pool;
use crate::registry::{Client, RegistryError};

/// A source as it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinSource {
    /// The name of an image.
    Name(Reference),
    /// A digest, in the repository of the other names.
    Digest(Digest),
    /// A descriptor, whose members replace those of the manifest; in the repository of the other names.
    Descriptor(Box<IndexEntry>),
}

/// A source, and the document that it resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedSource {
    /// A name in the repository that has it.
    pub name: Reference,
    /// The entry of an index for it. Has a platform if it is an image.
    pub entry: IndexEntry,
    /// The manifest or index.
    pub bytes: Vec<u8>,
}

impl JoinSource {
    /// Parses a digest, a descriptor in JSON, or a name.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            schema_version: Option<u32>,
        }
        let text = text.trim();
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        if text.starts_with('{') {
            let bad = |error: serde_json::Error| format!("the source is not a descriptor: {error}");
            let version: Version = serde_json::from_str(text).map_err(bad)?;
            if version.schema_version.is_some() {
                return Err(
                    "the source is a manifest or index, but must be a descriptor of it".to_owned()
                );
            }
            return serde_json::from_str(text)
                .map_err(bad)
                .map(|entry| Self::Descriptor(Box::new(entry)));
        }
        if text.starts_with("oci-layout://") {
            return Err(format!(
                "{text}: layouts are not supported here; push the layout with `rbuild load` and `rbuild push`"
            ));
        }
        text.parse().map(Self::Name).map_err(|error: crate::oci::ReferenceError| error.to_string())
    }
}

/// Resolves the sources, all at once. Sources without a name are in the repository of the other sources
/// or of the targets, which must then be the same one.
///
/// # Errors
/// [`ExportError::Join`] if a source has no repository, or another content than its descriptor says;
/// [`ExportError::Remote`].
pub fn resolve(
    registry: &Client,
    sources: &[JoinSource],
    targets: &[Reference],
) -> Result<Vec<ResolvedSource>> {
    let default = default_repository(sources, targets);
    let named = |source: &JoinSource| match source {
        JoinSource::Name(name) => Ok((name.clone(), None)),
        JoinSource::Digest(digest) => {
            Ok((repository(default, *digest)?.with_digest(*digest), None))
        }
        JoinSource::Descriptor(entry) => {
            let name = repository(default, entry.digest)?.with_digest(entry.digest);
            Ok((name, Some(entry.as_ref().clone())))
        }
    };
    let named: Vec<_> = sources.iter().map(named).collect::<Result<_>>()?;
    let resolved = pool::map_in_order(&named, MAX_IMAGES_AT_ONCE, |(name, given)| {
        resolve_one(registry, name, given.as_ref())
    });
    resolved.into_iter().collect()
}

fn repository(default: Option<&Reference>, digest: Digest) -> Result<&Reference> {
    default.ok_or_else(|| {
        let why =
            format!("{digest} could be in several repositories; write it as REPOSITORY@{digest}");
        ExportError::Join { why }
    })
}

/// Returns a name in the only repository of sources and targets; `None` if there are several.
fn default_repository<'a>(
    sources: &'a [JoinSource],
    targets: &'a [Reference],
) -> Option<&'a Reference> {
    let names = sources.iter().filter_map(|source| match source {
        JoinSource::Name(name) => Some(name),
        JoinSource::Digest(_) | JoinSource::Descriptor(_) => None,
    });
    let mut names = names.chain(targets);
    let first = names.next()?;
    names.all(|name| name.name() == first.name()).then_some(first)
}

fn resolve_one(
    registry: &Client,
    name: &Reference,
    given: Option<&IndexEntry>,
) -> Result<ResolvedSource> {
    let failed = |source| ExportError::Remote { name: name.familiar(), source };
    let fetched = registry.manifest(name).map_err(failed)?;
    let size = u64::try_from(fetched.bytes.len()).unwrap_or(u64::MAX);
    let mut entry = IndexEntry::new(fetched.media_type, fetched.digest, size);
    if let Some(given) = given {
        if given.size != size {
            let why = format!("{name} has {size} bytes, but its descriptor says {}", given.size);
            return Err(ExportError::Join { why });
        }
        entry.media_type = given.media_type.clone();
        entry.annotations.clone_from(&given.annotations);
        entry.platform.clone_from(&given.platform);
    }
    if entry.media_type.is_manifest() {
        let mut platform = entry.platform.take().unwrap_or_default();
        if platform.os.is_empty() || platform.architecture.is_empty() {
            let config = config_platform(registry, name, fetched.digest, &fetched.bytes)?;
            complete(&mut platform, &config);
        }
        entry.platform = Some(platform);
    } else if !matches!(entry.media_type, MediaType::OciIndex | MediaType::DockerIndex) {
        let why = format!("{name} is of type {}, which an index cannot list", entry.media_type);
        return Err(ExportError::Join { why });
    }
    Ok(ResolvedSource { name: name.clone(), entry, bytes: fetched.bytes })
}

/// Reads the platform in an image's config.
fn config_platform(
    registry: &Client,
    name: &Reference,
    digest: Digest,
    manifest: &[u8],
) -> Result<EntryPlatform> {
    let invalid = |why: String| ExportError::Join { why: format!("{name} cannot be read: {why}") };
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| invalid(error.to_string()))?;
    let failed = |source| ExportError::Remote { name: name.familiar(), source };
    if manifest.config.size > MAX_DOCUMENT_BYTES {
        let what = format!("the config of {name}");
        return Err(failed(RegistryError::TooLarge { what, max_bytes: MAX_DOCUMENT_BYTES }));
    }
    let mut config = Vec::new();
    let name = name.with_digest(digest);
    let blob: &Descriptor = &manifest.config;
    registry.pull_blob(&name, blob, &mut config, &|_more| {}).map_err(failed)?;
    // An artifact's config may be anything.
    Ok(serde_json::from_slice(&config).unwrap_or_default())
}

/// Fills in what the descriptor does not say.
fn complete(platform: &mut EntryPlatform, config: &EntryPlatform) {
    let normal = config.normalized();
    if platform.architecture.is_empty() {
        platform.architecture =
            if config.architecture.is_empty() { String::new() } else { normal.architecture };
        platform.variant = platform.variant.take().or(normal.variant);
    }
    if platform.os.is_empty() {
        platform.os.clone_from(&config.os);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        Digest::of(b"x")
    }

    #[test]
    fn sources_are_names_digests_or_descriptors() {
        let digest = digest();
        assert_eq!(JoinSource::parse(&format!("{digest}\n")), Ok(JoinSource::Digest(digest)));
        let name = "a.example/b:1";
        assert_eq!(JoinSource::parse(name), Ok(JoinSource::Name(name.parse().unwrap())));
        let json = format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":7,
                "platform":{{"os":"windows","architecture":"amd64","os.version":"10"}}}}"#
        );
        let Ok(JoinSource::Descriptor(entry)) = JoinSource::parse(&json) else { panic!() };
        let version = entry.platform.as_ref().unwrap().os_version.as_deref();
        assert_eq!((entry.digest, entry.size, version), (digest, 7, Some("10")));
        for (text, part) in [
            (r#"{"schemaVersion":2}"#, "a manifest or index"),
            (r#"{"digest":"x"}"#, "not a descriptor"),
            ("oci-layout://x", "layouts are not supported"),
            ("A/B", "not an image name"),
        ] {
            let error = JoinSource::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn default_repository_is_the_only_one() {
        let name = |text: &str| -> Reference { text.parse().unwrap() };
        let digest = JoinSource::Digest(digest());
        let one = [name("r.example/a:1"), name("r.example/a:2")];
        assert_eq!(default_repository(std::slice::from_ref(&digest), &one), Some(&one[0]));
        let two = [name("r.example/a:1"), name("r.example/b:1")];
        assert_eq!(default_repository(std::slice::from_ref(&digest), &two), None);
        let source = JoinSource::Name(name("r.example/b:1"));
        assert_eq!(default_repository(&[digest.clone(), source], &one), None);
        assert_eq!(default_repository(&[digest], &[]), None);
    }

    #[test]
    fn platform_of_the_config_completes_that_of_the_descriptor() {
        let config: EntryPlatform =
            serde_json::from_str(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#)
                .unwrap();
        let mut platform = EntryPlatform::default();
        complete(&mut platform, &config);
        assert_eq!(platform.normalized().to_string(), "linux/arm64");
        assert_eq!(platform.variant, None);
        let mut platform =
            EntryPlatform { architecture: "riscv64".to_owned(), ..EntryPlatform::default() };
        complete(&mut platform, &config);
        assert_eq!(platform.normalized().to_string(), "linux/riscv64");
    }
}
