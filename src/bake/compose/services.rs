//! Services with `build` as targets.

use std::collections::BTreeMap;

use super::load::Loader;
use super::yaml::{Node, NodeKind};
use crate::bake::config::{Config, Group, dedupe};
use crate::bake::paths;
use crate::bake::source::BakeError;
use crate::bake::target::{
    Attest, CacheEntry, NullableMap, Output, Secret, SshKey, Target, parse_bool, parse_caches,
};
use crate::diag::nearest;

/// The members of `build` (compose-spec, build.md).
const BUILD: [&str; 24] = [
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "context",
    "dockerfile",
    "dockerfile_inline",
    "entitlements",
    "extra_hosts",
    "isolation",
    "labels",
    "network",
    "no_cache",
    "no_cache_filter",
    "platforms",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
    "tags",
    "target",
];

/// Returns the targets of all services with `build`, and the group `default`.
pub(super) fn config(model: &Node, loader: &Loader<'_>) -> Result<Config, BakeError> {
    let mut config = Config::default();
    let mut group = Group::default();
    let services = model.get("services").and_then(Node::members).unwrap_or(&[]);
    for (name, at, service) in services {
        let Some(build) = service.get("build").filter(|build| !build.is_null()) else { continue };
        // Compose permits dots in names, buildx does not.
        let name = name.replace('.', "_");
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(valid) {
            let message = format!(
                "the service {name:?} cannot be a target: its name has other \
                                   characters than letters, digits, \"_\" and \"-\""
            );
            return Err(BakeError::at(*at, message));
        }
        let target = target(build, service, model, loader)?;
        group.targets.push(name.clone());
        config.targets.push((name, target));
    }
    if !services.is_empty() {
        config.groups.push(("default".to_owned(), group));
    }
    Ok(config)
}

/// Notes the directory of the first file, from which relative contexts may start.
pub(super) fn set_bases(config: &mut Config, file: &str) {
    if file.is_empty() || file == "-" || paths::is_remote(file) {
        return;
    }
    let base = paths::parent(file);
    for (_, target) in &mut config.targets {
        target.base.default = Some(base.clone());
        target.base.context = target.context.as_ref().map(|_| base.clone());
        let names = target.contexts.iter().flatten().map(|(name, _)| name.clone());
        target.base.contexts = names.map(|name| (name, base.clone())).collect();
    }
}

fn check_members(build: &Node) -> Result<(), BakeError> {
    for (name, at, _) in build.members().unwrap_or(&[]) {
        let known = BUILD.contains(&name.as_str()) || name == "ulimits" || name.starts_with("x-");
        if !known {
            let error = BakeError::at(*at, format!("build has no member {name:?}"));
            return Err(match nearest(name, BUILD) {
                Some(near) => error.help(format!("did you mean {near}?")),
                None => error,
            });
        }
    }
    Ok(())
}

fn target(
    build: &Node,
    service: &Node,
    model: &Node,
    loader: &Loader<'_>,
) -> Result<Target, BakeError> {
    check_members(build)?;
    let text = |name: &str| text(build, name);
    let wanted = |name: &str| Ok::<_, BakeError>(flag(build, name)?.filter(|wanted| *wanted));
    let caches =
        |name: &str| Ok::<_, BakeError>(cache_list(build, name)?.filter(|l| !l.is_empty()));
    let mut target = Target {
        context: text("context")?.map(|context| local_path(&context)),
        contexts: contexts(build)?,
        dockerfile: text("dockerfile")?,
        dockerfile_inline: text("dockerfile_inline")?,
        tags: texts(build, "tags")?,
        labels: Some(labels(build)?),
        args: arguments(build, service, loader)?,
        cache_from: caches("cache_from")?,
        cache_to: caches("cache_to")?,
        network: text("network")?,
        platforms: texts(build, "platforms")?,
        target: text("target")?,
        ssh: ssh(build)?,
        secrets: secrets(build, model)?,
        shm_size: shm_size(build)?,
        ulimits: ulimits(build)?,
        extra_hosts: Some(hosts(build)),
        attest: attests(build)?,
        no_cache: wanted("no_cache")?,
        pull: wanted("pull")?,
        ..Target::default()
    };
    if let Some(extension) = build.get("x-bake").filter(|extension| !extension.is_null()) {
        extend(&mut target, extension)?;
    }
    if target.tags.as_ref().is_none_or(Vec::is_empty) {
        target.tags = self::text(service, "image")?.map(|image| vec![image]);
    }
    Ok(target)
}

