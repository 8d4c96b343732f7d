//! `rbuild save` and `rbuild load`: images out of the store into archives, and back.

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

/// An image that is saved, with the names that it is saved under.
struct Wanted {
    top: Digest,
    names: Vec<Reference>,
    loaded: StoredImages,
}

pub(crate) fn save(
    args: &SaveArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from("-"));
    if path == Path::new("-") && io::stdout().is_terminal() {
        let text = "error: an archive does not belong on a terminal: add -o FILE, or use a pipe";
        return Err(CliError::new(text, Exit::Usage));
    }
    let packing = output::packing(args.compression.kind.as_deref(), args.compression.level)
        .map_err(|text| CliError::new(format!("error: {text}"), Exit::Usage))?;
    let store = open_store(global, environment)?;
    let mut wanted: Vec<Wanted> = Vec::new();
    for text in &args.images {
        add(&store, text, args, &mut wanted)?;
    }
    let images: Vec<Image> = wanted.iter().flat_map(|one| one.loaded.images.clone()).collect();
    fetch(&store, environment, &images)?;
    let groups: Vec<ImageGroup<'_>> = wanted
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
        split: None,
        keeps_special: false,
    };
    let form = match args.format {
        SaveFormat::Docker => StreamFormat::DockerArchive,
        SaveFormat::Oci => StreamFormat::OciArchive,
    };
    image::save(&store, &groups, form, &path, &options).map_err(failed)
}

/// Chooses what a word names; the same image under another name is saved once.
fn add(
    store: &Store,
    text: &str,
    args: &SaveArgs,
    wanted: &mut Vec<Wanted>,
) -> Result<(), CliError> {
    let chosen = find::image(store, text)?;
    if let Some(known) = wanted.iter_mut().find(|known| known.top == chosen.top) {
        known.names.extend(chosen.name);
        return Ok(());
    }
    let mut loaded = StoredImages::load(store, chosen.top).map_err(failed)?;
    // Docker's table of contents has no indexes.
    if args.platform.is_some() || (loaded.is_index && args.format == SaveFormat::Docker) {
        let only = match (loaded.images.as_slice(), &args.platform) {
            ([only], None) => only.clone(),
            (several, None) => {
                let has: Vec<String> =
                    several.iter().map(|image| image.platform().to_string()).collect();
                let text = format!(
                    "error: {text} is for {}: choose with --platform, or use --format oci for all",
                    has.join(", ")
                );
                return Err(CliError::new(text, Exit::Usage));
            }
            (_, asked) => find::one(&loaded, asked.as_deref(), text)?,
        };
        loaded = StoredImages { images: vec![only], is_index: false, ..loaded };
    }
    if loaded.is_index && loaded.n_others > 0 {
        stderr::remark(&format!("warning: {}", find::left_out(text, loaded.n_others)));
    }
    wanted.push(Wanted { top: chosen.top, names: chosen.name.into_iter().collect(), loaded });
    Ok(())
}

/// Brings layers that are elsewhere.
fn fetch(store: &Store, environment: &Environment, images: &[Image]) -> Result<(), CliError> {
    with_services(store, environment, |services| {
        executor::fetch_images(services, images)
            .map_err(|error| CliError::from_error(&*error, Exit::Environment))
    })
}

pub(crate) fn load(
    args: &LoadArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let path = args.input.clone().unwrap_or_else(|| PathBuf::from("-"));
    let platform = args.platform.as_deref().map(super::build_options::platform).transpose()?;
    let is_stdin = path == Path::new("-");
    if is_stdin && io::stdin().is_terminal() {
        let text = "error: an archive is read from standard input: use a pipe, or add -i FILE";
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
            stderr::remark("it has no name in there: `rbuild tag ID NAME` gives it one");
        }
    }
    Ok(())
}

fn failed(error: ExportError) -> CliError {
    CliError::from_error(&error, Exit::Environment)
}
