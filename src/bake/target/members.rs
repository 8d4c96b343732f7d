//! A target as a value, for expressions that refer to it: `${target.app.args.VERSION}`.

use std::collections::BTreeMap;

use super::{
    Attest, CacheEntry, NullableMap, Output, PolicyConfig, Resources, Secret, SshKey, Target,
};
use crate::bake::value::{Type, Value};

impl Target {
    /// Returns the target under its name; what no file sets is null.
    #[must_use]
    pub fn to_value(&self, name: &str) -> Value {
        let members = [
            ("name", Value::text(name)),
            ("description", Value::text(&self.description)),
            ("inherits", texts(Some(&self.inherits).filter(|inherits| !inherits.is_empty()))),
            ("annotations", texts(self.annotations.as_ref())),
            ("attest", maps(self.attest.as_deref(), attest)),
            ("context", text(self.context.as_ref())),
            (
                "contexts",
                match &self.contexts {
                    Some(contexts) => Value::text_map(contexts.clone()),
                    None => Value::Null(Type::String.map()),
                },
            ),
            ("dockerfile", text(self.dockerfile.as_ref())),
            ("dockerfile-inline", text(self.dockerfile_inline.as_ref())),
            ("args", nullable(self.args.as_ref())),
            ("labels", nullable(self.labels.as_ref())),
            ("tags", texts(self.tags.as_ref())),
            ("cache-from", maps(self.cache_from.as_deref(), cache)),
            ("cache-to", maps(self.cache_to.as_deref(), cache)),
            ("target", text(self.target.as_ref())),
            ("secret", objects(self.secrets.as_deref(), secret)),
            ("ssh", objects(self.ssh.as_deref(), ssh)),
            ("platforms", texts(self.platforms.as_ref())),
            ("output", maps(self.outputs.as_deref(), output)),
            ("pull", boolean(self.pull)),
            ("no-cache", boolean(self.no_cache)),
            ("network", text(self.network.as_ref())),
            ("no-cache-filter", texts(self.no_cache_filter.as_ref())),
            ("shm-size", text(self.shm_size.as_ref())),
            ("ulimits", texts(self.ulimits.as_ref())),
            ("resources", self.resources.as_ref().map_or(Value::Null(Type::Dynamic), resources)),
            ("call", text(self.call.as_ref())),
            ("entitlements", texts(self.entitlements.as_ref())),
            ("extra-hosts", nullable(self.extra_hosts.as_ref())),
            ("policy", maps(self.policy.as_deref(), policy)),
        ];
        Value::Object(members.map(|(name, value)| (name.to_owned(), value)).into())
    }
}

fn text(text: Option<&String>) -> Value {
    text.map_or(Value::Null(Type::String), Value::text)
}

fn boolean(value: Option<bool>) -> Value {
    value.map_or(Value::Null(Type::Bool), Value::Bool)
}

fn texts(texts: Option<&Vec<String>>) -> Value {
    texts.map_or(Value::Null(Type::String.list()), Value::texts)
}

fn nullable(map: Option<&NullableMap>) -> Value {
    let Some(map) = map else { return Value::Null(Type::String.map()) };
    let members = map.iter().map(|(name, value)| (name.clone(), text(value.as_ref())));
    Value::Map(Type::String, members.collect())
}

/// Returns a list of maps; a missing list is empty, unlike those of texts.
fn maps<T>(entries: Option<&[T]>, map: fn(&T) -> BTreeMap<String, String>) -> Value {
    let values = entries.unwrap_or_default().iter().map(|entry| Value::text_map(map(entry)));
    Value::List(Type::String.map(), values.collect())
}

fn objects<T>(entries: Option<&[T]>, object: fn(&T) -> Value) -> Value {
    let values: Vec<Value> = entries.unwrap_or_default().iter().map(object).collect();
    let kind = values.first().map_or(Type::Dynamic, Value::kind);
    Value::List(kind, values)
}

fn with(attributes: &BTreeMap<String, String>, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut all = attributes.clone();
    all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    all
}

fn attest(entry: &Attest) -> BTreeMap<String, String> {
    let disabled: &[(&str, &str)] = if entry.disabled { &[("disabled", "true")] } else { &[] };
    with(&with(&entry.attributes, &[("type", &entry.kind)]), disabled)
}

fn cache(entry: &CacheEntry) -> BTreeMap<String, String> {
    with(&entry.attributes, &[("type", &entry.kind)])
}

fn output(entry: &Output) -> BTreeMap<String, String> {
    with(&entry.attributes, &[("type", &entry.kind), ("dest", &entry.destination)])
}

fn secret(entry: &Secret) -> Value {
    let members = [("id", &entry.id), ("src", &entry.source), ("env", &entry.env)];
    Value::Object(members.map(|(name, value)| (name.to_owned(), Value::text(value))).into())
}

fn ssh(entry: &SshKey) -> Value {
    let members = [
        ("id".to_owned(), Value::text(&entry.id)),
        ("paths".to_owned(), Value::texts(&entry.paths)),
    ];
    Value::Object(members.into())
}

fn policy(entry: &PolicyConfig) -> BTreeMap<String, String> {
    let flag = |name: &str, value: bool| value.then(|| (name.to_owned(), "true".to_owned()));
    let first = entry.files.first().map(|file| ("filename".to_owned(), file.clone()));
    let strict = entry.strict.map(|strict| ("strict".to_owned(), strict.to_string()));
    let level = entry.log_level.as_ref().map(|level| ("log-level".to_owned(), level.clone()));
    let all = [first, flag("reset", entry.reset), flag("disabled", entry.disabled), strict, level];
    all.into_iter().flatten().collect()
}

fn resources(limits: &Resources) -> Value {
    let given = limits
        .entries()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.map_or_else(Value::integer, Value::String)));
    let names = ["memory", "memory-swap", "cpuset-cpus", "cpuset-mems"].map(|n| (n, Type::String));
    let numbers = ["cpu-shares", "cpu-period", "cpu-quota"].map(|name| (name, Type::Number));
    let all = names.into_iter().chain(numbers);
    let nulls = all.map(|(name, kind)| (name.to_owned(), Value::Null(kind)));
    Value::Object(nulls.chain(given).collect())
}
