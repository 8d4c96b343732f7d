//! Turns the command line of a build into [`BuildOptions`], [`Request`] and [`Outputs`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{CliError, Environment, Exit, size_setting};
use crate::cli::args::build::{Allow, BuildArgs, NetworkArg, OnError};
use crate::cli::args::check::ImageFormat;
use crate::cli::args::podman::{self, PullPolicy};
use crate::cli::args::{cache_options, run_options};
use crate::cli::inputs::contexts::{self, Input};
use crate::cli::inputs::dockerfile::MAX_FILE_BYTES;
use crate::cli::inputs::{epoch, git_facts, unused};
use crate::cli::outputs::output::{self, OutputKind};
use crate::cli::outputs::{self, Outputs, engine};
use crate::cli::registries;
use crate::diag::nearest;
use crate::dockerfile::ir;
use crate::dockerfile::syntax;
use crate::executor::{
    BuildOptions, CacheLocation, CacheTo, Event, LayerUpload, Pull, Services, Squash, chain,
};
use crate::oci::Platform;
use crate::pathio::inside::read_given;
use crate::plan::{ConfigChanges, NamedContexts, Network, Request, Uncached};

type Result<T> = std::result::Result<T, CliError>;

/// Reads the outputs, and locates docker or podman if an image is loaded there.
///
/// # Errors
/// A usage error for options that contradict each other; an environment error if neither docker nor
/// podman is found.
pub(super) fn read_outputs(args: &BuildArgs, environment: &Environment) -> Result<Outputs> {
    let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
    let is_index = is_on(&build_args(args, environment)?, "BUILDKIT_MULTI_PLATFORM")?;
    let platforms = platforms(&args.platform)?;
    let mut outputs =
        outputs::read(&args.outputs, &args.tag, &platforms, is_index, format(args, environment)?)
            .map_err(usage)?;
    if outputs.all.iter().any(|one| one.kind == OutputKind::Engine) {
        let place = engine::find(outputs.engine, environment, crate::sandbox::in_user_namespace());
        let place = place.map_err(|error| CliError::from_error(&error, Exit::Environment))?;
        outputs.place = Some(place);
    }
    outputs.keeps_special = args.allow.contains(&Allow::LocalSpecial);
    if let Some(directory) = outputs.deleted_directory()
        && !args.allow.contains(&Allow::LocalDelete)
    {
        return Err(usage(format!(
            "mode=delete removes all other files of {}: permit it with --allow buildx.local.delete",
            directory.display()
        )));
    }
    Ok(outputs)
}

/// Parses one platform. The error suggests a similar operating system or architecture.
pub(crate) fn platform(text: &str) -> Result<Platform> {
    text.trim().parse().map_err(|error: crate::oci::PlatformError| {
        let near = error.unknown().and_then(|(name, known)| nearest(name, known.iter().copied()));
        let help = near.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        CliError::new(format!("error: {error}{help}"), Exit::Usage)
    })
}

