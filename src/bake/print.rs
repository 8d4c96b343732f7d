//! Targets and groups as JSON: `--print`, byte for byte as buildx prints it.
//!
//! Go's encoder keeps the order of fields, sorts maps, leaves out empty fields, and escapes `<`, `>`
//! and `&`. Some texts double `${`, so that the output is a definition again.

use std::collections::BTreeMap;

use super::config::Group;
use super::json_tree::Json;
use super::target::{
    Attest, CacheEntry, NullableMap, Output, PolicyConfig, Secret, SshKey, Target,
};
use super::value::{Type, Value};

/// Returns groups and targets as `--print` shows them, with a line ending.
#[must_use]
pub fn definition_json(
    groups: &BTreeMap<String, Group>,
    targets: &BTreeMap<String, Target>,
) -> String {
    let mut members = Vec::new();
    if !groups.is_empty() {
        let groups = groups.iter().map(|(name, group)| {
            let description = text_member("description", &group.description);
            let targets = ("targets".to_owned(), texts(&group.targets));
            (name.clone(), Json::Object(description.into_iter().chain([targets]).collect()))
        });
        members.push(("group".to_owned(), Json::Object(groups.collect())));
    }
    let targets = targets.iter().map(|(name, target)| (name.clone(), json(target)));
    members.push(("target".to_owned(), Json::Object(targets.collect())));
    Json::Object(members).to_text()
}

/// Returns one target as JSON without line endings.
#[must_use]
pub fn target_json(target: &Target) -> String {
    json(target).to_text().lines().map(str::trim_start).collect()
}

fn json(target: &Target) -> Json {
    let mut members: Vec<(String, Json)> = Vec::new();
    members.extend(text_member("description", &target.description));
    let out = &mut members;
    push(out, "inherits", list(Some(&target.inherits), |name| text(name)));
    push(out, "annotations", list(target.annotations.as_deref(), |entry| text(&escaped(entry))));
    push(out, "attest", list(target.attest.as_deref(), attest));
    push(out, "context", target.context.as_deref().map(text));
    let contexts = target.contexts.iter().flatten();
    let contexts = contexts.map(|(name, location)| (name.clone(), Some(location.clone())));
    push(out, "contexts", map(Some(&contexts.collect()), str::to_owned));
    push(out, "dockerfile", target.dockerfile.as_deref().map(text));
    let inline = target.dockerfile_inline.as_deref();
    push(out, "dockerfile-inline", inline.map(|inline| text(&escaped(inline))));
    push(out, "args", map(target.args.as_ref(), escaped));
    push(out, "labels", map(target.labels.as_ref(), escaped));
    push(out, "tags", list(target.tags.as_deref(), |tag| text(tag)));
    push(out, "cache-from", list(target.cache_from.as_deref(), cache));
    push(out, "cache-to", list(target.cache_to.as_deref(), cache));
    push(out, "target", target.target.as_deref().map(text));
    push(out, "secret", list(target.secrets.as_deref(), secret));
    push(out, "ssh", list(target.ssh.as_deref(), ssh));
    push(out, "platforms", list(target.platforms.as_deref(), |platform| text(platform)));
    push(out, "output", list(target.outputs.as_deref(), output));
    push_rest(target, out);
    Json::Object(members)
}

/// Returns attributes and further members, sorted as Go sorts a map.
fn sorted(attributes: &BTreeMap<String, String>, more: &[(&str, Value)]) -> Json {
    let own = attributes.iter().map(|(name, value)| (name.clone(), text(value)));
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), Json::Scalar(value.clone())));
    let all: BTreeMap<String, Json> = own.chain(more).collect();
    Json::Object(all.into_iter().collect())
}

fn attest(entry: &Attest) -> Json {
    let kind = ("type", Value::text(&entry.kind));
    match entry.disabled {
        true => sorted(&entry.attributes, &[kind, ("disabled", Value::Bool(true))]),
        false => sorted(&entry.attributes, &[kind]),
    }
}

fn cache(entry: &CacheEntry) -> Json {
    sorted(&entry.attributes, &[("type", Value::text(&entry.kind))])
}

