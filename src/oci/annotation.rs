//! Annotations, and the documents that they belong to (image-spec, annotations.md).

use std::collections::BTreeMap;
use std::fmt;

use super::Platform;

/// An annotation: a key and a value for one of an image's documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// The document that gets it.
    pub level: AnnotationLevel,
    /// The platform whose image gets it. `None` for all images.
    pub platform: Option<Platform>,
    /// The key, as in `org.opencontainers.image.source`.
    pub key: String,
    /// The value, any text.
    pub value: String,
}

/// The documents that can have annotations, named as for `docker buildx build --annotation`
/// (<https://docs.docker.com/reference/cli/docker/buildx/build/#annotation>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnnotationLevel {
    /// The manifest of an image.
    Manifest,
    /// The index of the images for several platforms.
    Index,
    /// The image's descriptor in the index, or without an index in a layout's `index.json`.
    ManifestDescriptor,
    /// The index's descriptor in a layout's `index.json`.
    IndexDescriptor,
}

/// A text that is not a valid annotation, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an annotation: {why}")]
pub struct AnnotationError {
    text: String,
    why: String,
}

const LEVELS: [AnnotationLevel; 4] = [
    AnnotationLevel::Manifest,
    AnnotationLevel::Index,
    AnnotationLevel::ManifestDescriptor,
    AnnotationLevel::IndexDescriptor,
];

impl AnnotationLevel {
    /// Returns the name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Index => "index",
            Self::ManifestDescriptor => "manifest-descriptor",
            Self::IndexDescriptor => "index-descriptor",
        }
    }

    /// Returns whether the document belongs to one image, so that a platform can select it.
    const fn is_of_one_image(self) -> bool {
        matches!(self, Self::Manifest | Self::ManifestDescriptor)
    }
}

impl fmt::Display for AnnotationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Annotation {
    /// Parses `[LEVEL[[PLATFORM]][,…]:]KEY=VALUE` into one annotation for each level.
    ///
    /// # Errors
    /// [`AnnotationError`] if level, platform or key are invalid.
    pub fn parse(text: &str) -> Result<Vec<Self>, AnnotationError> {
        let error = |why: String| AnnotationError { text: text.to_owned(), why };
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| error("the format is [LEVEL:]KEY=VALUE".to_owned()))?;
        let (levels, key) = name.split_once(':').unwrap_or(("manifest", name));
        let annotations = levels.split(',').map(|level| {
            let (level, platform) = parse_level(level).map_err(error)?;
            Self::new(level, platform, key, value).map_err(error)
        });
        annotations.collect()
    }

    /// Parses an exporter's attribute `annotation[-LEVEL][[PLATFORM]].KEY`, as BuildKit does
    /// (<https://docs.docker.com/build/metadata/annotations/>). `None` if `name` is another
    /// attribute.
    ///
    /// # Errors
    /// [`AnnotationError`] if level, platform or key are invalid.
    pub fn attribute(name: &str, value: &str) -> Option<Result<Self, AnnotationError>> {
        let rest = name.strip_prefix("annotation")?;
        let error = |why: String| AnnotationError { text: format!("{name}={value}"), why };
        // A platform cannot contain a dot, a key can.
        let (level, key) = rest.split_once('.')?;
        let level = match level.strip_prefix('-') {
            Some(level) => level.to_owned(),
            None if level.is_empty() || level.starts_with('[') => format!("manifest{level}"),
            None => return None,
        };
        Some(
            parse_level(&level)
                .and_then(|(level, platform)| Self::new(level, platform, key, value))
                .map_err(error),
        )
    }

    /// Converts the annotations of an index.
    #[must_use]
    pub fn of_index(annotations: &BTreeMap<String, String>) -> Vec<Self> {
        let annotation = |(key, value): (&String, &String)| Self {
            level: AnnotationLevel::Index,
            platform: None,
            key: key.clone(),
            value: value.clone(),
        };
        annotations.iter().map(annotation).collect()
    }

    fn new(
        level: AnnotationLevel,
        platform: Option<Platform>,
        key: &str,
        value: &str,
    ) -> Result<Self, String> {
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err("the key is empty or contains white space".to_owned());
        }
        if platform.is_some() && !level.is_of_one_image() {
            return Err(format!("{level} annotations are for all platforms"));
        }
        Ok(Self { level, platform, key: key.to_owned(), value: value.to_owned() })
    }
}