/// Returns each platform once, in the given order; the host platform if none is given.
pub(super) fn platforms(texts: &[String]) -> Result<Vec<Platform>> {
    let mut platforms = Vec::new();
    for text in texts {
        let platform = platform(text)?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    Ok(platforms)
}

/// Returns whether a boolean build argument is set. `BUILDKIT_MULTI_PLATFORM` makes an index even
/// for a single platform, `BUILDKIT_INLINE_CACHE` embeds the cache in the image.
fn is_on(build_args: &BTreeMap<String, String>, name: &str) -> Result<bool> {
    match build_args.get(name).map(String::as_str) {
        Some("1" | "true") => Ok(true),
        None | Some("" | "0" | "false") => Ok(false),
        Some(other) => {
            let text = format!("error: {name}={other} must be true or false");
            Err(CliError::new(text, Exit::Usage))
        }
    }
}

/// Returns the caches of `--cache-to`, with an inline cache if `BUILDKIT_INLINE_CACHE` is set.
fn cache_to(
    args: &BuildArgs,
    build_args: &BTreeMap<String, String>,
    environment: &Environment,
) -> Result<Vec<CacheTo>> {
    let read =
        |text: &str| cache_options::to(text, &|name| environment.get(name).map(str::to_owned));
    let mut to = caches("--cache-to", &args.cache_to, read)?;
    let has_inline = to.iter().any(|cache| cache.place == CacheLocation::Inline);
    if is_on(build_args, "BUILDKIT_INLINE_CACHE")? && !has_inline {
        to.extend(caches("--cache-to", &["type=inline".to_owned()], read)?);
    }
    Ok(to)
}

/// Returns a warning if `BUILDKIT_SYNTAX`, the build argument that overrides `# syntax`, names a
/// frontend other than Docker's.
fn ignored_frontend(build_args: &BTreeMap<String, String>) -> Option<String> {
    let frontend = build_args.get("BUILDKIT_SYNTAX").filter(|name| !name.is_empty())?;
    (!syntax::is_own_frontend(frontend))
        .then(|| format!("BUILDKIT_SYNTAX={frontend} is ignored; the file is read as a Dockerfile"))
}

/// Returns a warning if docker's client expects an image in its engine, and it is not loaded.
fn unloaded(args: &BuildArgs) -> Option<String> {
    let why = args.outputs.not_loaded?;
    Some(format!("the image stays in the store of rbuild: {why}; use --push or -o to write it"))
}

/// Parses each value of `--cache-from` or `--cache-to`.
fn caches<T>(
    flag: &str,
    texts: &[String],
    read: impl Fn(&str) -> std::result::Result<T, String>,
) -> Result<Vec<T>> {
    let bad = |text: &str, why| {
        let text = cache_options::shown(text);
        CliError::new(format!("error: {flag} {text}: {why}"), Exit::Usage)
    };
    texts.iter().map(|text| read(text).map_err(|why| bad(text, why))).collect()
}

/// Splits `--label NAME[=VALUE]`. The value may be omitted.
fn label_pair(text: &str) -> Result<(String, String)> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => {
            Err(CliError::new(format!("error: --label {text}: the name is missing"), Exit::Usage))
        }
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    }
}

/// Returns what planning needs from the command line.
///
/// # Errors
/// A usage error for platforms, labels or run options that cannot be parsed.
pub(super) fn request(
    args: &BuildArgs,
    environment: &Environment,
    contexts: NamedContexts,
) -> Result<Request> {
    Ok(Request {
        build_args: build_args(args, environment)?,
        target: args.target.clone(),
        platforms: platforms(&args.platform)?,
        platform_given: !args.platform.is_empty(),
        build_platform: Platform::host(),
        labels: args.label.iter().map(|label| label_pair(label)).collect::<Result<_>>()?,
        changes: changes(args, environment)?,
        first_base: args.podman.from.clone(),
        network: match args.network {
            NetworkArg::Default | NetworkArg::Host => Network::Host,
            NetworkArg::None => Network::None,
            NetworkArg::Private => Network::Private,
        },
        contexts,
        allow_host_network: args.allow.contains(&Allow::NetworkHost),
        allow_insecure: args.allow.contains(&Allow::SecurityInsecure),
        uncached: match args.no_cache_filter.as_slice() {
            _ if args.no_cache || args.podman.layers == Some(false) => Uncached::All,
            [] => Uncached::None,
            names => Uncached::Stages(names.to_vec()),
        },
        run: run_options::settings(args)?,
    })
}