fn output(entry: &Output) -> Json {
    let kind = ("type", Value::text(&entry.kind));
    match entry.destination.as_str() {
        "" => sorted(&entry.attributes, &[kind]),
        to => sorted(&entry.attributes, &[kind, ("dest", Value::text(to))]),
    }
}

fn secret(entry: &Secret) -> Json {
    let fields = [("id", &entry.id), ("src", &entry.source), ("env", &entry.env)];
    Json::Object(fields.into_iter().filter_map(|(name, value)| text_member(name, value)).collect())
}

fn ssh(entry: &SshKey) -> Json {
    let mut fields: Vec<(String, Json)> = text_member("id", &entry.id).into_iter().collect();
    push(&mut fields, "paths", list(Some(&entry.paths), |path| text(path)));
    Json::Object(fields)
}

/// Adds the fields after `output`.
fn push_rest(target: &Target, members: &mut Vec<(String, Json)>) {
    let scalar = |value: Option<bool>| value.map(|value| Json::Scalar(Value::Bool(value)));
    push(members, "pull", scalar(target.pull));
    push(members, "no-cache", scalar(target.no_cache));
    push(members, "network", target.network.as_deref().map(text));
    push(members, "no-cache-filter", list(target.no_cache_filter.as_deref(), |stage| text(stage)));
    push(members, "shm-size", target.shm_size.as_deref().map(text));
    push(members, "ulimits", list(target.ulimits.as_deref(), |limit| text(limit)));
    push(
        members,
        "resources",
        target.resources.as_ref().map(|limits| {
            let limits = limits.entries().into_iter().map(|(name, value)| {
                let value = value.map_or_else(Value::integer, Value::String);
                (name.to_owned(), Json::Scalar(value))
            });
            Json::Object(limits.collect())
        }),
    );
    push(members, "call", target.call.as_deref().map(text));
    push(members, "entitlements", list(target.entitlements.as_deref(), |name| text(name)));
    push(members, "extra-hosts", map(target.extra_hosts.as_ref(), escaped));
    push(members, "policy", list(target.policy.as_deref(), policy));
}

/// Returns a policy under the names of buildx's Go struct, which has no others.
fn policy(config: &PolicyConfig) -> Json {
    let null = || Json::Scalar(Value::Null(Type::Dynamic));
    let files = config.files.iter().map(|file| {
        Json::Object(vec![("Filename".to_owned(), text(file)), ("Data".to_owned(), null())])
    });
    let files = if config.files.is_empty() { null() } else { Json::List(files.collect()) };
    let flag = |value: bool| Json::Scalar(Value::Bool(value));
    let members = [
        ("Files", files),
        ("Reset", flag(config.reset)),
        ("Disabled", flag(config.disabled)),
        ("Strict", config.strict.map_or_else(null, flag)),
        ("LogLevel", config.log_level.as_deref().map_or_else(null, text)),
    ];
    Json::Object(members.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Doubles the signs that begin an interpolation.
fn escaped(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

fn text(text: &str) -> Json {
    Json::Scalar(Value::text(text))
}

fn texts(texts: &[String]) -> Json {
    Json::List(texts.iter().map(|item| text(item)).collect())
}

fn text_member(name: &str, value: &str) -> Option<(String, Json)> {
    (!value.is_empty()).then(|| (name.to_owned(), text(value)))
}

fn push(members: &mut Vec<(String, Json)>, name: &str, value: Option<Json>) {
    members.extend(value.map(|value| (name.to_owned(), value)));
}

/// Returns a list, or nothing if it is empty.
fn list<T>(items: Option<&[T]>, item: impl Fn(&T) -> Json) -> Option<Json> {
    let items = items.unwrap_or_default();
    (!items.is_empty()).then(|| Json::List(items.iter().map(item).collect()))
}

fn map(map: Option<&NullableMap>, escape: fn(&str) -> String) -> Option<Json> {
    let map = map.filter(|map| !map.is_empty())?;
    let members = map.iter().map(|(name, value)| {
        let value = value.as_deref().map(escape);
        (name.clone(), Json::Scalar(value.map_or(Value::Null(Type::String), Value::String)))
    });
    Some(Json::Object(members.collect()))
}
