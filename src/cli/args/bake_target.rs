//! A target of a bake as a command line of `build`.

use std::ffi::OsString;
use std::path::Path;

use clap::{Args as _, FromArgMatches as _};

use super::build::BuildArgs;
use super::csv;
use crate::bake::{self, Target};

/// Prefix of a named context that is the image of another target.
const TARGET: &str = "target:";
/// Prefix of a path in the working directory, where others are relative to a remote definition.
const LOCAL: &str = "cwd://";
/// Entitlements of Buildx that only concern its own prompts.
const OF_BAKE: [&str; 3] = ["fs", "image", "ssh"];

/// Arguments of a build, and the targets whose images it uses.
#[derive(Debug)]
pub(crate) struct BakedArgs {
    pub(crate) args: BuildArgs,
    /// Names of contexts, with the targets that they are.
    pub(crate) links: Vec<(String, String)>,
    /// A Dockerfile of the working directory, for a context that is elsewhere.
    pub(crate) local_dockerfile: Option<String>,
}

/// Returns the arguments of `build` for a target.
///
/// # Errors
/// A message for the user if a value is not valid, or not supported.
pub(crate) fn arguments(target: &Target) -> Result<BakedArgs, String> {
    let mut words = CommandLine::default();
    let links = contexts(target, &mut words);
    let local_dockerfile = dockerfile(target, &mut words);
    image(target, &mut words);
    cache(target, &mut words);
    steps(target, &mut words);
    attestations(target, &mut words)?;
    words.0.push("--".into());
    words.0.push(context(target).into());
    let matches = BuildArgs::augment_args(clap::Command::new("build"))
        .try_get_matches_from(std::iter::once(OsString::from("build")).chain(words.0))
        .map_err(|error| message(&error))?;
    let mut args = BuildArgs::from_arg_matches(&matches).map_err(|error| message(&error))?;
    args.bake.dockerfile.clone_from(&target.dockerfile_inline);
    Ok(BakedArgs { args, links, local_dockerfile })
}

/// Returns the first line of clap's error, which has no usage of `build` that a user could follow.
fn message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// A command line in the making.
#[derive(Debug, Default)]
struct CommandLine(Vec<OsString>);

impl CommandLine {
    fn flag(&mut self, name: &str, is_set: Option<bool>) {
        self.0.extend(is_set.unwrap_or(false).then(|| name.into()));
    }

    fn option(&mut self, name: &str, value: &str) {
        self.0.push(format!("{name}={value}").into());
    }

    fn each<'v>(&mut self, name: &str, values: impl IntoIterator<Item = &'v String>) {
        values.into_iter().for_each(|value| self.option(name, value));
    }

    fn pairs(&mut self, name: &str, values: Option<&bake::NullableMap>, separator: char) {
        for (key, value) in values.into_iter().flatten() {
            if let Some(value) = value {
                self.option(name, &format!("{key}{separator}{value}"));
            }
        }
    }
}

fn context(target: &Target) -> &str {
    let context = target.context.as_deref().unwrap_or(".");
    context.strip_prefix(LOCAL).unwrap_or(context)
}

fn is_remote(context: &str) -> bool {
    !Path::new(context).is_dir() && bake::is_remote(context)
}

/// Adds the named contexts. Returns those that are targets.
fn contexts(target: &Target, words: &mut CommandLine) -> Vec<(String, String)> {
    let mut links = Vec::new();
    for (name, value) in target.contexts.iter().flatten() {
        match value.strip_prefix(TARGET) {
            Some(other) => links.push((name.clone(), other.to_owned())),
            None => {
                let value = value.strip_prefix(LOCAL).unwrap_or(value);
                words.option("--build-context", &format!("{name}={value}"));
            }
        }
    }
    links
}

/// Adds the Dockerfile, whose path is relative to the context. Returns it if it is in the working
/// directory in place of the context.
fn dockerfile(target: &Target, words: &mut CommandLine) -> Option<String> {
    let path = target.dockerfile.as_deref().filter(|_| target.dockerfile_inline.is_none())?;
    if let Some(local) = path.strip_prefix(LOCAL) {
        return Some(local.to_owned());
    }
    let context = context(target);
    if path == "Dockerfile" {
        return None;
    }
    if is_remote(context) {
        words.option("--file", path);
    } else {
        words.option("--file", &Path::new(context).join(path).to_string_lossy());
    }
    None
}

/// Adds names, labels and outputs. A target that is only a context of others has no output.
fn image(target: &Target, words: &mut CommandLine) {
    words.pairs("--build-arg", target.args.as_ref(), '=');
    words.pairs("--label", target.labels.as_ref(), '=');
    words.each("--annotation", target.annotations.iter().flatten());
    words.each("--platform", target.platforms.iter().flatten());
    if target.linked {
        return;
    }
    words.each("--tag", target.tags.iter().flatten());
    for output in target.outputs.iter().flatten() {
        let mut fields = vec![format!("type={}", output.kind)];
        fields.extend(
            (!output.destination.is_empty()).then(|| format!("dest={}", output.destination)),
        );
        fields.extend(output.attributes.iter().map(|(key, value)| format!("{key}={value}")));
        words.option("--output", &csv::line(&fields));
    }
}

fn cache(target: &Target, words: &mut CommandLine) {
    for (name, entries) in [("--cache-from", &target.cache_from), ("--cache-to", &target.cache_to)]
    {
        for entry in entries.iter().flatten() {
            let mut fields = vec![format!("type={}", entry.kind)];
            fields.extend(entry.attributes.iter().map(|(key, value)| format!("{key}={value}")));
            words.option(name, &csv::line(&fields));
        }
    }
    words.flag("--no-cache", target.no_cache);
    words.each("--no-cache-filter", target.no_cache_filter.iter().flatten());
    words.flag("--pull", target.pull);
}

