//! `--set`: values for attributes of targets from the command line.

use std::collections::BTreeMap;

use super::config::Config;
use super::source::BakeError;
use super::target::{
    Attest, Output, PolicyConfig, Secret, SshKey, Target, parse_bool, parse_caches,
};
use super::wildcard;
use crate::diag::nearest;

/// The value of one key of one target.
#[derive(Debug, Clone, Default)]
struct Override {
    value: String,
    values: Vec<String>,
    append: bool,
}

/// All overrides, by target and key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    by_target: BTreeMap<String, BTreeMap<String, Override>>,
}

/// Permissions that overrides grant to the build: the command line is trusted more than a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// Paths to read.
    pub read: Vec<String>,
    /// Paths to write.
    pub write: Vec<String>,
    /// Entitlements.
    pub entitlements: Vec<String>,
}

/// Keys whose values are lists.
///
/// buildx takes `network` for one too, and no value of `no-cache-filter` and `ulimits`: each of the
/// three is only emptied there.
const LISTS: [&str; 13] = [
    "annotations",
    "attest",
    "cache-from",
    "cache-to",
    "entitlements",
    "no-cache-filter",
    "output",
    "platform",
    "policy",
    "secrets",
    "ssh",
    "tags",
    "ulimits",
];

/// All keys of `--set`.
const KEYS: [&str; 31] = [
    "annotations",
    "args",
    "attest",
    "cache-from",
    "cache-to",
    "call",
    "context",
    "contexts",
    "dockerfile",
    "entitlements",
    "extra-hosts",
    "labels",
    "load",
    "network",
    "no-cache",
    "no-cache-filter",
    "output",
    "platform",
    "policy",
    "pull",
    "push",
    "resources",
    "secret",
    "secrets",
    "shm-size",
    "ssh",
    "tags",
    "target",
    "ulimits",
    "description",
    "inherits",
];

