//! Pushes to registries, shown as steps.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::image::{self, ExportError, ExportOptions, Image, RegistryRetries};
use crate::oci::{Descriptor, Digest, Platform, Reference};

use crate::executor::{BuildError, Event, Failure, Outcome, Services, chain};

/// Pushes images under all of `names`, in order, and returns the descriptor of the manifest or
/// index for each.
///
/// Layers are uploaded once for each repository, however many tags it gets, and mounted into other
/// repositories of the same registry (distribution-spec, "Mounting a blob from another
/// repository"). `bases` are repositories that have some of the layers.
///
/// # Errors
/// [`BuildError::Export`] with the error of the registry or the store.
pub fn push(
    services: &Services<'_>,
    images: &[Image],
    names: &[Reference],
    bases: &[Reference],
    options: &ExportOptions,
) -> Result<Vec<Descriptor>, Failure> {
    let mut known = bases.to_vec();
    let mut pushed: Vec<(&Reference, Descriptor)> = Vec::with_capacity(names.len());
    for name in names {
        let there = pushed.iter().find(|(other, _)| other.name() == name.name());
        let to = if options.by_digest { name.name() } else { name.to_string() };
        let result = shown(services, &to, |progress| match there {
            Some((_, top)) => tag(services, name, top).map(|()| top.clone()),
            None => {
                let (store, registry) = (services.store, services.registry);
                image::push_all(store, registry, images, name, &known, options, progress)
            }
        });
        let top = match result.map_err(|failure| (immutable_tag(&failure), failure)) {
            Ok(top) => top,
            Err((Some(top), _)) if options.ignores_immutable_tags => {
                let text = format!("{name} keeps its image: the registry does not replace the tag");
                services.event(Event::Warning { text });
                top
            }
            Err((_, failure)) => return Err(failure),
        };
        pushed.push((name, top));
        // The latest first: it has all layers.
        known.insert(0, name.clone());
    }
    Ok(pushed.into_iter().map(|(_, top)| top).collect())
}

/// Returns the manifest or index that was not stored because the tag is immutable.
fn immutable_tag(failure: &Failure) -> Option<Descriptor> {
    let BuildError::Export(ExportError::ImmutableTag { top, .. }) = &**failure else {
        return None;
    };
    Some((**top).clone())
}

/// Checks that a push of images for `platforms` to `names` removes no platform from an index in the
/// registry. With [`RegistryRetries::Once`], a registry that does not answer is a warning, because the
/// push asks again.
///
/// # Errors
/// [`ExportError::Dropped`]; with [`RegistryRetries::Retries`] also the registry's.
pub fn check_platforms(
    services: &Services<'_>,
    names: &[Reference],
    platforms: &[Platform],
    patience: RegistryRetries,
) -> Result<(), Failure> {
    for name in names {
        let checked = image::check_platforms(services.registry, name, platforms, patience);
        let Err(error) = checked else { continue };
        if patience == RegistryRetries::Retries || matches!(error, ExportError::Dropped { .. }) {
            return Err(Failure::new(BuildError::Export(error)));
        }
        let text = format!("{}; the check is repeated after the build", chain(&error));
        services.event(Event::Warning { text });
        // The others are usually in the same registry, and each may take as long.
        break;
    }
    Ok(())
}

/// Checks that a push to these repositories is permitted: opens an upload in each and cancels it.
///
/// # Errors
/// [`BuildError::Export`] with the registry's refusal.
pub(in crate::executor) fn check_permission(
    services: &Services<'_>,
    names: &[Reference],
) -> Result<(), Failure> {
    for name in names {
        let step = services.start(format!("[internal] check the right to push to {}", name.name()));
        let checked = services.registry.check_push(name);
        services.finish(step, if checked.is_ok() { Outcome::Done } else { Outcome::Failed });
        let failed = |source| ExportError::Registry { name: name.familiar(), source };
        checked.map_err(|error| Failure::new(BuildError::Export(failed(error))))?;
    }
    Ok(())
}

/// Pushes the manifest or index with this digest from the store, unchanged.
///
/// # Errors
/// As [`push`].
pub fn push_verbatim(
    services: &Services<'_>,
    digest: Digest,
    name: &Reference,
) -> Result<Digest, Failure> {
    let (store, registry) = (services.store, services.registry);
    shown(services, &name.to_string(), |progress| {
        image::push_verbatim(store, registry, digest, name, progress).map(|()| digest)
    })
}

/// Shows a push to `name` as a step.
fn shown<T>(
    services: &Services<'_>,
    name: &str,
    push: impl FnOnce(&(dyn Fn(u64) + Sync)) -> Result<T, ExportError>,
) -> Result<T, Failure> {
    let step = services.start(format!("[internal] push {name}"));
    let done_bytes = AtomicU64::new(0);
    let progress = |more: u64| {
        let done_bytes = done_bytes.fetch_add(more, Ordering::Relaxed) + more;
        // The size of a layer that is not compressed yet is not known.
        services.event(Event::Progress { step: step.id, done_bytes, total_bytes: 0 });
    };
    let result = push(&progress);
    services.finish(step, if result.is_ok() { Outcome::Done } else { Outcome::Failed });
    result.map_err(|error| Failure::new(BuildError::Export(error)))
}

/// Adds a tag to an image that is in the repository already.
fn tag(services: &Services<'_>, name: &Reference, top: &Descriptor) -> Result<(), ExportError> {
    let tagged = services.registry.push_tag(name, top.digest);
    tagged.map_err(|source| ExportError::of_push(name.familiar(), top.clone(), source))
}