/// Returns the text of a member; empty text counts as missing.
fn text(node: &Node, name: &str) -> Result<Option<String>, BakeError> {
    let Some(value) = node.get(name) else { return Ok(None) };
    match &value.kind {
        NodeKind::Null => Ok(None),
        NodeKind::Scalar(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        NodeKind::List(_) | NodeKind::Map(_) => {
            Err(BakeError::at(value.at, format!("{name} must be a text")))
        }
    }
}

fn flag(node: &Node, name: &str) -> Result<Option<bool>, BakeError> {
    let Some(value) = node.get(name) else { return Ok(None) };
    let wanted = text(node, name)?.map(|text| parse_bool(&text)).transpose();
    wanted.map_err(|error| BakeError::at(value.at, format!("{name}: {error}")))
}

fn texts(node: &Node, name: &str) -> Result<Option<Vec<String>>, BakeError> {
    let Some(value) = node.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let items =
        value.items().ok_or_else(|| BakeError::at(value.at, format!("{name} must be a list")))?;
    let texts = items.iter().map(|item| {
        let text = item.text().map(str::to_owned);
        text.ok_or_else(|| BakeError::at(item.at, format!("an element of {name} must be a text")))
    });
    let mut texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    dedupe(&mut texts);
    Ok(Some(texts))
}

fn cache_list(node: &Node, name: &str) -> Result<Option<Vec<CacheEntry>>, BakeError> {
    let Some(list) = texts(node, name)? else { return Ok(None) };
    let at = node.get(name).map_or(node.at, |value| value.at);
    parse_caches(&list).map(Some).map_err(|error| BakeError::at(at, error))
}

/// Returns a path without `.` and `..`; other locations stay as they are.
fn local_path(location: &str) -> String {
    let other = location.contains("://") || location.starts_with("service:");
    if other || location.starts_with("target:") || paths::is_remote(location) {
        return location.to_owned();
    }
    paths::clean(location)
}

/// Returns a context, of which `service:` means a target.
fn context(location: &str) -> String {
    let name = location.strip_prefix("service:").or_else(|| location.strip_prefix("target:"));
    match name {
        Some(name) => format!("target:{}", name.replace('.', "_")),
        None => local_path(location),
    }
}

fn contexts(build: &Node) -> Result<Option<BTreeMap<String, String>>, BakeError> {
    let Some(members) = build.get("additional_contexts").and_then(Node::members) else {
        return Ok(None);
    };
    let contexts = members.iter().map(|(name, at, value)| match value.text() {
        Some(location) => Ok((name.clone(), context(location))),
        None => Err(BakeError::at(*at, "an additional context needs NAME=LOCATION")),
    });
    contexts.collect::<Result<_, _>>().map(Some)
}

fn labels(build: &Node) -> Result<NullableMap, BakeError> {
    let members = build.get("labels").and_then(Node::members).unwrap_or(&[]);
    let labels = members.iter().map(|(name, at, value)| match &value.kind {
        NodeKind::Null => Ok((name.clone(), Some(String::new()))),
        NodeKind::Scalar(text) => Ok((name.clone(), Some(text.clone()))),
        NodeKind::List(_) | NodeKind::Map(_) => Err(BakeError::at(*at, "a label must be a text")),
    });
    labels.collect()
}

/// Returns the arguments; one without a value takes that of the service's environment.
fn arguments(
    build: &Node,
    service: &Node,
    loader: &Loader<'_>,
) -> Result<Option<NullableMap>, BakeError> {
    let members = build.get("args").and_then(Node::members).unwrap_or(&[]);
    if members.is_empty() {
        return Ok(None);
    }
    let environment = loader.service_environment(service)?;
    let mut arguments = NullableMap::new();
    for (name, at, value) in members {
        if name.ends_with(' ') {
            let message = format!("the argument {name:?} has a blank at its end");
            return Err(BakeError::at(*at, message));
        }
        let value = match &value.kind {
            NodeKind::Scalar(text) => Some(text.clone()),
            NodeKind::Null => {
                let own = environment.get(name).cloned().flatten();
                own.or_else(|| loader.environment.get(name).cloned())
            }
            NodeKind::List(_) | NodeKind::Map(_) => {
                return Err(BakeError::at(*at, "an argument must be a text"));
            }
        };
        if value.is_some() {
            arguments.insert(name.clone(), value);
        }
    }
    Ok(Some(arguments))
}

fn hosts(build: &Node) -> NullableMap {
    let members = build.get("extra_hosts").and_then(Node::members).unwrap_or(&[]);
    let hosts = members.iter().map(|(name, _, value)| {
        let addresses = value.items().unwrap_or(&[]).iter().filter_map(Node::text);
        (name.clone(), Some(addresses.collect::<Vec<_>>().join(",")))
    });
    hosts.collect()
}

fn ssh(build: &Node) -> Result<Option<Vec<SshKey>>, BakeError> {
    let members = build.get("ssh").and_then(Node::members).unwrap_or(&[]);
    let keys = members.iter().map(|(id, at, value)| match &value.kind {
        NodeKind::Null => Ok(SshKey { id: id.clone(), paths: Vec::new() }),
        NodeKind::Scalar(path) => Ok(SshKey { id: id.clone(), paths: vec![path.clone()] }),
        NodeKind::List(_) | NodeKind::Map(_) => {
            Err(BakeError::at(*at, "a key of ssh needs a path"))
        }
    });
    let mut keys: Vec<SshKey> = keys.collect::<Result<_, _>>()?;
    keys.sort();
    Ok(Some(keys).filter(|keys| !keys.is_empty()))
}

fn secrets(build: &Node, model: &Node) -> Result<Option<Vec<Secret>>, BakeError> {
    let mut secrets = Vec::new();
    for item in build.get("secrets").and_then(Node::items).unwrap_or(&[]) {
        let source = item.get("source").unwrap_or(item);
        let id = source.text().ok_or_else(|| BakeError::at(item.at, "a secret needs a source"))?;
        let declared = model.get("secrets").and_then(|all| all.get(id));
        if let Some(declared) = declared
            && text(declared, "external")?.is_some_and(|external| external != "false")
        {
            let message = format!("the external secret {id:?} is not supported");
            return Err(BakeError::at(item.at, message).help("give it a file or an environment"));
        }
        let part = |name: &str| declared.map_or(Ok(None), |declared| text(declared, name));
        secrets.push(Secret {
            id: id.to_owned(),
            source: part("file")?.map(|path| local_path(&path)).unwrap_or_default(),
            env: part("environment")?.unwrap_or_default(),
        });
    }
    Ok(Some(secrets).filter(|secrets| !secrets.is_empty()))
}

fn attests(build: &Node) -> Result<Option<Vec<Attest>>, BakeError> {
    let mut attests = Vec::new();
    for kind in ["sbom", "provenance"] {
        if let Some(value) = text(build, kind)? {
            let at = build.get(kind).map_or(build.at, |value| value.at);
            let attest = Attest::parse(&Attest::canonical(kind, &value));
            attests.push(attest.map_err(|error| BakeError::at(at, error))?);
        }
    }
    Ok(Some(attests).filter(|attests| !attests.is_empty()))
}

fn ulimits(build: &Node) -> Result<Option<Vec<String>>, BakeError> {
    let Some(members) = build.get("ulimits").and_then(Node::members) else { return Ok(None) };
    let mut limits = Vec::new();
    for (name, at, value) in members {
        let number = |text: Option<&str>| {
            let number = text.and_then(|text| text.parse::<i64>().ok());
            number.ok_or_else(|| BakeError::at(*at, "a limit needs a number, or soft and hard"))
        };
        let part = |name: &str| match value.members() {
            Some(_) => value.get(name).and_then(Node::text),
            None => value.text(),
        };
        let (soft, hard) = (number(part("soft"))?, number(part("hard"))?);
        limits.push(format!("{name}={soft}:{hard}"));
    }
    limits.sort_unstable();
    Ok(Some(limits))
}

/// Returns the size of shared memory as docker prints it: `64MiB`.
fn shm_size(build: &Node) -> Result<Option<String>, BakeError> {
    let Some(text) = text(build, "shm_size")? else { return Ok(None) };
    let at = build.get("shm_size").map_or(build.at, |value| value.at);
    let bytes = docker_bytes(&text);
    let bytes = bytes.ok_or_else(|| BakeError::at(at, format!("{text:?} is not a size")))?;
    Ok((bytes > 0).then(|| docker_size(bytes)))
}

/// Reads a size with a binary unit (docker/go-units, `RAMInBytes`): `64m` is 64 MiB.
fn docker_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(lower.len());
    let (digits, unit) = lower.split_at_checked(end)?;
    let unit = unit.trim_start();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == unit)?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = 1_u64 << (10 * u32::try_from(power).ok()?);
    let parts: u64 =
        if fraction.is_empty() { 0 } else { fraction.get(..6).unwrap_or(fraction).parse().ok()? };
    let divisor = 10_u64.pow(u32::try_from(fraction.len().min(6)).ok()?);
    let more = u128::from(parts) * u128::from(scale) / u128::from(divisor);
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(u64::try_from(more).ok()?)
}

