//! `rbuild save` and `rbuild load`: writes images of the store to archives, and reads them back.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use super::{CliError, Environment, Exit, Global, find, open_store, with_services};
use crate::cli::args::store::{LoadArgs, SaveArgs, SaveFormat};
use crate::cli::display::stderr;
use crate::cli::display::stdout::say;
use crate::cli::outputs::output;
use crate::executor;
use crate::image::{
    self, ExportError, ExportOptions, Image, ImageGroup, LoadOptions, LoadSource, StoredImages,
    StreamFormat,
};
use crate::oci::{Digest, Reference};
use crate::pathio;
use crate::store::Store;

/// An image to save, with the names that it gets in the archive.
struct SavedImage {
    top: Digest,
    names: Vec<Reference>,
    loaded: StoredImages,
}

/// Writes images to one archive.
pub(crate) fn save(
    args: &SaveArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from("-"));
    if path == Path::new("-") && io::stdout().is_terminal() {
        let text = "error: refusing to write an archive to a terminal: add -o FILE, or use a pipe";
        return Err(CliError::new(text, Exit::Usage));
    }
    let packing = output::packing(args.compression.kind.as_deref(), args.compression.level)
        .map_err(|text| CliError::new(format!("error: {text}"), Exit::Usage))?;
    let store = open_store(global, environment)?;
    let mut images: Vec<SavedImage> = Vec::new();
    for text in &args.images {
        add(&store, text, args, &mut images)?;
    }
    let all: Vec<Image> = images.iter().flat_map(|one| one.loaded.images.clone()).collect();
    fetch(&store, environment, &all)?;
    let groups: Vec<ImageGroup<'_>> = images
        .iter()
        .map(|one| ImageGroup {
            images: &one.loaded.images,
            is_index: one.loaded.is_index,
            names: &one.names,
            created: None,
            annotations: &one.loaded.annotations,
            left_out: None,
        })
        .collect();
    let options = ExportOptions {
        packing,
        force_packing: args.compression.force,
        docker_media_types: false,
        always_index: false,
        jobs: environment.processors,
        names: Vec::new(),
        created: None,
        annotations: Vec::new(),
        by_digest: false,
        guarded_names: Vec::new(),
        ignores_immutable_tags: false,
        trusts_tag: false,
        split: None,
        keeps_special: false,
        deletes_others: false,
    };
    let form = match args.format {
        SaveFormat::Docker => StreamFormat::DockerArchive,
        SaveFormat::Oci => StreamFormat::OciArchive,
    };
    image::save(&store, &groups, form, &path, &options).map_err(failed)
}

/// Adds the image that `text` names. An image that is already there only gets a further name.
fn add(
    store: &Store,
    text: &str,
    args: &SaveArgs,
    images: &mut Vec<SavedImage>,
) -> Result<(), CliError> {
    let selected = find::image(store, text)?;
    if let Some(known) = images.iter_mut().find(|known| known.top == selected.top) {
        known.names.extend(selected.name);
        return Ok(());
    }
    let mut loaded = StoredImages::load(store, selected.top).map_err(failed)?;
    // `manifest.json` of a docker archive lists images, and cannot describe an index.
    if args.platform.is_some() || (loaded.is_index && args.format == SaveFormat::Docker) {
        let only = match (loaded.images.as_slice(), &args.platform) {
            ([only], None) => only.clone(),
            (several, None) => {
                let has: Vec<String> =
                    several.iter().map(|image| image.platform().to_string()).collect();
                let text = format!(
                    "error: {text} is for several platforms ({}): choose one with --platform, or save \
                     all with --format oci",
                    has.join(", ")
                );
                return Err(CliError::new(text, Exit::Usage));
            }
            (_, platform) => find::for_platform(&loaded, platform.as_deref(), text)?,
        };
        loaded = StoredImages { images: vec![only], is_index: false, ..loaded };
    }
    if loaded.is_index && loaded.n_others > 0 {
        stderr::remark(&format!("warning: {}", find::omitted_entries(text, loaded.n_others)));
    }
    let names = selected.name.into_iter().collect();
    images.push(SavedImage { top: selected.top, names, loaded });
    Ok(())
}

/// Fetches the layers that the store lacks.
fn fetch(store: &Store, environment: &Environment, images: &[Image]) -> Result<(), CliError> {
    with_services(store, environment, |services| {
        executor::fetch_images(services, images)
            .map_err(|error| CliError::from_error(&*error, Exit::Environment))
    })
}

/// Reads the images of an archive or an OCI layout into the store, and prints their names.
pub(crate) fn load(
    args: &LoadArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let path = args.input.clone().unwrap_or_else(|| PathBuf::from("-"));
    let platform = args.platform.as_deref().map(super::build_options::platform).transpose()?;
    let is_stdin = path == Path::new("-");
    if is_stdin && io::stdin().is_terminal() {
        let text = "error: standard input is a terminal: pipe an archive into it, or add -i FILE";
        return Err(CliError::new(text, Exit::Usage));
    }
    let source = if is_stdin {
        LoadSource::Stream(Box::new(io::stdin()))
    } else if path.is_dir() {
        LoadSource::Directory(path.clone())
    } else {
        let opened = pathio::open(&path);
        let file = opened.map_err(|error| CliError::from_error(&error, Exit::Environment))?;
        LoadSource::Stream(Box::new(file))
    };
    let shown = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let store = open_store(global, environment)?;
    let options = LoadOptions { shown, platform, jobs: environment.processors };
    let images = image::load(&store, source, &options)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    store.make_durable().map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    if args.quiet {
        return Ok(());
    }
    for image in &images {
        image.replaced.iter().for_each(|replaced| stderr::remark(&replaced.to_string()));
        image.names.iter().for_each(|name| say!("Loaded image: {}", name.familiar()));
        if image.names.is_empty() {
            let id = store.images().id_of(image.top);
            let id = id.map_err(|error| CliError::from_error(&error, Exit::Environment))?;
            say!("Loaded image ID: {}", id.unwrap_or(image.top));
            stderr::remark("the archive gives it no name: use `rbuild tag ID NAME`");
        }
    }
    Ok(())
}

fn failed(error: ExportError) -> CliError {
    CliError::from_error(&error, Exit::Environment)
}
