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
        Ok(match any(a, 0)? {
            Value::Map(..) => Value::List(Type::String, names),
            _ => Value::Tuple(names),
        })
    }),
    function("length", &[Param::Any], length),
    function("lookup", &[Param::Any, Param::Text, Param::Any], |a| {
        let found = members(a, 0)?.get(text(a, 1)?);
        match (any(a, 0)?, found) {
            (_, Some(value)) => Ok(value.clone()),
            (Value::Map(kind, _), None) => convert(any(a, 2)?, kind),
            (_, None) => Ok(any(a, 2)?.clone()),
        }
    }),
    Function { name: "merge", params: &[], variadic: Some(Param::Nullable), run: Run::Pure(merge) },
    function("values", &[Param::Any], |a| {
        let values = members(a, 0)?.values().cloned().collect();
        Ok(match any(a, 0)? {
            Value::Map(kind, _) => Value::List(kind.clone(), values),
            _ => Value::Tuple(values),
        })
    }),
];

fn length(values: &[Value]) -> Outcome {
    match any(values, 0)? {
        Value::Map(_, members) => Ok(Value::count(members.len())),
        other => {
            let list = other.as_sequence();
            let list = list.ok_or("argument 1 must be a list, a set, a map or a tuple")?;
            Ok(Value::count(list.len()))
        }
    }
}

/// Merges members; a later argument replaces those of an earlier one.
fn merge(values: &[Value]) -> Outcome {
    let mut merged = BTreeMap::new();
    let mut kinds = Vec::new();
    for (at, value) in values.iter().enumerate().filter(|(_, value)| !value.is_null()) {
        merged
            .extend(members(values, at)?.iter().map(|(name, value)| (name.clone(), value.clone())));
        kinds.push(match value {
            Value::Map(kind, _) => Some(kind.clone()),
            _ => None,
        });
    }
    let kinds: Option<Vec<Type>> = kinds.into_iter().collect();
    let maps = kinds.filter(|kinds| !kinds.is_empty()).and_then(|kinds| unify(&kinds));
    match maps {
        Some(kind) => convert(&Value::Object(merged), &kind.map()),
        None => Ok(Value::Object(merged)),
    }
}
