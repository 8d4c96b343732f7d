//! `rbuild tag` and `rbuild rmi`: adds and removes names of images.

use super::{CliError, Environment, Exit, Global, find, open_store, open_store_to_free, reference};
use crate::cli::args::store::{RmiArgs, TagArgs};
use crate::cli::display::stderr;
use crate::cli::display::stdout::say;
use crate::image;
use crate::oci::Reference;
use crate::store::{Store, StoreError};

/// Gives an image further names. A name of another image moves to this one, with a note.
pub(crate) fn tag(
    args: &TagArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let names = args.names.iter().map(|name| reference(name));
    let names: Vec<Reference> = names.collect::<Result<_, _>>()?;
    if let Some(pinned) = names.iter().find(|name| name.digest().is_some()) {
        let text = format!("error: {pinned} has a digest, which cannot be part of a new name");
        return Err(CliError::new(text, Exit::Usage));
    }
    let store = open_store(global, environment)?;
    let selected = find::image(&store, &args.source)?;
    for name in &names {
        if let Some(replaced) = image::replaced(&store, name, selected.top).map_err(failed)? {
            stderr::remark(&replaced.to_string());
        }
        store.tags().set(name, selected.top).map_err(failed)?;
    }
    Ok(())
}

/// Removes names of images. Layers stay until `rbuild prune`.
pub(crate) fn rmi(
    args: &RmiArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let store = open_store_to_free(global, environment)?;
    let mut n_removed = 0_usize;
    let mut errors = Vec::new();
    for text in &args.images {
        match remove(&store, text, args.force) {
            Ok(n_names) => n_removed += n_names,
            Err(error) => errors.push(error),
        }
    }
    if n_removed > 0 {
        stderr::remark("run `rbuild prune` to remove layers that no image and no cached step uses");
    }
    match errors.into_iter().reduce(CliError::and) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Removes one name, or all names of an image given by its id. Returns how many were removed.
fn remove(store: &Store, text: &str, force: bool) -> Result<usize, CliError> {
    let selected = match find::image(store, text) {
        Err(error) if force && error.exit() == Exit::Environment => {
            stderr::remark(&format!("no image {text} in the store"));
            return Ok(0);
        }
        selected => selected?,
    };
    let names = match selected.name {
        Some(name) => vec![name.to_string()],
        None => {
            let tags = store.tags().all().map_err(failed)?;
            let its = tags.into_iter().filter(|tag| tag.manifest == selected.top);
            its.map(|tag| tag.name).collect()
        }
    };
    match names.len() {
        0 => {
            let text =
                format!("error: {text} has no name to remove; `rbuild prune` removes the image");
            return Err(CliError::new(text, Exit::Usage));
        }
        1 => {}
        _ if force => {}
        _ => {
            let names = names.join(", ");
            let text = format!(
                "error: {text} has several names ({names}): give one, or remove all with --force"
            );
            return Err(CliError::new(text, Exit::Usage));
        }
    }
    for name in &names {
        let name = reference(name)?;
        if store.tags().remove(&name).map_err(failed)? {
            say!("Untagged: {}", name.familiar());
        }
    }
    Ok(names.len())
}

fn failed(error: StoreError) -> CliError {
    CliError::from_error(&error, Exit::Environment)
}
