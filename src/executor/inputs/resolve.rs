//! Resolution of image names: to the digest in the lock file, to an image of the store, or by the
//! registry.

use crate::diag::{Span, nearest};
use crate::dockerfile::ir::Instruction;
use crate::oci::{Digest, Platform, Reference};
use crate::plan::{BaseImage, ImageLocation, ImageRequest, LockInput, LockedValue};
use crate::registry::RegistryError;
use crate::store::Store;

use super::image::{ResolvedImage, base_image, checked, from_registry, from_store};
use super::layout;
use crate::executor::Pull;
use crate::executor::{BuildError, BuildOptions, Event, Outcome, Services};

type Result<T> = std::result::Result<T, BuildError>;

/// Resolves an image: in a layout, to its locked digest, or to its current one.
pub(in crate::executor) fn image(
    services: &Services<'_>,
    options: &BuildOptions,
    request: &ImageRequest,
    span: Option<Span>,
) -> Result<ResolvedImage> {
    if let Some(resolved) = layout::resolve(services, request, span)? {
        return checked(resolved, span);
    }
    if let ImageLocation::Stored(top) = &request.location {
        return stored(services.store, request, **top, span);
    }
    let locked = services.locked;
    let input = LockInput::image(&request.name, &request.platform);
    let locked_value = locked.required(&input).map_err(|error| error.at(span))?;
    let query = ImageQuery { services, options, request, span };
    let resolved = match locked_value {
        Some(LockedValue::Digest(digest)) => query.resolve_locked(digest)?,
        Some(LockedValue::Commit(_)) | None => {
            query.resolve_current().map_err(|error| query.with_suggestion(error))?
        }
    };
    let digest = LockedValue::Digest(resolved.digest);
    locked.record(input, digest).map_err(|error| error.at(span))?;
    Ok(ResolvedImage { span, ..resolved })
}

/// Returns the image of the store with this manifest, or the one of an index for the platform.
fn stored(
    store: &Store,
    request: &ImageRequest,
    top: Digest,
    span: Option<Span>,
) -> Result<ResolvedImage> {
    let ImageRequest { name, platform, location } = request;
    let found = from_store(store, name, platform, top)?;
    let found = found.ok_or_else(|| {
        let reason = format!("the image {top} was not built for {platform}");
        BuildError::BadImage { span, name: name.familiar(), reason }
    })?;
    Ok(ResolvedImage { span, place: location.clone(), ..found })
}

/// A request for an image.
struct ImageQuery<'a> {
    services: &'a Services<'a>,
    options: &'a BuildOptions,
    request: &'a ImageRequest,
    span: Option<Span>,
}

