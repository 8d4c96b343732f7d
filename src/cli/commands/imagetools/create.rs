//! `rbuild imagetools create`: an index over images of registries.

use std::collections::BTreeMap;

use std::path::Path;

use serde_json::json;

use super::{CliError, Environment, Exit, failed, reference, usage, with_client};
use crate::cli::args::imagetools::{CopyProgress, CreateArgs};
use crate::cli::commands::build_options;
use crate::cli::display::{stderr, stdout};
use crate::image::{self, CombineOptions, Combined, CombinedPart, ExportError, JoinSource};
use crate::limits::MAX_MANIFEST_BYTES;
use crate::oci::{Annotation, MediaType, Reference};
use crate::pathio;
use crate::pathio::output::write_output;
use crate::registry::Client;

/// Joins the sources, copies what the targets lack, and sets the tags.
pub(super) fn run(args: &CreateArgs, environment: &Environment) -> Result<(), CliError> {
    let sources = sources(args)?;
    if sources.is_empty() {
        return Err(usage("`imagetools create` needs the name of an image to join or copy"));
    }
    if args.tag.is_empty() && !args.dry_run {
        return Err(usage("`imagetools create` needs --tag NAME, or --dry-run"));
    }
    let tags: Vec<Reference> =
        args.tag.iter().map(|tag| reference(tag)).collect::<Result<_, _>>()?;
    let mut sources = sources;
    if let Some(first) = tags.first().filter(|_| args.append) {
        sources.insert(0, JoinSource::Name(first.clone()));
    }
    let options = options(args)?;
    with_client(environment, |registry| {
        let resolved = image::resolve(registry, &sources, &tags).map_err(failed)?;
        let combined = image::combine(registry, &resolved, &options).map_err(failed)?;
        if combined.entry.media_type == MediaType::DockerIndex && !options.annotations.is_empty() {
            stderr::remark(
                "warning: the annotations are left out: all images have Docker's media types, \
                 whose index cannot have any",
            );
        }
        if args.dry_run {
            stdout::bytes(&combined.bytes);
            stdout::bytes(b"\n");
            return Ok(());
        }
        push(registry, &combined, &tags, args.progress)?;
        write_metadata(args, &combined, &tags)
    })
}

/// Returns the sources of `--file` and of the command line.
fn sources(args: &CreateArgs) -> Result<Vec<JoinSource>, CliError> {
    let read = |path: &Path| {
        let text = pathio::read_to_string(path, MAX_MANIFEST_BYTES);
        text.map_err(|error| CliError::from_error(&error, Exit::Environment))
    };
    let files: Vec<String> = args.file.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let texts = files.iter().chain(&args.sources);
    texts.map(|text| JoinSource::parse(text).map_err(usage)).collect()
}

fn options(args: &CreateArgs) -> Result<CombineOptions, CliError> {
    let annotations: Result<Vec<Vec<Annotation>>, _> =
        args.annotation.iter().map(|text| Annotation::parse(text)).collect();
    let annotations = annotations.map_err(|error| usage(format!("--annotation {error}")))?;
    let platforms = args.platform.iter().map(|text| build_options::platform(text));
    Ok(CombineOptions {
        annotations: annotations.concat(),
        prefers_index: args.prefer_index,
        platforms: platforms.collect::<Result<_, _>>()?,
    })
}

/// Copies the parts to every repository, and then sets its tags.
fn push(
    registry: &Client,
    combined: &Combined,
    tags: &[Reference],
    progress: CopyProgress,
) -> Result<(), CliError> {
    let say = |line: String| {
        if !matches!(progress, CopyProgress::Quiet | CopyProgress::None) {
            stderr::remark(&line);
        }
    };
    for (repository, tags) in by_repository(tags) {
        let Some(first) = tags.first() else { continue };
        for CombinedPart { entry, source } in &combined.parts {
            if source.name() != repository {
                say(format!("copying {} from {} to {repository}", entry.digest, source.name()));
            }
        }
        image::copy(registry, &combined.parts, first, &|_more| {}).map_err(failed)?;
        for tag in tags {
            say(format!("pushing {} to {tag}", combined.entry.digest));
            let pushed = registry.push_manifest(tag, &combined.entry.media_type, &combined.bytes);
            pushed
                .map_err(|source| failed(ExportError::Registry { name: tag.familiar(), source }))?;
        }
    }
    Ok(())
}

/// Returns the tags of each repository.
fn by_repository(tags: &[Reference]) -> BTreeMap<String, Vec<&Reference>> {
    let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for tag in tags {
        repositories.entry(tag.name()).or_default().push(tag);
    }
    repositories
}

/// Writes the file of `--metadata-file`, with the member names of
/// [`docker buildx imagetools create`](https://docs.docker.com/reference/cli/docker/buildx/imagetools/create/#metadata-file).
fn write_metadata(
    args: &CreateArgs,
    combined: &Combined,
    tags: &[Reference],
) -> Result<(), CliError> {
    let Some(path) = &args.metadata_file else { return Ok(()) };
    let names: Vec<String> = by_repository(tags).into_keys().collect();
    let document = json!({
        "containerimage.descriptor": combined.entry,
        "image.name": names.join(","),
    });
    let text = format!("{document:#}");
    write_output(path, text.as_bytes())
        .map_err(|error| CliError::from_error(&error, Exit::Environment))
}
