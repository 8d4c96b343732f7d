//! Named contexts: `--build-context` replaces stages, base images and the sources of `--from`
//! (<https://docs.docker.com/reference/cli/docker/buildx/build/#build-context>).

use std::collections::BTreeMap;

use crate::diag::Span;
use crate::oci::{Platform, Reference};

use super::stage_state::StageState;
use super::{
    Base, CopyFrom, CopyOperation, ImageLocation, ImageRequest, Operation, PlannedSource, Step,
    history,
};

/// The kind of a named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// Files of a directory, an archive or a git repository.
    Directory,
    /// An image of a registry or layout.
    Image {
        /// Full name of the image.
        name: Reference,
        /// The registry or layout that has it.
        location: ImageLocation,
    },
}

/// Named contexts by their normalized names ([`context_name`]); a name can be limited to one platform.
#[derive(Debug, Clone, Default)]
pub struct NamedContexts(BTreeMap<String, NamedContext>);

/// Normalizes the name of an image or context for comparison: `docker.io/library/` and `:latest` are
/// left out. Returns `None` if it is not a valid image name.
#[must_use]
pub fn context_name(text: &str) -> Option<String> {
    let name = text.parse::<Reference>().ok()?.familiar();
    Some(name.strip_suffix(":latest").map_or_else(|| name.clone(), str::to_owned))
}

impl NamedContexts {
    /// Adds a context and returns its normalized name, or `None` if the name is invalid.
    ///
    /// A name that ends with `::OS/ARCH` is limited to that platform.
    pub fn add(&mut self, name: &str, context: NamedContext) -> Option<String> {
        let (name, platform) = match name.split_once("::") {
            Some((name, platform)) => (name, Some(platform.parse::<Platform>().ok()?)),
            None => (name, None),
        };
        let key = key(&context_name(name)?, platform.as_ref());
        self.0.insert(key.clone(), context);
        Some(key)
    }

    /// Returns the context that replaces `name` for a platform, with its normalized name.
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
    /// Returns the image to request for a platform; `None` for a directory.
    pub(super) fn image(&self, platform: Platform) -> Option<ImageRequest> {
        match self {
            Self::Directory => None,
            Self::Image { name, location } => {
                Some(ImageRequest { name: name.clone(), location: location.clone(), platform })
            }
        }
    }
}

/// Returns the first step of a stage that starts from the files of the context `key`.
pub(super) fn copy_of_directory(key: &str, span: Span) -> Step {
    let copy = CopyOperation {
        from: CopyFrom::Named(key.to_owned()),
        parts: vec![PlannedSource::Path { text: "/".to_owned(), span }],
        destination: "/".to_owned(),
        workdir: "/".to_owned(),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        unpack: false,
    };
    Step {
        span,
        text: format!("FROM the context {key}"),
        operation: Some(Operation::Copy(copy)),
        history: Some(history::layer(format!("COPY --from={key} / / # buildkit"))),
    }
}

/// A stage before its first instruction.
pub(super) struct StageStart {
    pub(super) base: Base,
    /// Steps that come before the instructions: the files of a named context.
    pub(super) steps: Vec<Step>,
    pub(super) state: StageState,
}

impl StageStart {
    /// Starts from a base, without steps.
    pub(super) const fn new(base: Base, state: StageState) -> Self {
        Self { base, steps: Vec::new(), state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_names_are_normalized() {
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
    fn context_for_the_platform_is_preferred() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let name: Reference = "x".parse().unwrap();
        let image = NamedContext::Image { name, location: ImageLocation::Registry };
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
