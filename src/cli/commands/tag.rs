//! `rbuild tag` and `rbuild rmi`: names of images.

use super::{CliError, Environment, Exit, Global, find, open_store, open_store_to_free, reference};
use crate::cli::args::store::{RmiArgs, TagArgs};
use crate::cli::display::stderr;
use crate::cli::display::stdout::say;
use crate::image;
use crate::oci::Reference;
use crate::store::{Store, StoreError};

pub(crate) fn tag(
    args: &TagArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let names = args.names.iter().map(|name| reference(name));
    let names: Vec<Reference> = names.collect::<Result<_, _>>()?;
    if let Some(pinned) = names.iter().find(|name| name.digest().is_some()) {
        let text = format!("error: {pinned} has a digest, which no image can be given by its name");
        return Err(CliError::new(text, Exit::Usage));
    }
    let store = open_store(global, environment)?;
    let chosen = find::image(&store, &args.source)?;
    for name in &names {
        if let Some(replaced) = image::replaced(&store, name, chosen.top).map_err(failed)? {
            stderr::remark(&replaced.to_string());
        }
        store.tags().set(name, chosen.top).map_err(failed)?;
    }
    Ok(())
}

pub(crate) fn rmi(
    args: &RmiArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let store = open_store_to_free(global, environment)?;
    let mut n_removed = 0_usize;
    let mut wrong = Vec::new();
    for text in &args.images {
        match remove(&store, text, args.force) {
            Ok(n_names) => n_removed += n_names,
            Err(complaint) => wrong.push(complaint),
        }
    }
    if n_removed > 0 {
        stderr::remark("layers that no image and no cached step needs go with `rbuild prune`");
    }
    match wrong.into_iter().reduce(CliError::and) {
        Some(complaint) => Err(complaint),
        None => Ok(()),
    }
}

/// Takes away one name, or the names of one id; gives how many.
fn remove(store: &Store, text: &str, force: bool) -> Result<usize, CliError> {
    let chosen = match find::image(store, text) {
        Err(complaint) if force && complaint.exit() == Exit::Environment => {
            stderr::remark(&format!("there is no image {text}"));
            return Ok(0);
        }
        chosen => chosen?,
    };
    let names = match chosen.name {
        Some(name) => vec![name.to_string()],
        None => {
            let tags = store.tags().all().map_err(failed)?;
            let its = tags.into_iter().filter(|tag| tag.manifest == chosen.top);
            its.map(|tag| tag.name).collect()
        }
    };
    match names.len() {
        0 => {
            let text = format!("error: {text} has no name; `rbuild prune` removes it");
            return Err(CliError::new(text, Exit::Usage));
        }
        1 => {}
        _ if force => {}
        _ => {
            let names = names.join(", ");
            let text = format!("error: {text} has several names, {names}: choose, or add --force");
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
