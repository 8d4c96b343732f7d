//! `for` expressions.

use std::collections::BTreeMap;

use super::{Names, Scope, evaluate, member_name, operators};
use crate::bake::source::{BakeError, Place};
use crate::bake::syntax::For;
use crate::bake::value::Value;

/// Evaluates a `for` expression to a tuple or an object.
pub(super) fn collect(
    parsed: &For,
    scope: &Scope<'_>,
    names: &mut dyn Names,
) -> Result<Value, BakeError> {
    let collection = evaluate(&parsed.collection, scope, names)?;
    let mut values = Vec::new();
    let mut members: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for pair in pairs(&collection, parsed.collection.at)? {
        let scope = self::scope(scope, parsed.key_name.as_deref(), &parsed.value_name, pair);
        if let Some(condition) = &parsed.condition {
            let wanted = evaluate(condition, &scope, names)?;
            let wanted = operators::bool(&wanted);
            if !wanted.map_err(|error| BakeError::at(condition.at, error))? {
                continue;
            }
        }
        let value = evaluate(&parsed.value, &scope, names)?;
        let Some(key) = &parsed.key else {
            values.push(value);
            continue;
        };
        let name = evaluate(key, &scope, names)?;
        let name = member_name(&name).map_err(|error| BakeError::at(key.at, error))?;
        let same = members.entry(name.clone()).or_default();
        if !same.is_empty() && !parsed.group {
            let message = format!("two elements of the for expression have the key {name:?}");
            let help = "add ... after the value to group the values of a key";
            return Err(BakeError::at(key.at, message).help(help));
        }
        same.push(value);
    }
    if parsed.key.is_none() {
        return Ok(Value::Tuple(values));
    }
    let members = members.into_iter().filter_map(|(name, mut values)| {
        let value = if parsed.group { Value::Tuple(values) } else { values.pop()? };
        Some((name, value))
    });
    Ok(Value::Object(members.collect()))
}

/// Returns the pairs of key and value of a collection.
pub(super) fn pairs(collection: &Value, at: Place) -> Result<Vec<(Value, Value)>, BakeError> {
    if collection.is_null() {
        return Err(BakeError::at(at, "null cannot be iterated over"));
    }
    collection.entries().ok_or_else(|| {
        let kind = collection.kind().friendly();
        BakeError::at(at, format!("a {kind} cannot be iterated over"))
    })
}

/// Returns the scope of one element.
pub(super) fn scope<'a>(
    outer: &'a Scope<'a>,
    key_name: Option<&str>,
    value_name: &str,
    (key, value): (Value, Value),
) -> Scope<'a> {
    let key = key_name.map(|name| (name.to_owned(), key));
    Scope::inside(outer, key.into_iter().chain([(value_name.to_owned(), value)]))
}