/// Returns the options of the build, and emits warnings about unused arguments.
///
/// # Errors
/// A usage error for an option value that cannot be parsed.
pub(super) fn options(
    args: &BuildArgs,
    environment: &Environment,
    services: &Services<'_>,
    input: &Input,
    dockerfile: ir::Dockerfile,
    outputs: &Outputs,
) -> Result<BuildOptions> {
    let named = contexts::named(args)?;
    let mut request = request(args, environment, named.names)?;
    if input.file.is_some() {
        // Those of the command line take precedence.
        let labels = git_facts::labels(args, environment, &input.context.path);
        request.labels.splice(0..0, labels);
    }
    let build_args = &request.build_args;
    let epoch_s = epoch::epoch(outputs.epoch_s()?, args, build_args, &dockerfile, input)?;
    let rewrite = outputs.all.iter().any(|output| output.rewrite_timestamp) && epoch_s.is_some();
    let always_index = is_on(build_args, "BUILDKIT_MULTI_PLATFORM")?;
    let cache_to = cache_to(args, build_args, environment)?;
    let squash = squash(args, &cache_to)?;
    // Squashed layers are not pushed.
    let is_late = outputs.sends_late || squash != Squash::Nothing;
    let upload_ahead = if is_late { Vec::new() } else { uploads(outputs, &cache_to) };
    let pack_ahead = match squash {
        Squash::Nothing => output::packings(&outputs.all),
        Squash::New | Squash::All => Vec::new(),
    };
    let remarks = environment.remarks.iter().cloned();
    remarks.for_each(|text| (services.events)(Event::Note { text }));
    let warnings = ignored_frontend(build_args).into_iter().chain(unloaded(args));
    for text in warnings.chain(unused::warnings(args, &dockerfile)) {
        (services.events)(Event::Warning { text });
    }
    Ok(BuildOptions {
        dockerfile,
        context: input.context.clone(),
        contexts: named.files,
        request,
        tags: outputs.stored_names(),
        annotations: outputs.annotations.clone(),
        always_index,
        cache_from: caches("--cache-from", &args.cache_from, |text| {
            let variable = |name: &str| environment.get(name).map(str::to_owned);
            cache_options::from(text, &variable, environment.now_s)
        })?,
        cache_to,
        keep_failed: args.on_error == OnError::Shell,
        pull: pull(args.pull),
        epoch_s,
        clamp: args.reproducible || args.podman.timestamp.is_some() || rewrite,
        provided: services.provided.clone(),
        resources: args.resources.limits()?,
        run_trust: registries::run_trust(environment, &args.trust.ca_for_run)?,
        now_s: environment.now_s,
        jobs: args.jobs.unwrap_or(environment.processors),
        budget: args.budget.budget(),
        max_in_memory: size_setting(args.max_in_memory, "RBUILD_MAX_IN_MEMORY", environment)?,
        pack_ahead,
        upload_ahead,
        guarded_names: outputs.guarded_names(),
        push_checks: outputs.checked_names(),
        squash,
    })
}

/// Returns the layers that are put into one.
fn squash(args: &BuildArgs, cache_to: &[CacheTo]) -> Result<Squash> {
    let squash = args.squash.choice();
    let has_inline = cache_to.iter().any(|cache| cache.place == CacheLocation::Inline);
    if squash != Squash::Nothing && has_inline {
        let text = "error: a squashed image cannot have an inline cache, which describes the layers of the \
                    image: use type=registry";
        return Err(CliError::new(text, Exit::Usage));
    }
    Ok(squash)
}

/// Returns the repositories that get new layers during the build.
fn uploads(outputs: &Outputs, cache_to: &[CacheTo]) -> Vec<LayerUpload> {
    let to_cache = |cache: &CacheTo| {
        let CacheLocation::Registry(name) = &cache.place else { return None };
        let (packing, all_stages) = (cache.packing, cache.all_steps);
        Some(LayerUpload { name: name.clone(), packing, all_stages })
    };
    outputs.uploads().into_iter().chain(cache_to.iter().filter_map(to_cache)).collect()
}

/// Returns the proxy variables of the environment, unless an argument has that name in any case. Programs
/// prefer the lower case (curl(1), "ENVIRONMENT").
fn proxies(args: &BuildArgs, environment: &Environment) -> Vec<(String, String)> {
    let names = args.build_arg.iter().map(|text| text.split('=').next().unwrap_or_default());
    let given: Vec<&str> = names.collect();
    let missing =
        PROXIES.iter().filter(|name| !given.iter().any(|one| one.eq_ignore_ascii_case(name)));
    let found = missing.filter_map(|name| {
        let value =
            environment.get(&name.to_ascii_lowercase()).or_else(|| environment.get(name))?;
        Some(((*name).to_owned(), value.to_owned()))
    });
    found.collect()
}