impl ImageQuery<'_> {
    /// Resolves the name to its current image.
    fn resolve_current(&self) -> Result<ResolvedImage> {
        let services = self.services;
        let for_others = services.locked.is_for_others() && !services.registry.is_offline();
        match self.options.pull {
            Pull::Never => return self.in_store()?.ok_or_else(|| self.not_pulled()),
            Pull::Missing if !for_others => {
                return self.in_store()?.map_or_else(|| self.in_registry(None), Ok);
            }
            Pull::Newer => {
                let found = self.in_registry(None);
                return match found {
                    Err(error @ BuildError::Image { .. }) => self.in_store()?.ok_or(error),
                    found => found,
                };
            }
            Pull::Missing | Pull::Always => {}
        }
        match self.in_registry(None) {
            Err(error) if for_others => {
                let Some(here) = self.in_store()? else { return Err(error) };
                self.warn(format!(
                    "{} is only in this store: other machines cannot get what is locked now",
                    self.request.name.familiar()
                ));
                Ok(here)
            }
            asked => asked,
        }
    }

    /// Resolves the name to this manifest. An image that was only ever built here is not in a
    /// registry: its tag counts then.
    fn resolve_locked(&self, want: Digest) -> Result<ResolvedImage> {
        let (store, locked) = (self.services.store, self.services.locked);
        let (name, platform) = (&self.request.name, &self.request.platform);
        let has_tag = store.tags().get(name)?.is_some();
        let is_only_here = has_tag && store.resolved_images().get(name, platform)?.is_none();
        if is_only_here && let Some(here) = self.in_store()? {
            return Ok(here);
        }
        if matches!(self.options.pull, Pull::Always | Pull::Newer) {
            let now = self.in_registry(None)?;
            if now.digest != want && locked.is_strict() {
                return Ok(now);
            }
            if now.digest != want {
                let (name, file) = (name.familiar(), locked.file());
                self.warn(format!(
                    "{name} is {} now; {file} has {want}, which is used; \
                     `rbuild lock --update` takes the new one",
                    now.digest
                ));
            }
        }
        if let Some(known) = from_store(self.services.store, name, platform, want)? {
            return Ok(known);
        }
        match self.in_registry(Some(want)) {
            Err(BuildError::Image { source, .. }) if source.is_not_found() => {
                let now = self.in_registry(None).ok().map(|now| LockedValue::Digest(now.digest));
                let input = LockInput::image(name, platform);
                let want = LockedValue::Digest(want);
                Err(locked.gone_error(input, want, now, source.answers()).at(self.span))
            }
            Err(error @ BuildError::Image { .. }) => {
                let help = format!(
                    "{} has {want} for {}, and only that digest is requested",
                    locked.file(),
                    LockInput::image(name, platform)
                );
                Err(BuildError::Misnamed { lead: None, help, error: Box::new(error) })
            }
            found => found,
        }
    }

    /// Returns the image of a tag in the store, or of an earlier answer of the registry.
    fn in_store(&self) -> Result<Option<ResolvedImage>> {
        in_store(self.services.store, &self.request.name, &self.request.platform)
    }

    /// Makes the error for an image that `--pull=never` forbids to pull.
    fn not_pulled(&self) -> BuildError {
        let (name, platform) = (&self.request.name, &self.request.platform);
        let reason =
            format!("it is not in the store for {platform}, and --pull=never forbids to pull it");
        BuildError::BadImage { span: self.span, name: name.familiar(), reason }
    }

    fn in_registry(&self, at: Option<Digest>) -> Result<ResolvedImage> {
        let (name, platform) = (&self.request.name, &self.request.platform);
        if self.services.registry.is_offline() {
            let what = format!("{name} for {platform}");
            let source = RegistryError::Offline { what };
            return Err(BuildError::Image { span: self.span, name: name.familiar(), source });
        }
        let step = self.services.start(format!("[internal] load metadata for {name}"));
        let resolved = from_registry(self.services, name, at, platform, self.span);
        self.services.finish(step, if resolved.is_ok() { Outcome::Done } else { Outcome::Failed });
        resolved
    }

    /// Adds to the error of an image that no registry has what may have been meant.
    fn with_suggestion(&self, error: BuildError) -> BuildError {
        if !matches!(error, BuildError::Image { .. }) {
            return error;
        }
        let word = self.word_of_from();
        let lead = word.map(|word| format!("no stage, named context or image is called `{word}`"));
        let other = || {
            let word = word?;
            Some(format!(
                "name a stage above this one, or give the files with --build-context \
                 {word}=DIRECTORY"
            ))
        };
        let Some(help) = self.suggestion().or_else(other) else { return error };
        BuildError::Misnamed { lead, help, error: Box::new(error) }
    }

    /// Returns the word of the `--from` that asked for the image, if it looks like a stage's name.
    fn word_of_from(&self) -> Option<&str> {
        let stages = &self.options.dockerfile.stages;
        let instructions = stages.iter().flat_map(|stage| &stage.instructions);
        let mut words = instructions.flat_map(Instruction::from_words);
        let word = words.find(|word| Some(word.span) == self.span)?;
        let word = word.value.trim_matches(['"', '\'']);
        (!word.contains(['/', '.', ':', '@'])).then_some(word)
    }

    fn suggestion(&self) -> Option<String> {
        let name = &self.request.name.familiar();
        let (store, platform) = (self.services.store, &self.request.platform);
        // The registry's error is the one to report.
        let here = tagged(store, &self.request.name, platform).ok().flatten();
        let have = here.map(|found| found.config.platform());
        if let Some(have) = have.filter(|have| have != platform) {
            return Some(format!(
                "the store has {name} for {have} only: build with --platform {have}, or write \
                 `FROM --platform={have}` to start from it anyway"
            ));
        }
        let stages = &self.options.dockerfile.stages;
        let stages = stages.iter().filter_map(|stage| stage.from.name.as_ref());
        let word = name.strip_suffix(":latest").unwrap_or(name);
        if let Some(near) = nearest(word, stages.map(|(_, name)| name.value.as_str())) {
            return Some(format!("did you mean the stage `{near}`?"));
        }
        let tags = self.services.store.tags().all().ok()?;
        let registry = self.request.name.registry();
        let names = tags.iter().filter_map(|tag| tag.name.parse::<Reference>().ok());
        let names = names.filter(|name| name.registry() == registry);
        let tags: Vec<String> = names.map(|name| name.familiar()).collect();
        let near = nearest(name, tags.iter().map(String::as_str))?;
        Some(format!("did you mean `{near}`, which is in the store?"))
    }

    fn warn(&self, text: String) {
        self.services.event(Event::Warning { text });
    }
}

/// Returns the image that a tag of the store names for this platform, or that a registry named
/// earlier.
fn in_store(store: &Store, name: &Reference, platform: &Platform) -> Result<Option<ResolvedImage>> {
    if let Some(found) = tagged(store, name, platform)?
        && found.config.platform() == *platform
    {
        return Ok(Some(found));
    }
    // Its own platform does not matter: the registry said that there is no other.
    let known = store.resolved_images().get(name, platform)?;
    let known = known.map(|manifest| from_store(store, name, platform, manifest));
    Ok(known.transpose()?.flatten())
}

/// Returns the image that a tag of the store names. A digest is never looked up as a tag: it names
/// the image that has it and no other.
fn tagged(store: &Store, name: &Reference, platform: &Platform) -> Result<Option<ResolvedImage>> {
    let top = match name.digest() {
        Some(digest) => Some(digest),
        None => store.tags().get(name)?,
    };
    Ok(top.map(|top| from_store(store, name, platform, top)).transpose()?.flatten())
}

/// Returns what planning needs of an image, if the store has it. Asks no registry.
pub fn known_base(store: &Store, request: &ImageRequest, span: Span) -> Option<BaseImage> {
    if request.location != ImageLocation::Registry {
        return None;
    }
    // An unreadable image counts as unknown: nothing is built from it.
    let found = in_store(store, &request.name, &request.platform).ok()??;
    base_image(&found.config, span).ok()
}
