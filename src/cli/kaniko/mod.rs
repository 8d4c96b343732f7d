//! The command line of kaniko's executor, translated into one of `rbuild build`.
//!
//! [`translate`] is pure: it takes the words, the environment and a look at files, and returns words. So there
//! is one way to build, and each flag of kaniko is an option of rbuild, has no effect, or is an error.
//! `docs/kaniko.md` has the table for users.

mod context;
mod flags;
mod registries;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

use crate::cli::args::default_command::command_at;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::registries::RETRIES;

use flags::Given;

/// The name of the command, and of the program that is called in its place.
const NAME: &str = "executor";
/// Directory of docker's configuration in kaniko's images.
const CONFIG: &str = "/kaniko/.docker";
/// Name of the document of a cache in kaniko's cache repository, whose other tags are hashes.
const CACHE_TAG: &str = "rbuild";
/// Time after which kaniko's caches expire.
const CACHE_TTL: &str = "336h";

/// Facts about this machine that the translation asks for.
pub(super) struct Host<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(super) is_file: &'a dyn Fn(&Path) -> bool,
}

/// A command line of `rbuild build` in the making.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    /// Options, without the context.
    words: Vec<String>,
    context: String,
    /// Variables to set for this process, secrets among them.
    variables: Vec<(String, String)>,
    /// Remarks about flags, for the user.
    remarks: Vec<String>,
}

impl Line {
    fn option(&mut self, name: &str, value: String) {
        self.words.extend([name.to_owned(), value]);
    }

    fn switch(&mut self, name: &str) {
        self.words.push(name.to_owned());
    }
}

/// Replaces a command line of the executor by that of `rbuild build`, if it is one.
///
/// # Errors
/// A usage error for a flag that kaniko or rbuild does not have.
pub(super) fn replace(
    words: Vec<OsString>,
    environment: &mut Environment,
) -> Result<Vec<OsString>, CliError> {
    let Some((before, own)) = split(&words) else { return Ok(words) };
    let usage = |why: String| {
        CliError::new(
            format!("error: {why}\nhelp: `rbuild help kaniko` has all flags"),
            Exit::Usage,
        )
    };
    let texts = own.iter().map(|word| word.to_str().map(str::to_owned));
    let texts: Option<Vec<String>> = texts.collect();
    let texts = texts.ok_or_else(|| usage("the command line is not UTF-8".to_owned()))?;
    let words = |command: &[&str]| -> Vec<OsString> {
        before.iter().cloned().chain(command.iter().map(OsString::from)).collect()
    };
    match texts.first().map(String::as_str) {
        None | Some("-h" | "--help" | "help") => return Ok(words(&["help", "kaniko"])),
        Some("version" | "--version") => return Ok(words(&["version"])),
        Some("login") => {
            let rest: Vec<&str> = texts.iter().map(String::as_str).collect();
            return Ok(words(&rest));
        }
        Some("push") => {
            let why =
                "rbuild has no `executor push`; use `rbuild load -i FILE` and `rbuild push NAME`";
            return Err(usage(why.to_owned()));
        }
        Some(_) => {}
    }
    let line = {
        let variable = |name: &str| environment.get_or_empty(name).map(str::to_owned);
        let host = Host { variable: &variable, is_file: &Path::is_file };
        translate(&texts, &host).map_err(usage)?
    };
    for (name, value) in line.variables {
        environment.set(&name, value);
    }
    environment.remarks = line.remarks;
    let translated: Vec<&str> = line.words.iter().map(String::as_str).collect();
    let mut words = words(&["build"]);
    words.extend(translated.into_iter().chain(["--", &line.context]).map(OsString::from));
    Ok(words)
}

/// Splits a command line of the executor into the words before its flags, and the flags. `None` for any
/// other command line.
fn split(words: &[OsString]) -> Option<(&[OsString], &[OsString])> {
    let program = Path::new(words.first()?).file_name()?;
    if program == NAME {
        return words.split_at_checked(1);
    }
    let at = command_at(words)?;
    let is_command = words.get(at).is_some_and(|word| word == NAME);
    is_command.then_some((words.get(..at)?, words.get(at + 1..)?))
}

/// Translates the flags of kaniko.
fn translate(words: &[String], host: &Host<'_>) -> Result<Line, String> {
    let given = flags::parse(words)?;
    let mut line = Line::default();
    check(&given)?;
    context::add(&given, host, &mut line)?;
    inputs(&given, host, &mut line)?;
    outputs(&given, host, &mut line)?;
    cache(&given, &mut line)?;
    for settings in registries::settings(&given, host)? {
        line.option("--registry", settings);
    }
    transfers(&given, &mut line)?;
    progress(&given, &mut line)?;
    if (host.variable)("DOCKER_CONFIG").is_none()
        && (host.is_file)(&Path::new(CONFIG).join("config.json"))
    {
        line.variables.push(("DOCKER_CONFIG".to_owned(), CONFIG.to_owned()));
    }
    Ok(line)
}

