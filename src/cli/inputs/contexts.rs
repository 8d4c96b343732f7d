//! The files of a build: the context, the Dockerfile, and named contexts.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::cli::args::bucket_options;
use crate::cli::args::build::BuildArgs;
use crate::cli::args::go_booleans;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::context::IgnoreRules;
use crate::diag::SourceFile;
use crate::executor::{
    self, BuildError, ContextFiles, ContextSource, Event, FetchedContext, Services,
};
use crate::oci::{Digest, Reference};
use crate::pathio::inside::FileInside;
use crate::pathio::{self, PathError};
use crate::plan::{
    ImageLocation, LayoutLocation, NamedContext, NamedContexts, Remote, parse_remote,
    parse_repository, redacted,
};
use crate::registry::BucketOptions;

use super::dockerfile::{self, LocatedDockerfile};
use super::fetched::{dockerfile_in, lock_in};
use super::lockfile::{self, DefaultLockFile};
use super::{git_facts, not_found};

/// Build argument that keeps `.git` in a context that is a repository, as for BuildKit.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

type Result<T> = std::result::Result<T, CliError>;

/// The context as the command line gives it.
#[derive(Debug)]
pub(crate) enum ContextArg {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A URL or repository.
    Remote(Remote),
    /// An archive on this machine.
    Archive(PathBuf),
    /// An archive in a bucket: `BUCKET/KEY`.
    Object(String),
    /// Standard input: an archive, or a Dockerfile without context.
    Stdin,
    /// No context, since nothing is built.
    Nothing,
}

/// A context that can be read, and the Dockerfile.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) dockerfile: SourceFile,
    /// Path of the Dockerfile as it was typed; inside of a fetched context.
    pub(crate) path: PathBuf,
    /// The Dockerfile, if the context is on this machine.
    pub(crate) file: Option<FileInside>,
    pub(crate) context: ContextSource,
    /// The lock file beside the Dockerfile.
    pub(crate) lock: DefaultLockFile,
    /// Keeps the directory of a fetched context.
    fetched: Option<FetchedContext>,
}

/// The values of `--build-context`.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) names: NamedContexts,
    pub(crate) files: BTreeMap<String, ContextFiles>,
}

fn usage(text: impl std::fmt::Display) -> CliError {
    CliError::new(format!("error: {text}"), Exit::Usage)
}

