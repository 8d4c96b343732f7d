//! Attributes of a target from the values of their expressions.

use std::collections::BTreeMap;

use super::entries::{Attest, CacheEntry, Output, PolicyConfig, Resources, Secret, SshKey};
use super::{NullableMap, Target, parse_bool, parse_caches};
use crate::bake::value::{Type, Value, convert, to_json};

/// All attributes of a target's block that have a meaning.
pub(crate) const ATTRIBUTES: [&str; 31] = [
    "annotations",
    "args",
    "attest",
    "cache-from",
    "cache-to",
    "call",
    "context",
    "contexts",
    "description",
    "dockerfile",
    "dockerfile-inline",
    "entitlements",
    "extra-hosts",
    "inherits",
    "labels",
    "matrix",
    "name",
    "network",
    "no-cache",
    "no-cache-filter",
    "output",
    "platforms",
    "policy",
    "pull",
    "resources",
    "secret",
    "shm-size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

impl Target {
    /// Sets an attribute. Unknown ones are left to the caller.
    ///
    /// # Errors
    /// The value has the wrong type.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match name {
            "annotations" => self.annotations = texts(value)?,
            "args" => self.args = nullable_map(value)?,
            "attest" => self.attest = list(value, attest)?,
            "cache-from" => self.cache_from = caches(value)?,
            "cache-to" => self.cache_to = caches(value)?,
            "call" => self.call = text(value)?,
            "context" => self.context = text(value)?,
            "contexts" => self.contexts = text_map(value)?,
            "description" => self.description = required_text(value)?,
            "dockerfile" => self.dockerfile = text(value)?,
            "dockerfile-inline" => self.dockerfile_inline = text(value)?,
            "entitlements" => self.entitlements = texts(value)?,
            "extra-hosts" => self.extra_hosts = nullable_map(value)?,
            "inherits" => self.inherits = texts(value)?.unwrap_or_default(),
            "labels" => self.labels = nullable_map(value)?,
            "network" => self.network = text(value)?,
            "no-cache" => self.no_cache = boolean(value)?,
            "no-cache-filter" => self.no_cache_filter = texts(value)?,
            "output" => self.outputs = list(value, output)?,
            "platforms" => self.platforms = texts(value)?,
            "policy" => self.policy = list(value, policy)?,
            "pull" => self.pull = boolean(value)?,
            "resources" => self.resources = resources(value)?,
            "secret" => self.secrets = list(value, secret)?,
            "shm-size" => self.shm_size = text(value)?,
            "ssh" => self.ssh = list(value, ssh)?,
            "tags" => self.tags = texts(value)?,
            "target" => self.target = text(value)?,
            "ulimits" => self.ulimits = texts(value)?,
            _ => {}
        }
        Ok(())
    }
}

/// Converts a value to text; null stays away.
pub(super) fn text(value: &Value) -> Result<Option<String>, String> {
    Ok(convert(value, &Type::String)?.as_text().map(str::to_owned))
}

fn required_text(value: &Value) -> Result<String, String> {
    text(value)?.ok_or_else(|| "must not be null".to_owned())
}

fn boolean(value: &Value) -> Result<Option<bool>, String> {
    Ok(convert(value, &Type::Bool)?.as_bool())
}

/// Converts a value to a list of texts.
///
/// # Errors
/// An element is null or no text.
pub(crate) fn texts(value: &Value) -> Result<Option<Vec<String>>, String> {
    let list = convert(value, &Type::String.list())?;
    let Some(values) = list.as_sequence() else { return Ok(None) };
    let texts = values.iter().enumerate().map(|(at, value)| {
        let text = value.as_text().map(str::to_owned);
        text.ok_or_else(|| format!("element {at} must not be null"))
    });
    Ok(Some(texts.collect::<Result<_, _>>()?))
}

fn nullable_map(value: &Value) -> Result<Option<NullableMap>, String> {
    let map = convert(value, &Type::String.map())?;
    let Some(members) = map.as_members() else { return Ok(None) };
    let texts =
        members.iter().map(|(name, value)| (name.clone(), value.as_text().map(str::to_owned)));
    Ok(Some(texts.collect()))
}

fn text_map(value: &Value) -> Result<Option<BTreeMap<String, String>>, String> {
    let Some(map) = nullable_map(value)? else { return Ok(None) };
    let texts = map.into_iter().map(|(name, text)| match text {
        Some(text) => Ok((name, text)),
        None => Err(format!("element {name:?} must not be null")),
    });
    Ok(Some(texts.collect::<Result<_, _>>()?))
}