/// Adds what RUN steps get.
fn steps(target: &Target, words: &mut CommandLine) {
    let one = |name: &str, value: &Option<String>, words: &mut CommandLine| {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            words.option(name, value);
        }
    };
    one("--target", &target.target, words);
    one("--network", &target.network, words);
    one("--shm-size", &target.shm_size, words);
    one("--call", &target.call, words);
    words.each("--ulimit", target.ulimits.iter().flatten());
    words.pairs("--add-host", target.extra_hosts.as_ref(), ':');
    for (name, value) in target.resources.iter().flat_map(bake::Resources::entries) {
        let value = value.unwrap_or_else(|number| number.to_string());
        words.option("--resource", &format!("{name}={value}"));
    }
    for secret in target.secrets.iter().flatten() {
        let mut fields = vec![format!("id={}", secret.id)];
        let mut add = |name: &str, value: &str| {
            fields.extend((!value.is_empty()).then(|| format!("{name}={value}")));
        };
        add("src", &secret.source);
        add("env", &secret.env);
        words.option("--secret", &csv::line(&fields));
    }
    for key in target.ssh.iter().flatten() {
        let paths = key.paths.join(",");
        words.option(
            "--ssh",
            &if paths.is_empty() { key.id.clone() } else { format!("{}={paths}", key.id) },
        );
    }
    let of_bake = |text: &&String| {
        let kind = text.split(['=', '.']).next().unwrap_or_default();
        OF_BAKE.contains(&kind)
    };
    words.each("--allow", target.entitlements.iter().flatten().filter(|text| !of_bake(text)));
}

/// Adds attestations, which can only be switched off, and refuses policies.
fn attestations(target: &Target, words: &mut CommandLine) -> Result<(), String> {
    for attest in target.attest.iter().flatten() {
        let mut fields = vec![format!("type={}", attest.kind)];
        fields.push(format!("disabled={}", attest.disabled));
        fields.extend(attest.attributes.iter().map(|(key, value)| format!("{key}={value}")));
        words.option("--attest", &csv::line(&fields));
    }
    if target.policy.iter().flatten().any(|policy| !policy.disabled) {
        return Err(
            "rbuild does not evaluate policies: `rbuild lock` pins what a build fetches".into()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bake::{CacheEntry, Output, Secret, SshKey};

    fn some<const N: usize>(texts: [&str; N]) -> Option<Vec<String>> {
        Some(texts.map(str::to_owned).to_vec())
    }

    #[test]
    fn target_becomes_arguments_of_build() {
        let map = |key: &str, value: &str| {
            Some(BTreeMap::from([(key.to_owned(), Some(value.to_owned()))]))
        };
        let attributes = BTreeMap::from([("name".to_owned(), "a,b".to_owned())]);
        let contexts = [("base", "target:base"), ("files", "docker-image://x")];
        let contexts = contexts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let target = Target {
            context: Some("app".to_owned()),
            contexts: Some(contexts.into()),
            dockerfile: Some("docker/Dockerfile".to_owned()),
            args: map("A", "b c"),
            labels: map("l", "m"),
            tags: some(["t:1"]),
            platforms: some(["linux/amd64", "linux/arm64"]),
            outputs: Some(vec![Output {
                kind: "image".to_owned(),
                destination: String::new(),
                attributes,
            }]),
            cache_from: Some(vec![CacheEntry {
                kind: "registry".to_owned(),
                attributes: BTreeMap::from([("ref".to_owned(), "r".to_owned())]),
            }]),
            secrets: Some(vec![Secret { id: "s".into(), source: "f".into(), env: String::new() }]),
            ssh: Some(vec![SshKey { id: "default".into(), paths: Vec::new() }]),
            no_cache: Some(true),
            pull: Some(false),
            no_cache_filter: some(["x"]),
            entitlements: some(["network.host", "fs.read=/x"]),
            extra_hosts: map("h", "127.0.0.1"),
            ..Target::default()
        };
        let BakedArgs { args, links, local_dockerfile } = arguments(&target).unwrap();
        assert_eq!(links, [("base".to_owned(), "base".to_owned())]);
        assert_eq!((args.context.to_str(), local_dockerfile), (Some("app"), None));
        assert_eq!(args.file.as_deref(), Some(Path::new("app/docker/Dockerfile")));
        assert_eq!(args.build_context, ["files=docker-image://x"]);
        assert_eq!(
            (args.build_arg, args.label),
            (vec!["A=b c".to_owned()], vec!["l=m".to_owned()])
        );
        assert_eq!(args.platform, ["linux/amd64", "linux/arm64"]);
        assert_eq!(args.outputs.output, ["type=image,\"name=a,b\""]);
        assert_eq!(args.cache_from, ["type=registry,ref=r"]);
        assert_eq!(
            (args.secret, args.ssh),
            (vec!["id=s,src=f".to_owned()], vec!["default".to_owned()])
        );
        assert!(args.no_cache);
        assert_eq!((args.no_cache_filter, args.allow.len()), (vec!["x".to_owned()], 1));
        assert_eq!(args.add_host, ["h:127.0.0.1"]);
    }

    #[test]
    fn context_of_other_targets_has_no_output() {
        let target = Target { tags: some(["t"]), linked: true, ..Target::default() };
        let BakedArgs { args, .. } = arguments(&target).unwrap();
        assert!(args.tag.is_empty());
        assert_eq!(args.context, ".");
    }

    #[test]
    fn value_that_build_refuses_is_an_error_in_one_line() {
        let target = Target { entitlements: some(["device"]), ..Target::default() };
        let error = arguments(&target).unwrap_err();
        assert!(error.contains("device") && !error.contains('\n'), "{error}");
    }
}