impl ContextArg {
    /// Returns the context, if it is a directory of this machine.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Archive(_) | Self::Object(_) | Self::Remote(_) => None,
            Self::Stdin | Self::Nothing => None,
        }
    }

    /// Reads the argument. Fetches nothing.
    pub(crate) fn new(args: &BuildArgs) -> Result<Self> {
        let asked = Self::read(args)?;
        if args.podman.ignorefile.is_some() && asked.directory().is_none() {
            let text = "--ignorefile needs a context that is a directory of this machine";
            return Err(usage(text));
        }
        let Some(directory) = &args.context_subdir else { return Ok(asked) };
        let instead = match &asked {
            Self::Directory(path) => path.join(directory).display().to_string(),
            Self::Remote(Remote::Git(_)) => format!("URL#REF:{directory}"),
            Self::Remote(Remote::Url(_)) | Self::Archive(_) | Self::Object(_) => return Ok(asked),
            Self::Stdin | Self::Nothing => return Ok(asked),
        };
        Err(usage(format!("--context-subdir is for archives: give the context {instead}")))
    }

    fn read(args: &BuildArgs) -> Result<Self> {
        if args.context == "-" {
            if dockerfile::is_stdin(args) {
                let text = "standard input cannot be both the context and the Dockerfile";
                return Err(usage(format!("{text}: give a directory, or leave out -f")));
            }
            return Ok(Self::Stdin);
        }
        // An argument that is not UTF-8 can only be a directory.
        let Some(context) = args.context.to_str().filter(|text| !Path::new(text).is_dir()) else {
            return directory(&args.context).map(Self::Directory);
        };
        if let Some(file) = context.strip_prefix("tar://") {
            return Ok(Self::Archive(file.into()));
        }
        if let Some(object) = context.strip_prefix("s3://") {
            return Ok(Self::Object(object.to_owned()));
        }
        if not_found::is_archive(context) && Path::new(context).is_file() {
            return Ok(Self::Archive(context.into()));
        }
        let Some(mut remote) = remote(context)? else {
            return directory(&args.context).map(Self::Directory);
        };
        if let Remote::Git(git) = &mut remote {
            let mut given = args.build_arg.iter().rev().filter_map(|arg| arg.split_once('='));
            let keep = given.find(|(name, _)| *name == KEEP_GIT_DIR);
            let keep = keep.is_some_and(|(_, value)| is_true(value));
            git.keep_git_dir = git.keep_git_dir.or(keep.then_some(true));
        }
        Ok(Self::Remote(remote))
    }

    /// Fetches the context if necessary, and reads the Dockerfile.
    pub(crate) fn load(
        self,
        args: &BuildArgs,
        services: &Services<'_>,
        environment: &Environment,
    ) -> Result<Input> {
        let fetched = match self {
            Self::Directory(path) => {
                // Its Dockerfile may come from standard input.
                return services.cancel.end_at_once_during(|| local(args, path));
            }
            Self::Nothing => return Ok(Input::nothing()),
            Self::Remote(remote) => {
                let text = format!("fetching the context {}", redacted(&args.shown_context()));
                (services.events)(Event::Note { text });
                executor::fetch_context(services, &remote, environment.now_s)
            }
            Self::Archive(path) => services.cancel.end_at_once_during(|| {
                let mut file =
                    pathio::open(&path).map_err(|error| usage(executor::chain(&error)))?;
                let shown = path.display().to_string();
                Ok(executor::context_of_stream(services, &mut file, &shown))
            })?,
            Self::Object(address) => {
                (services.events)(Event::Note {
                    text: format!("fetching the context s3://{address}"),
                });
                let (bucket, key) = object(&address, services, environment)?;
                executor::context_of_object(services, &bucket, &key)
            }
            Self::Stdin => services.cancel.end_at_once_during(|| {
                let mut stdin = std::io::stdin().lock();
                executor::context_of_stream(services, &mut stdin, "standard input")
            }),
        };
        let mut fetched = fetched.map_err(|error| fetch_error(&error))?;
        if let Some(directory) = &args.context_subdir
            && !fetched.enter(directory)
        {
            let text = format!("--context-subdir {directory}: the archive has no such directory");
            return Err(usage(text));
        }
        let path = fetched.path().to_owned();
        let from_stdin = args.context == "-";
        if from_stdin && fetched.single_file().is_some() && args.file.is_some() {
            let text = "standard input is not an archive, so it is the Dockerfile: leave out -f";
            return Err(usage(text));
        }
        let dockerfile = if dockerfile::is_stdin(args) {
            services.cancel.end_at_once_during(dockerfile::of_stdin)?
        } else {
            dockerfile_in(args, &fetched)?
        };
        if let Some(name) = fetched.single_file().filter(|_| from_stdin) {
            let single = path.join(name);
            pathio::remove_file(&single)
                .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
        }
        let (ignore, tree) = (IgnoreRules::default(), fetched.tree());
        let context = ContextSource { path, ignore, lasting: false, tree };
        let lock = DefaultLockFile::Fetched(lock_in(args, &fetched)?);
        let path = args.file.clone().unwrap_or_else(|| PathBuf::from(dockerfile.name()));
        Ok(Input { dockerfile, path, context, lock, file: None, fetched: Some(fetched) })
    }
}

impl Input {
    /// Returns an empty input, for commands that build nothing.
    fn nothing() -> Self {
        let (path, ignore) = (PathBuf::new(), IgnoreRules::default());
        let context = ContextSource { path: path.clone(), ignore, lasting: false, tree: None };
        let dockerfile = SourceFile::new("Dockerfile", "");
        let lock = DefaultLockFile::Fetched(None);
        Self { dockerfile, path, context, lock, file: None, fetched: None }
    }

    /// Returns the Unix time of the newest commit of the context.
    pub(crate) fn newest_commit(&self) -> Option<i64> {
        match &self.fetched {
            Some(fetched) => fetched.commit_s(),
            None => git_facts::newest_commit(&self.context.path),
        }
    }
}