/// Variables of `--http-proxy`, those that need no ARG
/// (<https://docs.docker.com/reference/dockerfile/#predefined-args>).
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// Returns the build arguments. `SOURCE_DATE_EPOCH` of the environment is one of them, as in Buildx
/// 0.10 and later: <https://github.com/moby/buildkit/blob/master/docs/build-repro.md>.
pub(super) fn build_args(
    args: &BuildArgs,
    environment: &Environment,
) -> Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    if let Some(epoch) = environment.get("SOURCE_DATE_EPOCH") {
        given.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned());
    }
    if let Some(seconds) = args.podman.timestamp.or(args.podman.source_date_epoch) {
        given.insert("SOURCE_DATE_EPOCH".to_owned(), seconds.to_string());
    }
    if args.trust.http_proxy {
        given.extend(proxies(args, environment));
    }
    let of_files = argument_files(&args.podman.build_arg_file)?;
    for argument in of_files.iter().chain(&args.build_arg) {
        match argument.split_once('=') {
            Some((name, value)) => drop(given.insert(name.to_owned(), value.to_owned())),
            None => {
                let value = environment.get_or_empty(argument);
                given.extend(value.map(|value| (argument.clone(), value.to_owned())));
            }
        }
    }
    Ok(given)
}

/// Reads the files of `--build-arg-file`.
fn argument_files(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut arguments = Vec::new();
    for path in files {
        let usage = |why: String| {
            let text = format!("error: --build-arg-file {}: {why}", path.display());
            CliError::new(text, Exit::Usage)
        };
        let bytes = read_given(path, MAX_FILE_BYTES).map_err(|error| usage(chain(&error)))?;
        let text = String::from_utf8(bytes).map_err(|_bad| usage("it is not UTF-8".to_owned()))?;
        arguments.extend(podman::argument_lines(&text).map_err(usage)?);
    }
    Ok(arguments)
}

/// Returns the media types of `--format` or `BUILDAH_FORMAT`.
fn format(args: &BuildArgs, environment: &Environment) -> Result<Option<ImageFormat>> {
    match (args.checks.image_format(), environment.get("BUILDAH_FORMAT")) {
        (Some(given), _) => Ok(Some(given)),
        (None, Some("docker")) => Ok(Some(ImageFormat::Docker)),
        (None, Some("oci") | None) => Ok(None),
        (None, Some(other)) => {
            let text = format!("error: BUILDAH_FORMAT is `{other}`, but must be oci or docker");
            Err(CliError::new(text, Exit::Usage))
        }
    }
}

/// Returns when registries are asked for base images.
fn pull(policy: Option<PullPolicy>) -> Pull {
    match policy {
        None | Some(PullPolicy::Missing) => Pull::Missing,
        Some(PullPolicy::Always) => Pull::Always,
        Some(PullPolicy::Newer) => Pull::Newer,
        Some(PullPolicy::Never) => Pull::Never,
    }
}

/// Returns the changes of the config that buildah's options ask for.
fn changes(args: &BuildArgs, environment: &Environment) -> Result<ConfigChanges> {
    let mut env = Vec::new();
    for text in &args.podman.env {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text.as_str(), environment.get_or_empty(text)),
        };
        if name.is_empty() {
            let text = format!("error: --env {text}: the name is missing");
            return Err(CliError::new(text, Exit::Usage));
        }
        env.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }
    Ok(ConfigChanges {
        env,
        unset_env: args.podman.unsetenv.clone(),
        unset_labels: args.podman.unsetlabel.clone(),
        drops_labels: args.podman.inherit_labels == Some(false),
    })
}
