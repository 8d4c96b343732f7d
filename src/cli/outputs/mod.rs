//! The outputs of a build, and the names of the image there and in the store.

pub(super) mod engine;
pub(super) mod output;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use crate::cli::args::check::ImageFormat;
use crate::cli::args::compression::CompressionArgs;
use crate::cli::args::outputs::{EngineChoice, OutputArgs, PushTime};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::executor::LayerUpload;
use crate::oci::{Annotation, AnnotationLevel, Platform, Reference};
use engine::EngineLocation;
use output::{Output, OutputKind};

/// The outputs of a build.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) all: Vec<Output>,
    /// The values of `--tag`.
    pub(super) tags: Vec<Reference>,
    /// The annotations that all outputs get.
    pub(super) annotations: Vec<Annotation>,
    /// The value of `--load`.
    pub(super) engine: EngineChoice,
    /// The engine to load into, once it was found.
    pub(super) place: Option<EngineLocation>,
    /// True if exported directories get devices, set-id bits and file capabilities.
    pub(super) keeps_special: bool,
    /// True if a push may remove platforms from an index of a registry.
    pub(super) replaces_index: bool,
    /// True if layers are sent to registries only after the last step.
    pub(super) sends_late: bool,
    /// True if the right to push is checked before the build.
    pub(super) checks_push: bool,
    /// True if a tag that the registry does not replace is only a warning.
    pub(super) ignores_immutable_tags: bool,
}

/// Parses the options about outputs.
///
/// `platforms` are those that are built. With `is_index`, there is an index even over one platform.
pub(super) fn read(
    args: &OutputArgs,
    tags: &[String],
    platforms: &[Platform],
    is_index: bool,
    format: Option<ImageFormat>,
) -> Result<Outputs, String> {
    let mut all = Vec::with_capacity(args.output.len() + 2);
    for text in &args.output {
        all.push(output::parse(text, &args.compression)?);
    }
    if args.pushes() {
        let mut images = all.iter_mut().filter(|one| one.kind == OutputKind::Store).peekable();
        if images.peek().is_none() {
            all.push(output::parse("type=registry", &args.compression)?);
        } else {
            images.for_each(|one| one.kind = OutputKind::Registry);
        }
    }
    let is_docker = format == Some(ImageFormat::Docker);
    let is_docker_push = is_docker && args.pushes();
    if is_docker && !is_docker_push && args.load.is_none() && !all.iter().any(has_types) {
        let text = "--format docker has no effect: no output has media types; add --push or -o type=…,dest=…";
        return Err(text.to_owned());
    }
    if args.load.is_some() && !all.iter().any(|one| one.kind == OutputKind::Engine) {
        all.push(output::parse("type=docker", &args.compression)?);
    }
    all.iter_mut().for_each(|one| one.docker_media_types |= is_docker);
    let mut annotations = Vec::new();
    for text in &args.annotation {
        annotations.extend(Annotation::parse(text).map_err(|error| error.to_string())?);
    }
    let names = tags.iter().map(|tag| tag.parse::<Reference>().map_err(|error| error.to_string()));
    let tags_read: Vec<Reference> = names.collect::<Result<_, _>>()?;
    let engine = args.load.unwrap_or(EngineChoice::Any);
    let outputs = Outputs {
        all,
        tags: tags_read,
        annotations,
        engine,
        place: None,
        keeps_special: false,
        replaces_index: args.replace_index,
        sends_late: args.push == Some(PushTime::Late),
        checks_push: args.check_push,
        ignores_immutable_tags: args.push_ignore_immutable_tag_errors,
    };
    outputs.check_names(tags)?;
    outputs.check_kinds(&args.compression, platforms.len())?;
    outputs.check_annotations(platforms, is_index)?;
    Ok(outputs)
}

/// Returns whether the output has documents with media types.
fn has_types(output: &Output) -> bool {
    output.kind.has_documents() && output.kind != OutputKind::Store
}

impl Outputs {
    /// Returns no outputs and no names.
    pub(super) fn none() -> Self {
        let (all, tags, annotations) = (Vec::new(), Vec::new(), Vec::new());
        let (keeps_special, replaces_index, sends_late) = (false, false, false);
        Self {
            all,
            tags,
            annotations,
            engine: EngineChoice::Any,
            place: None,
            keeps_special,
            replaces_index,
            sends_late,
            checks_push: false,
            ignores_immutable_tags: false,
        }
    }