/// Writes four significant digits and a binary unit (docker/go-units, `BytesSize`).
fn docker_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = usize::try_from(bytes.ilog2() / 10).unwrap_or(0).min(units.len() - 1);
    let scale = u128::from(1_u64 << (10 * unit));
    let n_digits = (u128::from(bytes) / scale).to_string().len();
    let n_decimals = 4_usize.saturating_sub(n_digits);
    let power = 10_u128.pow(u32::try_from(n_decimals).unwrap_or(0));
    let rounded = (u128::from(bytes) * power + scale / 2) / scale;
    let (whole, fraction) = (rounded / power, rounded % power);
    let fraction = format!("{fraction:0n_decimals$}");
    let fraction = if n_decimals == 0 { "" } else { fraction.trim_end_matches('0') };
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{whole}{dot}{fraction}{}", units.get(unit).copied().unwrap_or("B"))
}

/// Adds the extension `x-bake`.
fn extend(target: &mut Target, extension: &Node) -> Result<(), BakeError> {
    let failed = |error: String| BakeError::at(extension.at, format!("x-bake: {error}"));
    append(&mut target.tags, words(extension, "tags")?, true);
    append(&mut target.platforms, words(extension, "platforms")?, true);
    append(&mut target.no_cache_filter, words(extension, "no-cache-filter")?, true);
    let more = words(extension, "cache-from")?.map(|list| parse_caches(&list)).transpose();
    append(&mut target.cache_from, more.map_err(failed)?, false);
    let more = words(extension, "cache-to")?.map(|list| parse_caches(&list)).transpose();
    append(&mut target.cache_to, more.map_err(failed)?, false);
    let parsed = |name: &str| words(extension, name);
    let secrets =
        parsed("secret")?.map(|list| list.iter().map(|text| Secret::parse(text)).collect());
    append(&mut target.secrets, secrets.transpose().map_err(failed)?, false);
    let outputs =
        parsed("output")?.map(|list| list.iter().map(|text| Output::parse(text)).collect());
    append(&mut target.outputs, outputs.transpose().map_err(failed)?, false);
    let keys = parsed("ssh")?.map(|list| list.iter().map(|text| SshKey::parse(text)).collect());
    append(&mut target.ssh, keys, false);
    if let Some(keys) = &mut target.ssh {
        keys.sort();
    }
    target.pull = flag(extension, "pull")?.or(target.pull);
    target.no_cache = flag(extension, "no-cache")?.or(target.no_cache);
    for (name, at, value) in extension.get("contexts").and_then(Node::members).unwrap_or(&[]) {
        let location = value.text();
        let location = location.ok_or_else(|| BakeError::at(*at, "a context must be a text"))?;
        let name_only = location.strip_prefix("service:").or(location.strip_prefix("target:"));
        let location = name_only.map_or_else(|| location.to_owned(), |_| context(location));
        target.contexts.get_or_insert_default().entry(name.clone()).or_insert(location);
    }
    Ok(())
}

fn append<T: PartialEq>(own: &mut Option<Vec<T>>, more: Option<Vec<T>>, unique: bool) {
    for entry in more.into_iter().flatten() {
        let own = own.get_or_insert_default();
        if !(unique && own.contains(&entry)) {
            own.push(entry);
        }
    }
}

/// Returns a list of `x-bake`, or the words of a text.
fn words(node: &Node, name: &str) -> Result<Option<Vec<String>>, BakeError> {
    match node.get(name).map(|value| &value.kind) {
        Some(NodeKind::Scalar(text)) => {
            Ok(Some(text.split_whitespace().map(str::to_owned).collect()))
        }
        _ => texts(node, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_docker_does() {
        let cases = [
            ("64m", "64MiB"),
            ("1gb", "1GiB"),
            ("100000000", "95.37MiB"),
            ("1.5g", "1.5GiB"),
            ("1023", "1023B"),
            ("2 KiB", "2KiB"),
        ];
        for (text, expected) in cases {
            assert_eq!(docker_bytes(text).map(docker_size).as_deref(), Some(expected), "{text}");
        }
        assert_eq!((docker_bytes("x"), docker_bytes("1q")), (None, None));
    }
}