impl Overrides {
    /// Reads `TARGET.KEY[.NAME][+]=VALUE`. `lookup` finds the value of an argument without one.
    ///
    /// # Errors
    /// The form is wrong, or no target matches.
    pub(crate) fn parse(
        texts: &[String],
        config: &Config,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BakeError> {
        let mut overrides = Self::default();
        for text in texts {
            overrides.add(text, config, lookup)?;
        }
        Ok(overrides)
    }

    fn add(
        &mut self,
        text: &str,
        config: &Config,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), BakeError> {
        let failed = |reason: String| BakeError::new(format!("bad --set {text:?}: {reason}"));
        let (key, mut value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        let (key, append) = match key.strip_suffix('+') {
            Some(key) => (key, true),
            None => (key, false),
        };
        let parts: Vec<&str> = key.splitn(3, '.').collect();
        let (pattern, kind, name) = match parts.as_slice() {
            [pattern, kind] => (*pattern, *kind, None),
            [pattern, kind, name] => (*pattern, *kind, Some(*name)),
            _ => return Err(failed("TARGET.KEY=VALUE is required".to_owned())),
        };
        if matches!(kind, "args" | "contexts" | "secret" | "resources") && name.is_none() {
            return Err(failed(format!("{kind} needs a name: {pattern}.{kind}.NAME=VALUE")));
        }
        if matches!(kind, "secret" | "resources") && append {
            return Err(failed(format!("{kind} cannot be appended to")));
        }
        if value.is_none() {
            if kind != "args" {
                return Err(failed("the value is missing".to_owned()));
            }
            // An argument without a value takes that of the environment, or stays as it is.
            value = name.and_then(lookup);
        }
        let own = key.split_once('.').map_or("", |(_, own)| own);
        for target in targets(pattern, config).map_err(failed)? {
            let Some(value) = &value else { continue };
            let slot = self.by_target.entry(target).or_default().entry(own.to_owned()).or_default();
            if LISTS.contains(&kind) {
                slot.append = append;
                slot.values.push(value.clone());
            }
            slot.value.clone_from(value);
        }
        Ok(())
    }

    /// Applies the overrides of a target.
    ///
    /// # Errors
    /// A key is unknown, or a value is wrong.
    pub(crate) fn apply(
        &self,
        name: &str,
        target: &mut Target,
        granted: &mut Granted,
    ) -> Result<(), BakeError> {
        let Some(overrides) = self.by_target.get(name) else { return Ok(()) };
        // Names of secrets come last: they change the secrets of the key `secrets`. So do push and
        // load with the outputs.
        let late = |key: &str| key.starts_with("secret.") || matches!(key, "push" | "load");
        let (last, first): (Vec<_>, Vec<_>) = overrides.iter().partition(|(key, _)| late(key));
        for (key, value) in first.into_iter().chain(last) {
            let set = set(target, key, value, granted);
            set.map_err(|reason| BakeError::new(format!("bad --set {name}.{key}: {reason}")))?;
        }
        Ok(())
    }
}

/// Returns the targets that a pattern matches.
fn targets(pattern: &str, config: &Config) -> Result<Vec<String>, String> {
    if config.target(pattern).is_some() {
        return Ok(vec![pattern.to_owned()]);
    }
    let names = config.targets.iter().map(|(name, _)| name);
    let found: Vec<String> =
        names.clone().filter(|name| wildcard::matches(pattern, name)).cloned().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let near = nearest(pattern, names.map(String::as_str));
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Err(format!("no target matches {pattern:?}{near}"))
}

fn set(
    target: &mut Target,
    key: &str,
    given: &Override,
    granted: &mut Granted,
) -> Result<(), String> {
    let (kind, name) = match key.split_once('.') {
        Some((kind, name)) => (kind, Some(name)),
        None => (key, None),
    };
    let value = given.value.clone();
    let named = || name.ok_or_else(|| format!("{kind} needs a name: {kind}.NAME=VALUE"));
    match kind {
        "context" => {
            target.context = Some(value);
            target.base.context = None;
        }
        "dockerfile" => target.dockerfile = Some(value),
        "args" => {
            target.args.get_or_insert_default().insert(named()?.to_owned(), Some(value));
        }
        "contexts" => {
            target.contexts.get_or_insert_default().insert(named()?.to_owned(), value);
        }
        "labels" => {
            target.labels.get_or_insert_default().insert(named()?.to_owned(), Some(value));
        }
        "extra-hosts" => {
            target.extra_hosts.get_or_insert_default().insert(named()?.to_owned(), Some(value));
        }
        "tags" => list(&mut target.tags, given),
        "platform" => list(&mut target.platforms, given),
        "no-cache-filter" => list(&mut target.no_cache_filter, given),
        "ulimits" => list(&mut target.ulimits, given),
        "annotations" => target.annotations.get_or_insert_default().extend(given.values.clone()),
        "target" => target.target = Some(value),
        "call" => target.call = Some(value),
        "shm-size" => target.shm_size = Some(value),
        "network" => target.network = Some(value),
        "no-cache" => target.no_cache = Some(parse_bool(&value)?),
        "pull" => target.pull = Some(parse_bool(&value)?),
        "push" => push(&mut target.outputs, parse_bool(&value)?),
        "load" => load(&mut target.outputs, parse_bool(&value)?),
        "resources" => target.resources.get_or_insert_default().set(named()?, &value)?,
        "secret" => update_secret(target, named()?, &value, granted)?,
        _ => return set_entries(target, kind, given, granted),
    }
    Ok(())
}

/// Sets the keys whose values have parts.
fn set_entries(
    target: &mut Target,
    kind: &str,
    given: &Override,
    granted: &mut Granted,
) -> Result<(), String> {
    let texts = || given.values.iter().filter(|text| !text.is_empty());
    match kind {
        "cache-from" | "cache-to" => {
            let entries = parse_caches(&given.values)?;
            let (own, attribute, paths) = match kind {
                "cache-from" => (&mut target.cache_from, "src", &mut granted.read),
                _ => (&mut target.cache_to, "dest", &mut granted.write),
            };
            entry_list(own, entries, given.append);
            let local = own.iter().flatten().filter(|entry| entry.kind == "local");
            paths.extend(local.filter_map(|entry| entry.attributes.get(attribute).cloned()));
        }
        "output" => {
            let outputs = texts().map(|text| Output::parse(text)).collect::<Result<_, _>>()?;
            entry_list(&mut target.outputs, outputs, given.append);
            let outputs = target.outputs.iter().flatten().map(|output| &output.destination);
            granted.write.extend(outputs.filter(|path| !path.is_empty()).cloned());
        }
        "secrets" => {
            let secrets: Vec<Secret> =
                texts().map(|text| Secret::parse(text)).collect::<Result<_, _>>()?;
            let paths = secrets.iter().map(|secret| secret.source.clone());
            granted.read.extend(paths.filter(|path| !path.is_empty()));
            entry_list(&mut target.secrets, secrets, given.append);
        }
        "ssh" => {
            let keys = texts().map(|text| SshKey::parse(text)).collect();
            entry_list(&mut target.ssh, keys, given.append);
            granted.read.extend(target.ssh.iter().flatten().flat_map(|key| key.paths.clone()));
        }
        "attest" => {
            let attests = texts().map(|text| Attest::parse(text)).collect::<Result<_, _>>()?;
            entry_list(&mut target.attest, attests, true);
        }
        "policy" => {
            let configs = given
                .values
                .iter()
                .map(|text| PolicyConfig::parse(text))
                .collect::<Result<_, _>>()?;
            entry_list(&mut target.policy, configs, given.append);
        }
        "entitlements" => {
            target.entitlements.get_or_insert_default().extend(given.values.clone());
            granted.entitlements.extend(given.values.clone());
        }
        other => {
            let near = nearest(other, KEYS).map(|near| format!("; did you mean {near}?"));
            return Err(format!("{other:?} is not a key{}", near.unwrap_or_default()));
        }
    }
    Ok(())
}

fn list(own: &mut Option<Vec<String>>, given: &Override) {
    entry_list(own, given.values.clone(), given.append);
}

fn entry_list<T>(own: &mut Option<Vec<T>>, entries: Vec<T>, append: bool) {
    match own {
        Some(own) if append => own.extend(entries),
        _ => *own = Some(entries),
    }
}

/// Changes the source of a secret that the definition declares.
fn update_secret(
    target: &mut Target,
    id: &str,
    value: &str,
    granted: &mut Granted,
) -> Result<(), String> {
    let secret = target.secrets.iter_mut().flatten().find(|secret| secret.id == id);
    let secret = secret.ok_or_else(|| format!("the target declares no secret {id:?}"))?;
    let given = Secret::parse(value)?;
    if !given.id.is_empty() && given.id != id {
        return Err(format!("the value has another id, {:?}", given.id));
    }
    (secret.env, secret.source) = (given.env, given.source);
    if !secret.source.is_empty() {
        granted.read.push(secret.source.clone());
    }
    Ok(())
}

/// Pushes images, or does not: outputs to an engine get an image output beside them.
fn push(outputs: &mut Option<Vec<Output>>, wanted: bool) {
    let list = outputs.get_or_insert_default();
    if !wanted {
        list.retain(|output| output.kind != "registry");
    }
    for output in list.iter_mut().filter(|output| output.kind == "image") {
        output.attributes.insert("push".to_owned(), wanted.to_string());
    }
    if wanted && list.iter().all(|output| output.kind == "docker") {
        let attributes = [("push".to_owned(), "true".to_owned())].into();
        list.push(Output { kind: "image".to_owned(), destination: String::new(), attributes });
    }
}

/// Loads images into the engine, unless an output writes files or loads already.
fn load(outputs: &mut Option<Vec<Output>>, wanted: bool) {
    let list = outputs.get_or_insert_default();
    let image = |output: &Output| match output.kind.as_str() {
        "docker" => !output.destination.is_empty(),
        "image" | "registry" | "oci" => true,
        _ => false,
    };
    if wanted && list.iter().all(image) {
        list.push(Output { kind: "docker".to_owned(), ..Output::default() });
    }
}