/// Refuses flags whose effect rbuild does not have.
fn check(given: &Given) -> Result<(), String> {
    for (is_given, why) in [
        (
            given.is_on("materialize"),
            "--materialize: rbuild does not change its own root directory; `rbuild build -o DIR` writes the \
             files of the image",
        ),
        (
            given.has("ignore-path"),
            "--ignore-path: files that a step writes are in the image; remove them in the same RUN, or give \
             them a RUN --mount=type=tmpfs",
        ),
        (
            given.is_on("cache") && !given.is_on("cache-run-layers"),
            "--cache-run-layers=false: rbuild caches all steps or those of some stages; use --cache=false, or \
             `rbuild build --no-cache-filter STAGE`",
        ),
        (
            given.has("azure-container-registry-config"),
            "--azure-container-registry-config: rbuild reads the variables AZURE_* instead",
        ),
    ] {
        if is_given {
            return Err(why.to_owned());
        }
    }
    one_of(given, "snapshot-mode", &["full", "redo", "time"])?;
    one_of(given, "image-format", &["docker", "oci"])?;
    one_of(given, "compression", &["gzip", "zstd"])?;
    number(given, "image-fs-extract-retry")?;
    context::git_options(given)?;
    Ok(())
}

fn one_of(given: &Given, name: &str, known: &[&str]) -> Result<(), String> {
    match given.last(name) {
        Some(value) if !known.contains(&value) => {
            Err(format!("--{name}={value}: must be one of {}", known.join(", ")))
        }
        Some(_) | None => Ok(()),
    }
}

fn number(given: &Given, name: &str) -> Result<Option<u32>, String> {
    let parse =
        |text: &str| text.parse().map_err(|_bad| format!("--{name}={text}: expected a number"));
    given.last(name).map(parse).transpose()
}

/// Translates what goes into the build.
fn inputs(given: &Given, host: &Host<'_>, line: &mut Line) -> Result<(), String> {
    for argument in given.all("build-arg") {
        // Kaniko sets an argument to the empty text if its variable is not set.
        let is_unset = !argument.contains('=') && (host.variable)(argument).is_none();
        let value = if is_unset { format!("{argument}=") } else { argument.clone() };
        line.option("--build-arg", value);
    }
    for name in ["label", "annotation", "secret"] {
        for value in given.all(name) {
            line.option(&format!("--{name}"), value.clone());
        }
    }
    let targets: Vec<&str> = given
        .all("target")
        .iter()
        .flat_map(|text| text.split(','))
        .filter(|it| !it.is_empty())
        .collect();
    match targets.as_slice() {
        [] => {}
        [only] => line.option("--target", (*only).to_owned()),
        [first, ..] => {
            return Err(format!(
                "--target is given several times: rbuild builds one stage and what it needs; run it once for \
                 each, {first} last"
            ));
        }
    }
    if let Some(platform) = given.last("custom-platform") {
        line.option("--platform", platform.to_owned());
    }
    if given.is_on("reproducible") {
        line.switch("--reproducible");
    }
    if given.is_on("single-snapshot") {
        line.switch("--squash");
    }
    if given.has("ignore-var-run") && given.is_on("ignore-var-run") {
        let text = "--ignore-var-run has no effect: what a step leaves in /var/run is in the image";
        line.remarks.push(text.to_owned());
    }
    Ok(())
}

/// Returns whether the image is pushed.
fn pushes(given: &Given, host: &Host<'_>) -> Result<bool, String> {
    let mut no_push = given.is_on("no-push");
    if let Some(text) = (host.variable)("KANIKO_NO_PUSH") {
        no_push = crate::cli::args::docker::boolean(&text)
            .map_err(|why| format!("KANIKO_NO_PUSH={text}: {why}"))?;
    }
    if !no_push && given.all("destination").is_empty() {
        return Err("you must provide --destination, or use --no-push".to_owned());
    }
    Ok(!no_push)
}