/// Parses a level with an optional platform in brackets.
fn parse_level(text: &str) -> Result<(AnnotationLevel, Option<Platform>), String> {
    let (name, platform) = match text.split_once('[') {
        None => (text, None),
        Some((name, rest)) => {
            let platform = rest.strip_suffix(']').and_then(|platform| platform.parse().ok());
            let platform = platform.ok_or_else(|| {
                format!("`[{rest}` is not a platform in brackets, such as [linux/arm64]")
            })?;
            (name, Some(platform))
        }
    };
    let level = LEVELS.into_iter().find(|level| level.as_str() == name);
    let level = level.ok_or_else(|| {
        let names = LEVELS.map(AnnotationLevel::as_str).join(", ");
        format!("`{name}` is not a level; use one of {names}")
    })?;
    Ok((level, platform))
}

/// Selects the annotations of a document: of this level, and for this platform if it belongs to one
/// image. The last one with a key wins.
#[must_use]
pub fn annotations_for(
    annotations: &[Annotation],
    level: AnnotationLevel,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let fits = |one: &&Annotation| {
        one.level == level && (one.platform.is_none() || one.platform.as_ref() == platform)
    };
    let fitting = annotations.iter().filter(fits);
    fitting.map(|one| (one.key.clone(), one.value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(annotation: &Annotation) -> String {
        let Annotation { level, platform, key, value } = annotation;
        let platform = platform.as_ref().map_or(String::new(), |p| format!("[{p}]"));
        format!("{level}{platform} {key}={value}")
    }

    #[test]
    fn annotations_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("a=b", &["manifest a=b"][..]),
            ("a=", &["manifest a="]),
            ("index:a.b/c=d=e", &["index a.b/c=d=e"]),
            ("index,manifest:a=b", &["index a=b", "manifest a=b"]),
            ("manifest[linux/arm64]:a=b:c", &["manifest[linux/arm64] a=b:c"]),
            (
                "manifest-descriptor[arm64],index-descriptor:a=b",
                &["manifest-descriptor[linux/arm64] a=b", "index-descriptor a=b"],
            ),
        ] {
            let read = Annotation::parse(text).unwrap();
            assert_eq!(read.iter().map(shown).collect::<Vec<_>>(), want, "{text}");
        }
    }

    #[test]
    fn attributes_are_read_as_buildkit_reads_them() {
        for (name, want) in [
            ("annotation.a.b", Some("manifest a.b=v")),
            ("annotation-index.a", Some("index a=v")),
            ("annotation[linux/amd64].a", Some("manifest[linux/amd64] a=v")),
            (
                "annotation-manifest-descriptor[linux/arm/v7].a",
                Some("manifest-descriptor[linux/arm/v7] a=v"),
            ),
            ("annotations.a", None),
            ("name", None),
        ] {
            let read = Annotation::attribute(name, "v").map(|read| shown(&read.unwrap()));
            assert_eq!(read.as_deref(), want, "{name}");
        }
    }

    #[test]
    fn invalid_annotations_are_refused() {
        for (text, want) in [
            ("a", "the format is [LEVEL:]KEY=VALUE"),
            ("=b", "the key is empty or contains white space"),
            (
                "layer:a=b",
                "`layer` is not a level; use one of manifest, index, manifest-descriptor, index-descriptor",
            ),
            ("index[linux/amd64]:a=b", "index annotations are for all platforms"),
            ("manifest[a b]:a=b", "`[a b]` is not a platform in brackets, such as [linux/arm64]"),
        ] {
            let error = Annotation::parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` is not an annotation: {want}"));
        }
    }

    #[test]
    fn last_matching_annotation_wins() {
        let all: Vec<Annotation> = ["a=1", "manifest[linux/arm64]:a=2", "index:a=3"]
            .iter()
            .flat_map(|text| Annotation::parse(text).unwrap())
            .collect();
        let value = |level, platform: &str| {
            let platform = platform.parse().unwrap();
            annotations_for(&all, level, Some(&platform)).remove("a")
        };
        assert_eq!(value(AnnotationLevel::Manifest, "linux/arm64").as_deref(), Some("2"));
        assert_eq!(value(AnnotationLevel::Manifest, "linux/amd64").as_deref(), Some("1"));
        assert_eq!(value(AnnotationLevel::Index, "linux/amd64").as_deref(), Some("3"));
        assert_eq!(value(AnnotationLevel::IndexDescriptor, "linux/amd64"), None);
    }
}