/// Converts the elements of a list, or none for null. Empty texts are left out.
fn list<T>(
    value: &Value,
    element: fn(&Value) -> Result<T, String>,
) -> Result<Option<Vec<T>>, String> {
    if value.is_null() {
        return Err("must not be null".to_owned());
    }
    let (Value::List(_, values) | Value::Tuple(values)) = value else {
        let kind = value.kind().friendly();
        return Err(format!("list of string or of objects required, not {kind}"));
    };
    let wanted = values.iter().filter(|value| value.as_text() != Some(""));
    Ok(Some(wanted.map(element).collect::<Result<_, _>>()?))
}

fn caches(value: &Value) -> Result<Option<Vec<CacheEntry>>, String> {
    let entries = list(value, |value| match value.as_text() {
        Some(text) => parse_caches(&[text]),
        None => {
            let mut attributes = attributes(value)?;
            let kind = attributes.remove("type").unwrap_or_default();
            Ok(vec![CacheEntry { kind, attributes }.validated(&to_json(value))?])
        }
    })?;
    Ok(entries.map(|entries| entries.into_iter().flatten().collect()))
}

/// Converts an object to texts by name.
fn attributes(value: &Value) -> Result<BTreeMap<String, String>, String> {
    text_map(value)?.ok_or_else(|| "an entry must not be null".to_owned())
}

fn attest(value: &Value) -> Result<Attest, String> {
    if let Some(text) = value.as_text() {
        return Attest::parse(text);
    }
    let mut attributes = attributes(value)?;
    let kind = attributes.remove("type").unwrap_or_default();
    let disabled = attributes.remove("disabled").map(|text| parse_bool(&text)).transpose()?;
    Ok(Attest { kind, disabled: disabled.unwrap_or(false), attributes })
}

fn output(value: &Value) -> Result<Output, String> {
    if let Some(text) = value.as_text() {
        return Output::parse(text);
    }
    let mut attributes = attributes(value)?;
    let kind = attributes.remove("type").unwrap_or_default();
    let destination = attributes.remove("dest").unwrap_or_default();
    Output { kind, destination, attributes }.validated()
}

/// Converts a value to an object with these attributes.
fn object(value: &Value, attributes: &[(&str, Type)]) -> Result<BTreeMap<String, Value>, String> {
    let object = convert(value, &Type::optional_object(attributes))?;
    let members = object.as_members().cloned();
    members.ok_or_else(|| "an entry must not be null".to_owned())
}

fn member(members: &BTreeMap<String, Value>, name: &str) -> String {
    members.get(name).and_then(Value::as_text).unwrap_or("").to_owned()
}

fn secret(value: &Value) -> Result<Secret, String> {
    if let Some(text) = value.as_text() {
        return Secret::parse(text);
    }
    let kinds = ["id", "src", "env"].map(|name| (name, Type::String));
    let members = object(value, &kinds)?;
    let [id, source, env] = ["id", "src", "env"].map(|name| member(&members, name));
    Ok(Secret { id, source, env })
}

fn ssh(value: &Value) -> Result<SshKey, String> {
    if let Some(text) = value.as_text() {
        return Ok(SshKey::parse(text));
    }
    let members = object(value, &[("id", Type::String), ("paths", Type::String.list())])?;
    let paths = members.get("paths").map(texts).transpose()?.flatten().unwrap_or_default();
    Ok(SshKey { id: member(&members, "id"), paths })
}

fn policy(value: &Value) -> Result<PolicyConfig, String> {
    if let Some(text) = value.as_text() {
        return PolicyConfig::parse(text);
    }
    let members = value.as_members().ok_or("a policy must be a string or an object")?;
    let given = members.iter().filter(|(_, value)| !value.is_null() && value.as_text() != Some(""));
    let fields = given.map(|(name, value)| Ok(format!("{name}={}", required_text(value)?)));
    PolicyConfig::of_fields(&fields.collect::<Result<Vec<_>, String>>()?)
}

fn resources(value: &Value) -> Result<Option<Resources>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let kinds = [
        ("memory", Type::String),
        ("memory-swap", Type::String),
        ("cpu-shares", Type::Number),
        ("cpu-period", Type::Number),
        ("cpu-quota", Type::Number),
        ("cpuset-cpus", Type::String),
        ("cpuset-mems", Type::String),
    ];
    let members = object(value, &kinds)?;
    let mut resources = Resources::default();
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        resources.set(name, &required_text(value)?)?;
    }
    Ok(Some(resources))
}
