//! `rbuild push NAME`: pushes an image of the store to its registry.

use super::{CliError, Environment, Exit, Global, find, open_store, reference, with_services};
use crate::cli::args::transfer::PushArgs;
use crate::cli::display::stdout::say;
use crate::cli::outputs::output;
use crate::executor::{self, Event};
use crate::image::{self, ExportError, ExportOptions, Image, RegistryRetries, StoredImages};
use crate::oci::{Annotation, Digest, Platform, Reference};
use crate::store::Store;

/// Pushes the image, and prints its name and digest. An index that is stored as it was pulled goes to
/// the registry unchanged, unless a compression is requested.
pub(crate) fn run(
    args: &PushArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let name = reference(&args.name)?;
    let compression = &args.compression;
    let packing = output::packing(compression.kind.as_deref(), compression.level)
        .map_err(|text| CliError::new(format!("error: {text}"), Exit::Usage))?;
    let store = open_store(global, environment)?;
    let exact = name.digest().filter(|digest| store.has_blob(*digest));
    if exact.is_some() && compression.is_given() {
        let text =
            "error: --compression cannot be used with a digest: the image is pushed unchanged";
        return Err(CliError::new(text, Exit::Usage));
    }
    let top = exact.map_or_else(|| tagged(&store, &name), Ok)?;
    let loaded = StoredImages::load(&store, top).map_err(unreadable)?;
    let is_exact = exact.is_some()
        || (loaded.is_index
            && !compression.is_given()
            && image::is_unmodified(&store, top).map_err(unreadable)?);
    let digest = with_services(&store, environment, |services| {
        let names = std::slice::from_ref(&name);
        let is_guarded = name.tag().is_some() && !args.replace_index;
        let guarded_names = if is_guarded { names.to_vec() } else { Vec::new() };
        if is_exact {
            let platforms: Vec<Platform> = loaded.images.iter().map(Image::platform).collect();
            let patience = RegistryRetries::Retries;
            executor::check_platforms(services, &guarded_names, &platforms, patience)
                .map_err(failed)?;
            return executor::push_verbatim(services, top, &name).map_err(failed);
        }
        let StoredImages { images, is_index, annotations, n_others } = loaded;
        if n_others > 0 {
            (services.events)(Event::Warning {
                text: find::omitted_entries(&name.familiar(), n_others),
            });
        }
        let options = ExportOptions {
            packing,
            force_packing: compression.force,
            docker_media_types: false,
            always_index: is_index,
            jobs: environment.processors,
            names: names.to_vec(),
            created: None,
            annotations: Annotation::of_index(&annotations),
            by_digest: false,
            guarded_names,
            ignores_immutable_tags: false,
            trusts_tag: false,
            split: None,
            keeps_special: false,
            deletes_others: false,
        };
        executor::push(services, &images, names, &[], &options)
            .map(|pushed| pushed.first().expect("each name has one").digest)
            .map_err(failed)
    })?;
    say!("{name} {digest}");
    Ok(())
}

fn unreadable(error: ExportError) -> CliError {
    CliError::from_error(&error, Exit::Environment)
}

fn failed(error: executor::Failure) -> CliError {
    CliError::from_error(&*error, Exit::Environment)
}

/// Returns the digest of the image with this name in the store.
fn tagged(store: &Store, name: &Reference) -> Result<Digest, CliError> {
    let manifest = store.tags().get(name);
    let manifest = manifest.map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    manifest.ok_or_else(|| {
        let name = name.familiar();
        let text =
            format!("error: no image {name} in the store; build it with `rbuild -t {name} .`");
        CliError::new(text, Exit::Environment)
    })
}