    /// Returns the directory of an output that removes other files, if there is one.
    pub(super) fn deleted_directory(&self) -> Option<&Path> {
        let deletes = self.all.iter().find(|output| output.deletes_others)?;
        deletes.kind.path().map(PathBuf::as_path)
    }

    /// Returns the time of all outputs, in Unix seconds, if they have one of their own.
    ///
    /// # Errors
    /// If outputs differ: they share the config of the image.
    pub(super) fn epoch_s(&self) -> Result<Option<i64>, CliError> {
        let mut epochs = self.all.iter().map(|output| output.epoch_s);
        let first = epochs.next().flatten();
        if epochs.any(|epoch_s| epoch_s != first) {
            let text = "error: all outputs need the same source-date-epoch: they share one image; or \
                        use --build-arg SOURCE_DATE_EPOCH=SECONDS";
            return Err(CliError::new(text, Exit::Usage));
        }
        Ok(first)
    }

    /// Returns the names that an output has.
    pub(super) fn names_of<'a>(&'a self, output: &'a Output) -> &'a [Reference] {
        if output.names.is_empty() { &self.tags } else { &output.names }
    }

    /// Returns the names that a push sets in registries and whose indexes must not lose platforms: none with
    /// `--replace-index`.
    pub(super) fn guarded_names(&self) -> Vec<Reference> {
        if self.replaces_index { Vec::new() } else { self.pushed_names() }
    }

