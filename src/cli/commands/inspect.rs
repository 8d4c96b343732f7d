//! `rbuild inspect IMAGE`: a page for people, or a document for programs.

mod document;
mod page;

use super::{CliError, Environment, Exit, Global, find, open_store, reference, with_services};
use crate::cli::args::inspect::InspectArgs;
use crate::cli::display::stdout::{self, say};
use crate::cli::images::image_view::ImageView;
use crate::cli::registries;
use crate::executor;
use crate::image::{self, ExportError, Image, StoredImages};
use crate::oci::{Digest, Reference};
use crate::store::{Store, StoreError};

/// What was asked for, and what goes by which names.
#[derive(Debug)]
struct Subject {
    /// As it was chosen; `None` for an id.
    name: Option<Reference>,
    /// All names that it has.
    names: Vec<Reference>,
    /// Its manifest or index.
    top: Digest,
    is_index: bool,
    /// Number of entries of the index that are not images.
    n_others: usize,
}

pub(crate) fn run(
    args: &InspectArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    if args.remote {
        return remote(args, environment);
    }
    let store = open_store(global, environment)?;
    let chosen = find::image(&store, &args.image)?;
    let unreadable = |error: ExportError| CliError::from_error(&error, Exit::Environment);
    let failed = |error: StoreError| CliError::from_error(&error, Exit::Environment);
    let mut loaded = StoredImages::load(&store, chosen.top).map_err(unreadable)?;
    if args.platform.is_some() {
        loaded.images = vec![find::one(&loaded, args.platform.as_deref(), &args.image)?];
    }
    if args.pull {
        fetch(&store, environment, &loaded.images)?;
    }
    let names = names_of(&store, chosen.top).map_err(failed)?;
    let (is_index, n_others) = (loaded.is_index, loaded.n_others);
    let subject = Subject { name: chosen.name, names, top: chosen.top, is_index, n_others };
    let views: Result<Vec<ImageView>, StoreError> =
        loaded.images.into_iter().map(|image| ImageView::of(&store, image)).collect();
    let views = views.map_err(failed)?;
    print(args, &subject, &views, environment.now_s);
    Ok(())
}

/// Shows what a registry has. The store is not asked, and need not be there.
fn remote(args: &InspectArgs, environment: &Environment) -> Result<(), CliError> {
    let name = reference(&args.image)?;
    let platform = args.platform.as_deref().map(super::build_options::platform).transpose()?;
    let registry = registries::client(environment)?;
    let read = image::read_remote(&registry, &name, platform.as_ref());
    let (top, loaded) = read.map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let (is_index, n_others) = (loaded.is_index, loaded.n_others);
    let subject = Subject { name: Some(name.clone()), names: vec![name], top, is_index, n_others };
    let views: Vec<ImageView> = loaded.images.into_iter().map(ImageView::remote).collect();
    print(args, &subject, &views, environment.now_s);
    Ok(())
}

fn print(args: &InspectArgs, subject: &Subject, views: &[ImageView], now_s: i64) {
    if args.json {
        return stdout::json(&document::of(subject, views));
    }
    let lines = page::lines(subject, views, args, now_s);
    lines.iter().for_each(|line| say!("{line}"));
}

/// Brings the layers that the store lacks.
pub(super) fn fetch(
    store: &Store,
    environment: &Environment,
    images: &[Image],
) -> Result<(), CliError> {
    with_services(store, environment, |services| {
        executor::fetch_images(services, images)
            .map_err(|error| CliError::from_error(&*error, Exit::Environment))
    })
}

/// The names of the image with this manifest or index.
fn names_of(store: &Store, top: Digest) -> Result<Vec<Reference>, StoreError> {
    let tags = store.tags().all()?.into_iter().filter(|tag| tag.manifest == top);
    Ok(tags.filter_map(|tag| tag.name.parse().ok()).collect())
}