/// Translates what becomes of the image.
fn outputs(given: &Given, host: &Host<'_>, line: &mut Line) -> Result<(), String> {
    let pushes = pushes(given, host)?;
    let destinations = given.all("destination");
    for destination in destinations {
        line.option("--tag", destination.clone());
    }
    let media =
        if given.last("image-format") == Some("docker") { ",oci-mediatypes=false" } else { "" };
    let files = [("tar-path", "type=docker", media), ("oci-layout-path", "type=oci,tar=false", "")];
    let mut has_layers = pushes;
    for (name, kind, media) in files {
        if let Some(path) = given.last(name) {
            line.option("--output", format!("{kind},{}{media}", quoted(&format!("dest={path}"))));
            has_layers = true;
        }
    }
    if pushes && media.is_empty() {
        line.switch("--push");
    } else if pushes {
        line.option("--output", format!("type=registry{media}"));
    }
    for name in ["compression", "compression-level"] {
        // Kaniko's default of the level is -1.
        let value = given.last(name).filter(|value| has_layers && *value != "-1");
        if let Some(value) = value {
            line.option(&format!("--{name}"), value.to_owned());
        }
    }
    for name in ["digest-file", "image-name-with-digest-file", "image-name-tag-with-digest-file"] {
        let Some(path) = given.last(name) else { continue };
        if path.starts_with("https://") {
            return Err(format!(
                "--{name}: rbuild writes files only; send {name} with a step of its own after the build"
            ));
        }
        if name != "digest-file" && destinations.is_empty() {
            return Err(format!("you must provide --destination if you use --{name}"));
        }
        line.option(&format!("--{name}"), path.to_owned());
    }
    Ok(())
}

/// Quotes a field of a list that is separated by commas (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// Translates the flags about the cache.
fn cache(given: &Given, line: &mut Line) -> Result<(), String> {
    if given.has("cache-dir") {
        let text = "--cache-dir has no effect: base images are in the store (RBUILD_ROOT)";
        line.remarks.push(text.to_owned());
    }
    if !given.is_on("cache") {
        line.switch("--no-cache");
        return Ok(());
    }
    let inferred = given.all("destination").first().map(|name| {
        let name = name.split('@').next().unwrap_or_default();
        let tag = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
        format!("{}/cache", tag.map_or(name, |(name, _)| name))
    });
    let sends = !given.is_on("no-push-cache");
    let repository = match given.last("cache-repo") {
        Some(repository) => repository.to_owned(),
        None if given.is_on("no-push") && sends => {
            return Err("if you use --cache with --no-push, specify --cache-repo".to_owned());
        }
        None => match inferred {
            Some(inferred) => inferred,
            None => return Ok(()),
        },
    };
    let max_age = given.last("cache-ttl").unwrap_or(CACHE_TTL);
    let (from, to) = match repository.strip_prefix("oci:") {
        Some(path) => (
            format!("type=local,{}", quoted(&format!("src={path}"))),
            format!("type=local,{}", quoted(&format!("dest={path}"))),
        ),
        None => {
            let place = format!("type=registry,ref={repository}:{CACHE_TAG}");
            (place.clone(), place)
        }
    };
    line.option("--cache-from", format!("{from},max-age={max_age}"));
    if sends {
        line.option("--cache-to", format!("{to},mode=max"));
    }
    Ok(())
}

/// Translates the flags about transfers.
fn transfers(given: &Given, line: &mut Line) -> Result<(), String> {
    let retries = [number(given, "push-retry")?, number(given, "image-download-retry")?];
    // Kaniko retries requests besides, so a small number does not mean fewer than usual.
    if let Some(retries) = retries.into_iter().flatten().max().filter(|number| *number > RETRIES) {
        line.option("--retry", retries.to_string());
    }
    let pushes =
        line.words.iter().any(|word| word == "--push" || word.starts_with("type=registry,oci-"));
    if pushes && !given.is_on("skip-push-permission-check") {
        line.switch("--check-push");
    }
    if given.is_on("push-ignore-immutable-tag-errors") {
        line.switch("--push-ignore-immutable-tag-errors");
    }
    if given.has("credential-helpers") {
        line.option("--credential-helpers", given.all("credential-helpers").join(","));
    }
    Ok(())
}

/// Translates the flags about what is shown.
fn progress(given: &Given, line: &mut Line) -> Result<(), String> {
    one_of(given, "log-format", &["text", "color", "json"])?;
    let levels = ["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"];
    one_of(given, "verbosity", &levels)?;
    match given.last("verbosity") {
        Some("trace" | "debug") => line.switch("--debug"),
        Some("warn" | "warning" | "error" | "fatal" | "panic") => {
            line.option("--progress", "none".to_owned());
            return Ok(());
        }
        Some(_) | None => {}
    }
    match given.last("log-format") {
        Some("json") => line.option("--progress", "json".to_owned()),
        Some("text") => line.option("--progress", "plain".to_owned()),
        // Only plain lines have times.
        Some(_) | None if given.is_on("log-timestamp") => {
            line.option("--progress", "plain".to_owned());
        }
        Some(_) | None => {}
    }
    if given.is_on("dryrun") {
        line.switch("--dry-run");
    }
    Ok(())
}