/// Returns the bucket and key of an address without `s3://`.
fn object(
    address: &str,
    services: &Services<'_>,
    environment: &Environment,
) -> Result<(BucketOptions, String)> {
    let variable = |name: &str| environment.get(name).map(str::to_owned);
    let find_keys = || services.registry.aws_keys().map_err(|error| error.to_string());
    bucket_options::object(address, &variable, &find_keys)
        .map_err(|why| usage(format!("s3://{address}: {why}")))
}

fn is_true(value: &str) -> bool {
    go_booleans::parse(value).unwrap_or(false)
}

/// Returns the URL or repository that the text names, if any.
pub(crate) fn remote(text: &str) -> Result<Option<Remote>> {
    let forced = text.strip_prefix("git+");
    if let Some(address) = forced.filter(|rest| rest.starts_with("http")) {
        let source = parse_repository(address);
        let source = source.map_err(|error| usage(format!("{}: {error}", redacted(text))))?;
        return Ok(Some(Remote::Git(source)));
    }
    // As in docker, a repository unless a directory has this name.
    let https = text.starts_with("github.com/").then(|| match text.split_once(['#', '?']) {
        Some((address, _)) => full_github(text, address),
        None => full_github(text, text),
    });
    parse_remote(https.as_deref().unwrap_or(text))
        .map_err(|error| usage(format!("{}: {error}", redacted(text))))
}

fn full_github(text: &str, address: &str) -> String {
    let rest = text.get(address.len()..).unwrap_or_default();
    let dot_git = if address.ends_with(".git") { "" } else { ".git" };
    format!("https://{address}{dot_git}{rest}")
}

/// Returns the error of a context that cannot be fetched.
pub(crate) fn fetch_error(error: &BuildError) -> CliError {
    let help = if let BuildError::Fetch(source) = error { source.help() } else { None };
    let help = help.map_or_else(String::new, |help| format!("; {help}"));
    let exit = if error.is_timeout() {
        Exit::TimedOut
    } else if error.is_cancelled() {
        Exit::Interrupted
    } else {
        Exit::Environment
    };
    CliError::new(format!("error: {}{help}", executor::chain(error)), exit)
}

/// Reads the Dockerfile and the ignore file of a context that is a directory.
pub(crate) fn local(args: &BuildArgs, path: PathBuf) -> Result<Input> {
    let LocatedDockerfile { source: dockerfile, file } = dockerfile::find(args, &path)?;
    let ignore = match &args.podman.ignorefile {
        Some(given) => dockerfile::given_ignore_rules(given)?,
        None => dockerfile::ignore_rules(Some(&file), &path)?,
    };
    let context = ContextSource { path, ignore, lasting: true, tree: None };
    let lock = DefaultLockFile::Here(file.sibling(lockfile::NAME));
    let path = file.shown().to_owned();
    Ok(Input { dockerfile, path, context, lock, file: Some(file), fetched: None })
}

fn directory(context: &OsStr) -> Result<PathBuf> {
    let path = Path::new(context);
    if !path.is_dir() {
        return Err(not_found::directory(&context.to_string_lossy()));
    }
    std::path::absolute(path).map_err(|error| {
        CliError::from_error(&PathError::new("resolve", path, error), Exit::Environment)
    })
}

/// Parses the values of `--build-context`, and adds the contexts that are targets of a bake.
pub(crate) fn named(args: &BuildArgs) -> Result<Named> {
    let mut named = Named::default();
    for (name, top) in args.bake.images.get().into_iter().flatten() {
        let image = name.parse::<Reference>();
        let image = image.map_err(|error| usage(format!("context {name}: {error}")))?;
        let location = ImageLocation::Stored(Box::new(*top));
        // The name was parsed, so it is valid.
        let _key = named.names.add(name, NamedContext::Image { name: image, location });
    }
    for text in &args.build_context {
        let Some((name, value)) = text.split_once('=') else {
            return Err(usage(format!("--build-context {text}: expected NAME=VALUE")));
        };
        let (context, files) = named_value(name, value)?;
        let Some(key) = named.names.add(name, context) else {
            return Err(usage(format!(
                "invalid context name {name}: it must be a valid image name, in lower case"
            )));
        };
        match files {
            Some(files) => drop(named.files.insert(key, files)),
            None => drop(named.files.remove(&key)),
        }
    }
    Ok(named)
}