    /// Returns a name of each repository for which the right to push is checked before the build.
    pub(super) fn checked_names(&self) -> Vec<Reference> {
        let mut names: Vec<Reference> = Vec::new();
        let pushes = self.all.iter().filter(|one| one.kind == OutputKind::Registry);
        for name in pushes.filter(|_| self.checks_push).flat_map(|one| self.names_of(one)) {
            if !names.iter().any(|known| known.name() == name.name()) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Returns the names that a push sets in registries.
    fn pushed_names(&self) -> Vec<Reference> {
        let is_pushed = |one: &&Output| one.kind == OutputKind::Registry && !one.by_digest;
        self.all.iter().filter(is_pushed).flat_map(|one| self.names_of(one)).cloned().collect()
    }

    /// Returns the repositories that get new layers during the build: of each push to one registry, the
    /// first, from which the others mount them.
    pub(super) fn uploads(&self) -> Vec<LayerUpload> {
        let mut uploads: Vec<LayerUpload> = Vec::new();
        let is_pushed = |one: &&Output| one.kind == OutputKind::Registry;
        for output in self.all.iter().filter(is_pushed) {
            let packing = output.packing;
            for name in self.names_of(output) {
                let is_there = |to: &LayerUpload| {
                    to.name.registry() == name.registry() && to.packing == packing
                };
                if !uploads.iter().any(is_there) {
                    uploads.push(LayerUpload { name: name.clone(), packing, all_stages: false });
                }
            }
        }
        uploads
    }

    /// Returns every name that the image gets anywhere, without names by digest.
    pub(super) fn all_names(&self) -> Vec<Reference> {
        let mut names = self.stored_names();
        let is_named = |one: &&Output| one.kind.has_documents() && !one.by_digest;
        for name in self.all.iter().filter(is_named).flat_map(|one| self.names_of(one)) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Returns the annotations of an output.
    pub(super) fn annotations_of(&self, output: &Output) -> Vec<Annotation> {
        self.annotations.iter().chain(&output.annotations).cloned().collect()
    }

    /// Returns the names that the image gets in the store: those of `--tag`, unless all outputs are
    /// `type=cacheonly` or `store=false`, and the `name`s of image outputs.
    pub(super) fn stored_names(&self) -> Vec<Reference> {
        let mut names = Vec::new();
        let is_image = |one: &&Output| matches!(one.kind, OutputKind::Store | OutputKind::Registry);
        let mut images = self.all.iter().filter(is_image).peekable();
        let is_kept = images.peek().is_none() || images.any(|one| one.stored && !one.by_digest);
        let is_cache_only =
            !self.all.is_empty() && self.all.iter().all(|one| one.kind == OutputKind::Cache);
        if is_kept && !is_cache_only {
            names.extend(self.tags.iter().cloned());
        }
        for one in self.all.iter().filter(is_image).filter(|one| one.stored && !one.by_digest) {
            for name in &one.names {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        names
    }

    fn check_names(&self, typed: &[String]) -> Result<(), String> {
        let mut given = self.tags.iter().chain(self.all.iter().flat_map(|one| &one.names));
        if let Some(name) = given.find(|name| name.digest().is_some()) {
            return Err(format!(
                "{} has a digest, which cannot be chosen: leave out `@` and the text after it",
                name.familiar()
            ));
        }
        for output in self.all.iter().filter(|one| one.kind == OutputKind::Registry) {
            if self.names_of(output).is_empty() {
                return Err("pushing needs a name: add -t REGISTRY/NAME:TAG".to_owned());
            }
            let has_tag = output.names.is_empty() && typed.iter().any(|tag| output::has_tag(tag));
            if output.by_digest && has_tag {
                return Err(
                    "push-by-digest needs names without a tag: give -t without one".to_owned()
                );
            }
        }
        Ok(())
    }

    fn check_kinds(&self, compression: &CompressionArgs, n_platforms: usize) -> Result<(), String> {
        if compression.is_given() && !self.all.iter().any(has_types) {
            let text = "--compression has no effect: no output has compressed layers; add --push or -o type=…,dest=…";
            return Err(text.to_owned());
        }
        let docker =
            |one: &Output| matches!(one.kind, OutputKind::DockerArchive(_) | OutputKind::Engine);
        let pushes = self.all.iter().any(|one| one.kind == OutputKind::Registry);
        for (is_given, name) in [
            (self.checks_push, "--check-push"),
            (self.ignores_immutable_tags, "--push-ignore-immutable-tag-errors"),
        ] {
            if is_given && !pushes {
                return Err(format!("{name} is for pushes: add --push or -o type=registry"));
            }
        }
        if self.replaces_index && self.pushed_names().is_empty() {
            return Err("--replace-index is for pushes: add --push or -o type=registry".to_owned());
        }
        if n_platforms > 1 && self.all.iter().any(docker) {
            let text =
                "--output type=docker and --load support one platform: use type=oci for several";
            return Err(text.to_owned());
        }
        let is_merged =
            |one: &Output| matches!(one.kind, OutputKind::Tar(_)) && one.split == Some(false);
        if n_platforms > 1 && self.all.iter().any(is_merged) {
            return Err("platform-split=false with several platforms needs type=local".to_owned());
        }
        let is_stdout = |one: &&Output| one.kind.path().is_some_and(|path| path == Path::new("-"));
        match self.all.iter().filter(is_stdout).count() {
            0 => Ok(()),
            1 if io::stdout().is_terminal() => {
                Err("refusing to write an archive to a terminal: add dest=FILE, or use a pipe"
                    .to_owned())
            }
            1 => Ok(()),
            n => Err(format!("{n} outputs go to standard output: add dest=FILE to all but one")),
        }
    }

    /// Checks that each annotation has a document to go to.
    fn check_annotations(&self, platforms: &[Platform], is_index: bool) -> Result<(), String> {
        let is_index = is_index || platforms.len() > 1;
        let layouts: Vec<&Output> = self.all.iter().filter(|one| one.kind.is_layout()).collect();
        for annotation in &self.annotations {
            check_place(annotation, platforms, is_index, !layouts.is_empty())?;
        }
        for output in &self.all {
            for annotation in &output.annotations {
                check_place(annotation, platforms, is_index, output.kind.is_layout())?;
            }
            let has_some = !self.annotations.is_empty() || !output.annotations.is_empty();
            if output.docker_media_types && has_some {
                return Err(
                    "docker's media types do not support annotations: leave out oci-mediatypes=false"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

fn check_place(
    annotation: &Annotation,
    platforms: &[Platform],
    is_index: bool,
    in_layout: bool,
) -> Result<(), String> {
    let Annotation { level, platform, key, .. } = annotation;
    if let Some(platform) = platform.as_ref().filter(|wanted| !platforms.contains(wanted)) {
        return Err(format!("the annotation {key} is for {platform}, which is not built"));
    }
    let lack = match level {
        AnnotationLevel::Manifest => return Ok(()),
        AnnotationLevel::Index if !is_index => {
            "an index, which only builds for several platforms have"
        }
        AnnotationLevel::IndexDescriptor if !is_index => {
            "an index, which only builds for several platforms have"
        }
        AnnotationLevel::IndexDescriptor if !in_layout => "the index.json of an -o type=oci",
        AnnotationLevel::ManifestDescriptor if !is_index && !in_layout => {
            "an index over several platforms, or the index.json of an -o type=oci"
        }
        AnnotationLevel::Index
        | AnnotationLevel::ManifestDescriptor
        | AnnotationLevel::IndexDescriptor => return Ok(()),
    };
    Err(format!("the annotation {level}:{key} needs {lack}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct TestArgs {
        #[command(flatten)]
        args: OutputArgs,
        #[arg(short)]
        tag: Vec<String>,
        #[arg(long)]
        platform: Vec<Platform>,
    }

    fn read_line(line: &str) -> Result<Outputs, String> {
        let line = TestArgs::parse_from(["rbuild"].into_iter().chain(line.split_whitespace()));
        let mut platforms = line.platform;
        if platforms.is_empty() {
            platforms.push("linux/amd64".parse().unwrap());
        }
        read(&line.args, &line.tag, &platforms, false, None)
    }

    #[test]
    fn names_of_the_store() {
        for (line, want) in [
            ("-t a", "a:latest"),
            ("-t a -o type=oci,dest=x,name=b", "a:latest"),
            ("-t a -o type=cacheonly", ""),
            ("-t a --push", "a:latest"),
            ("-t a -o type=registry,store=false", ""),
            ("-t a -o type=image,name=b:1", "a:latest b:1"),
            ("-o type=image,name=b --push", "b:latest"),
            ("-t a -o type=registry,push-by-digest=true", ""),
        ] {
            let outputs = read_line(line).unwrap();
            let names: Vec<String> =
                outputs.stored_names().iter().map(Reference::familiar).collect();
            assert_eq!(names.join(" "), want, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_is_reported() {
        let pinned = format!("a:1@sha256:{:064}", 0);
        let with_digest = format!(
            "{pinned} has a digest, which cannot be chosen: leave out `@` and the text after it"
        );
        for line in [format!("-t {pinned}"), format!("-o type=registry,name={pinned}")] {
            assert_eq!(read_line(&line).unwrap_err(), with_digest, "{line}");
        }
        for (line, want) in [
            (
                "--replace-index -o dir",
                "--replace-index is for pushes: add --push or -o type=registry",
            ),
            ("--push", "pushing needs a name: add -t REGISTRY/NAME:TAG"),
            (
                "--compression zstd -o dir",
                "--compression has no effect: no output has compressed layers; add --push or -o type=…,dest=…",
            ),
            (
                "--load --platform linux/arm64 --platform linux/amd64",
                "--output type=docker and --load support one platform: use type=oci for several",
            ),
            ("-o - -o type=oci", "2 outputs go to standard output: add dest=FILE to all but one"),
            (
                "-t a:1 -o type=registry,push-by-digest=true",
                "push-by-digest needs names without a tag: give -t without one",
            ),
            (
                "--annotation index:a=b -o type=oci,dest=x",
                "the annotation index:a needs an index, which only builds for several platforms have",
            ),
            (
                "--annotation index-descriptor:a=b --platform linux/arm64 --platform linux/amd64",
                "the annotation index-descriptor:a needs the index.json of an -o type=oci",
            ),
            (
                "--annotation manifest-descriptor:a=b",
                "the annotation manifest-descriptor:a needs an index over several platforms, or the index.json of an -o type=oci",
            ),
            (
                "--annotation manifest[linux/arm64]:a=b",
                "the annotation a is for linux/arm64, which is not built",
            ),
            (
                "--annotation a=b -o type=oci,dest=x,oci-mediatypes=false",
                "docker's media types do not support annotations: leave out oci-mediatypes=false",
            ),
        ] {
            assert_eq!(read_line(line).unwrap_err(), want, "{line}");
        }
    }
}
