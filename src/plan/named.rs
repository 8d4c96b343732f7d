//! Named contexts: what `--build-context` puts in place of stages, base images and `--from`.

use std::collections::BTreeMap;

use crate::diag::Span;
use crate::oci::{Platform, Reference};

use super::fold::Fold;
use super::{
    Base, CopyFrom, CopyOperation, CopyPart, ImagePlace, ImageRequest, Operation, Step, history,
};

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// Files: a directory, an archive, a repository.
    Directory,
    /// An image.
    Image {
        /// Its name.
        name: Reference,
        /// Where it is.
        place: ImagePlace,
    },
}

/// Named contexts by the names that [`context_name`] gives, each perhaps for one platform only.
#[derive(Debug, Clone, Default)]
pub struct NamedContexts(BTreeMap<String, NamedContext>);

/// What a stage starts with when a context stands in for its base, or for all of it.
pub(super) struct Replaced {
    pub(super) base: Base,
    pub(super) steps: Vec<Step>,
}

/// A name of an image or context in the form in which they are compared: `docker.io/library/` and
/// `:latest` are left out. `None` when it is no name.
#[must_use]
pub fn context_name(text: &str) -> Option<String> {
    let name = text.parse::<Reference>().ok()?.familiar();
    Some(name.strip_suffix(":latest").map_or_else(|| name.clone(), str::to_owned))
}

impl NamedContexts {
    /// Adds a context. `name` may end with `::OS/ARCH`: then it is for that platform. `None` when it
    /// is no name; else its form for comparison.
    pub fn add(&mut self, name: &str, context: NamedContext) -> Option<String> {
        let (name, platform) = match name.split_once("::") {
            Some((name, platform)) => (name, Some(platform.parse::<Platform>().ok()?)),
            None => (name, None),
        };
        let key = key(&context_name(name)?, platform.as_ref());
        self.0.insert(key.clone(), context);
        Some(key)
    }

    /// The context that `name` means for a platform, and its key.
    #[must_use]
    pub fn get(&self, name: &str, platform: &Platform) -> Option<(&str, &NamedContext)> {
        if self.0.is_empty() {
            return None;
        }
        let name = context_name(name)?;
        let found = self.0.get_key_value(&key(&name, Some(platform)));
        let (key, context) = found.or_else(|| self.0.get_key_value(&name))?;
        Some((key, context))
    }
}

fn key(name: &str, platform: Option<&Platform>) -> String {
    platform.map_or_else(|| name.to_owned(), |platform| format!("{name}::{platform}"))
}

impl NamedContext {
    /// The image that it is for a platform; nothing when it is files.
    pub(super) fn image(&self, platform: Platform) -> Option<ImageRequest> {
        match self {
            Self::Directory => None,
            Self::Image { name, place } => {
                Some(ImageRequest { name: name.clone(), place: place.clone(), platform })
            }
        }
    }
}

/// A stage that starts with the files of the context `key`.
pub(super) fn from_directory(key: &str, span: Span) -> Replaced {
    let copy = CopyOperation {
        from: CopyFrom::Named(key.to_owned()),
        parts: vec![CopyPart::Path { text: "/".to_owned(), span }],
        destination: "/".to_owned(),
        workdir: "/".to_owned(),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        unpack: false,
    };
    let step = Step {
        span,
        text: format!("FROM the context {key}"),
        operation: Some(Operation::Copy(copy)),
        history: Some(history::layer(format!("COPY --from={key} / / # buildkit"))),
    };
    Replaced { base: Base::Scratch, steps: vec![step] }
}

/// What planning a stage starts with.
pub(super) struct Start {
    pub(super) replaced: Replaced,
    pub(super) fold: Fold,
}

impl Start {
    /// A base without steps.
    pub(super) const fn new(base: Base, fold: Fold) -> Self {
        Self { replaced: Replaced { base, steps: Vec::new() }, fold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_one_form() {
        for (text, want) in [
            ("busybox", Some("busybox")),
            ("busybox:latest", Some("busybox")),
            ("docker.io/library/busybox:1", Some("busybox:1")),
            ("a.example/b", Some("a.example/b")),
            ("Bad Name", None),
        ] {
            assert_eq!(context_name(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn a_context_for_the_platform_comes_first() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let name: Reference = "x".parse().unwrap();
        let image = NamedContext::Image { name, place: ImagePlace::Registry };
        let mut contexts = NamedContexts::default();
        assert_eq!(contexts.add("base:latest", NamedContext::Directory).as_deref(), Some("base"));
        assert!(contexts.add("base::linux/arm64", image.clone()).is_some());
        assert!(contexts.add("base::", image.clone()).is_none());
        let get = |name, at| contexts.get(name, &platform(at)).map(|(_, found)| found);
        assert_eq!(get("docker.io/library/base", "linux/amd64"), Some(&NamedContext::Directory));
        assert_eq!(get("base", "linux/arm64"), Some(&image));
        assert_eq!(get("other", "linux/arm64"), None);
    }
}