fn named_value(name: &str, value: &str) -> Result<(NamedContext, Option<ContextFiles>)> {
    let bad = |why: String| usage(format!("--build-context {name}: {why}"));
    if let Some(image) = value.strip_prefix("docker-image://") {
        let image = image.parse();
        let name = image.map_err(|error: crate::oci::ReferenceError| bad(error.to_string()))?;
        return Ok((NamedContext::Image { name, location: ImageLocation::Registry }, None));
    }
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        let place = layout_place(layout).map_err(bad)?;
        let (image, _platform) = name.split_once("::").unwrap_or((name, ""));
        let image = image.parse();
        let name = image.map_err(|error: crate::oci::ReferenceError| bad(error.to_string()))?;
        return Ok((NamedContext::Image { name, location: place }, None));
    }
    if !Path::new(value).is_dir()
        && let Some(remote) = remote(value)?
    {
        return Ok((NamedContext::Directory, Some(ContextFiles::Remote(remote))));
    }
    if let Some((scheme, _)) = value.split_once("://").or_else(|| value.split_once(':'))
        && ["target", "input"].contains(&scheme)
    {
        return Err(bad(format!("{scheme}: is supported in files of `rbuild bake` only")));
    }
    let path = directory(OsStr::new(value)).map_err(|error| bad(error.to_string()))?;
    let ignore = dockerfile::ignore_rules(None, &path)?;
    let source = ContextSource { path, ignore, lasting: true, tree: None };
    Ok((NamedContext::Directory, Some(ContextFiles::Directory(source))))
}

/// Parses `PATH[:TAG][@DIGEST]`.
///
/// A path may contain `@` and `:`, as workspaces of Jenkins do (`job@2`). They are separators only
/// after the last slash, and only if no directory has the whole name.
fn layout_place(text: &str) -> std::result::Result<ImageLocation, String> {
    let is_layout = |path: &str| Path::new(path).join("index.json").is_file();
    if is_layout(text) {
        return layout_at(text, None, None);
    }
    let (rest, digest) = match split_last_name(text, '@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>())),
        None => (text, None),
    };
    let tagged = split_last_name(rest, ':');
    let (path, tag, digest) = match (tagged, digest) {
        (_, Some(Ok(digest))) if is_layout(rest) => (rest, None, Some(digest)),
        (Some((path, tag)), Some(Ok(digest))) => (path, Some(tag), Some(digest)),
        (None, Some(Ok(digest))) => (rest, None, Some(digest)),
        // The text after `@` is part of the directory's name, or an invalid digest.
        (_, Some(Err(error))) => match split_last_name(text, ':') {
            Some((path, tag)) if is_layout(path) => (path, Some(tag), None),
            _ if is_layout(rest) || tagged.is_some_and(|(path, _)| is_layout(path)) => {
                return Err(error.to_string());
            }
            _ => (text, None, None),
        },
        (Some((path, tag)), None) => (path, Some(tag), None),
        (None, None) => (text, None, None),
    };
    if !is_layout(path) {
        return Err(format!("{path} is not an OCI layout: it has no index.json"));
    }
    layout_at(path, tag, digest)
}

fn layout_at(
    path: &str,
    tag: Option<&str>,
    digest: Option<Digest>,
) -> std::result::Result<ImageLocation, String> {
    let path = std::path::absolute(path).map_err(|error| format!("{path}: {error}"))?;
    let tag = tag.map(str::to_owned);
    Ok(ImageLocation::Layout(Box::new(LayoutLocation { path, tag, digest })))
}

/// Splits at the last `separator`, if that is in the last component of the path.
fn split_last_name(text: &str, separator: char) -> Option<(&str, &str)> {
    text.rsplit_once(separator).filter(|(_, after)| !after.contains('/'))
}
