//! `rbuild push NAME`

use super::{CliError, Environment, Exit, Global, find, open_store, reference, with_services};
use crate::cli::args::transfer::PushArgs;
use crate::cli::display::stdout::say;
use crate::cli::outputs::output;
use crate::executor::{self, Event};
use crate::image::{self, ExportError, ExportOptions, Image, RegistryRetries, StoredImages};
use crate::oci::{Annotation, Digest, Platform, Reference};
use crate::store::Store;

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
        let text = "error: what has a digest goes out as it is; leave --compression away";
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
        if name.tag().is_some() && !args.replace_index {
            let platforms: Vec<Platform> = loaded.images.iter().map(Image::platform).collect();
            executor::check_platforms(services, names, &platforms, RegistryRetries::Retries)
                .map_err(failed)?;
        }
        if is_exact {
            return executor::push_verbatim(services, top, &name).map_err(failed);
        }
        let StoredImages { images, is_index, annotations, n_others } = loaded;
        if n_others > 0 {
            (services.events)(Event::Warning { text: find::left_out(&name.familiar(), n_others) });
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
            split: None,
            keeps_special: false,
        };
        executor::push(services, &images, names, &[], &options)
            .map(|digests| digests.first().copied().expect("each name has one"))
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

/// The image that has this name in the store.
fn tagged(store: &Store, name: &Reference) -> Result<Digest, CliError> {
    let manifest = store.tags().get(name);
    let manifest = manifest.map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    manifest.ok_or_else(|| {
        let name = name.familiar();
        let text = format!(
            "error: there is no image {name} in the store; build it with `rbuild -t {name} .`"
        );
        CliError::new(text, Exit::Environment)
    })
}
