//! Functions of maps and objects, and of collections of any kind.

use std::collections::BTreeMap;

use super::arguments::{any, members, text};
use super::lists::{has_index, index};
use super::{Function, Outcome, Param, Run};
use crate::bake::value::{Type, Value, convert, unify};

const fn function(
    name: &'static str,
    params: &'static [Param],
    run: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, variadic: None, run: Run::Pure(run) }
}

pub(super) const FUNCTIONS: &[Function] = &[
    function("hasindex", &[Param::Any, Param::Any], has_index),
    function("index", &[Param::Any, Param::Any], index),
    function("keys", &[Param::Any], |a| {
        let names = members(a, 0)?.keys().map(Value::text).collect();
        let is_map = any(a, 0)?.map_element().is_some();
        Ok(if is_map { Value::List(Type::String, names) } else { Value::Tuple(names) })
    }),
    function("length", &[Param::Any], length),
    function("lookup", &[Param::Any, Param::Text, Param::Any], |a| {
        let found = members(a, 0)?.get(text(a, 1)?);
        match (found, any(a, 0)?.map_element()) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(kind)) => convert(any(a, 2)?, kind),
            (None, None) => Ok(any(a, 2)?.clone()),
        }
    }),
    Function { name: "merge", params: &[], variadic: Some(Param::Nullable), run: Run::Pure(merge) },
    function("values", &[Param::Any], |a| {
        let values = members(a, 0)?.values().cloned().collect();
        Ok(match any(a, 0)?.map_element() {
            Some(kind) => Value::List(kind.clone(), values),
            None => Value::Tuple(values),
        })
    }),
];

fn length(values: &[Value]) -> Outcome {
    let value = any(values, 0)?;
    let members = value.as_members().filter(|_| value.map_element().is_some());
    let length = members.map(BTreeMap::len).or_else(|| Some(value.as_sequence()?.len()));
    let length = length.ok_or("argument 1 must be a list, a set, a map or a tuple")?;
    Ok(Value::count(length))
}

/// Merges members; a later argument replaces those of an earlier one.
fn merge(values: &[Value]) -> Outcome {
    let mut merged = BTreeMap::new();
    let mut kinds = Vec::new();
    for (at, value) in values.iter().enumerate().filter(|(_, value)| !value.is_null()) {
        merged
            .extend(members(values, at)?.iter().map(|(name, value)| (name.clone(), value.clone())));
        kinds.push(value.map_element().cloned());
    }
    let kinds: Option<Vec<Type>> = kinds.into_iter().collect();
    let maps = kinds.filter(|kinds| !kinds.is_empty()).and_then(|kinds| unify(&kinds));
    match maps {
        Some(kind) => convert(&Value::Object(merged), &kind.map()),
        None => Ok(Value::Object(merged)),
    }
}
