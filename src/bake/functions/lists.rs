//! Functions of lists.

use std::collections::BTreeSet;

use super::arguments::{any, members, number, sequence, text, whole};
use super::{Function, Outcome, Param, Run};
use crate::bake::value::{Type, Value, convert, unify};

const fn function(
    name: &'static str,
    params: &'static [Param],
    run: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, variadic: None, run: Run::Pure(run) }
}

const fn variadic(name: &'static str, param: Param, run: fn(&[Value]) -> Outcome) -> Function {
    Function { name, params: &[], variadic: Some(param), run: Run::Pure(run) }
}

pub(super) const FUNCTIONS: &[Function] = &[
    function("chunklist", &[Param::List, Param::Number], chunks),
    variadic("coalesce", Param::Nullable, coalesce),
    variadic("coalescelist", Param::Any, |a| {
        let found = a.iter().find(|list| list.as_sequence().is_some_and(|list| !list.is_empty()));
        found.cloned().ok_or_else(|| "no argument is a list with elements".to_owned())
    }),
    function("compact", &[Param::Texts], |a| {
        let kept = sequence(a, 0)?.iter().filter_map(Value::as_text);
        Ok(Value::texts(kept.filter(|text| !text.is_empty())))
    }),
    variadic("concat", Param::Any, concat),
    function("contains", &[Param::Any, Param::Any], |a| {
        let wanted = any(a, 1)?;
        Ok(Value::Bool(sequence(a, 0)?.iter().any(|value| value.equals(wanted))))
    }),
    function("distinct", &[Param::List], |a| {
        let mut kept: Vec<Value> = Vec::new();
        let mut seen = BTreeSet::new();
        for value in sequence(a, 0)? {
            if seen.insert(crate::bake::value::to_json(value)) {
                kept.push(value.clone());
            }
        }
        Ok(Value::List(element_kind(any(a, 0)?), kept))
    }),
    function("element", &[Param::Any, Param::Number], element),
    function("flatten", &[Param::Any], |a| {
        let mut flat = Vec::new();
        flatten(sequence(a, 0)?, &mut flat);
        Ok(Value::Tuple(flat))
    }),
    function("indexof", &[Param::Any, Param::Any], |a| {
        let (values, wanted) = (sequence(a, 0)?, any(a, 1)?);
        let found = values.iter().position(|value| value.equals(wanted));
        found.map(Value::count).ok_or_else(|| "the list has no such element".to_owned())
    }),
    function("reverselist", &[Param::Any], |a| {
        let values: Vec<Value> = sequence(a, 0)?.iter().rev().cloned().collect();
        Ok(like(any(a, 0)?, values))
    }),
    function("slice", &[Param::Any, Param::Number, Param::Number], slice),
    function("sort", &[Param::Texts], |a| {
        let texts = sequence(a, 0)?.iter().map(|value| value.as_text().ok_or("an element is null"));
        let mut texts: Vec<&str> = texts.collect::<Result<_, _>>()?;
        texts.sort_unstable();
        Ok(Value::texts(texts))
    }),
    function("zipmap", &[Param::Texts, Param::Any], zip),
];

/// Returns values as a list of the same type as `list`, or as a tuple if that is one.
fn like(list: &Value, values: Vec<Value>) -> Value {
    match list.list_element() {
        Some(kind) => Value::List(kind.clone(), values),
        None => Value::Tuple(values),
    }
}

/// Returns the type of the elements of a list or set.
pub(super) fn element_kind(value: &Value) -> Type {
    value.list_element().cloned().unwrap_or(Type::Dynamic)
}

fn chunks(values: &[Value]) -> Outcome {
    let (list, size) = (sequence(values, 0)?, whole(values, 1)?);
    let size = usize::try_from(size).ok().ok_or("the size of a chunk must not be negative")?;
    let kind = element_kind(any(values, 0)?);
    let size = if size == 0 { list.len().max(1) } else { size };
    let chunks = list.chunks(size).map(|chunk| Value::List(kind.clone(), chunk.to_vec()));
    Ok(Value::List(kind.clone().list(), chunks.collect()))
}

/// Returns the first argument that is not null, as the common type of all.
fn coalesce(values: &[Value]) -> Outcome {
    let kinds: Vec<Type> = values.iter().map(Value::kind).collect();
    let kind = unify(&kinds).ok_or("all arguments must have the same type")?;
    let first = values.iter().find(|value| !value.is_null());
    convert(first.ok_or("all arguments are null")?, &kind)
}

fn concat(values: &[Value]) -> Outcome {
    let mut all = Vec::new();
    for at in 0..values.len() {
        all.extend(sequence(values, at)?.iter().cloned());
    }
    let lists = values.iter().all(|value| matches!(value, Value::List(..)));
    let kinds: Vec<Type> = values.iter().map(element_kind).collect();
    match unify(&kinds).filter(|_| lists) {
        Some(kind) => convert(&Value::Tuple(all), &kind.list()),
        None => Ok(Value::Tuple(all)),
    }
}

fn element(values: &[Value]) -> Outcome {
    let list = sequence(values, 0)?;
    let index = number(values, 1)?.to_usize().ok_or("the index must be a whole number from 0")?;
    let at = index.checked_rem(list.len()).unwrap_or(0);
    list.get(at).cloned().ok_or_else(|| "the list is empty".to_owned())
}

fn flatten(values: &[Value], flat: &mut Vec<Value>) {
    for value in values {
        match value.as_sequence() {
            Some(inner) => flatten(inner, flat),
            None => flat.push(value.clone()),
        }
    }
}

fn slice(values: &[Value]) -> Outcome {
    let list = sequence(values, 0)?;
    let range =
        usize::try_from(whole(values, 1)?).ok().zip(usize::try_from(whole(values, 2)?).ok());
    let part = range.and_then(|(start, end)| list.get(start..end));
    let part = part.ok_or("the start and end are not positions of the list, in order")?.to_vec();
    let list = any(values, 0)?;
    if matches!(list, Value::Set(..)) {
        return Err("a set has no order to take a slice of".to_owned());
    }
    Ok(like(list, part))
}

fn zip(values: &[Value]) -> Outcome {
    let (names, list) = (sequence(values, 0)?, sequence(values, 1)?);
    if names.len() != list.len() {
        let counts = format!("{} keys and {} values", names.len(), list.len());
        return Err(format!("needs as many values as keys, not {counts}"));
    }
    let pairs = names.iter().zip(list).map(|(name, value)| {
        Ok((name.as_text().ok_or("a key is null")?.to_owned(), value.clone()))
    });
    let pairs = pairs.collect::<Result<_, &str>>()?;
    Ok(match any(values, 1)?.list_element() {
        Some(kind) => Value::Map(kind.clone(), pairs),
        None => Value::Object(pairs),
    })
}

/// Returns whether a map or object has a member, or a list an index.
pub(super) fn has_index(values: &[Value]) -> Outcome {
    let key = any(values, 1)?;
    if let Ok(members) = members(values, 0) {
        let name = convert(key, &Type::String);
        let name = name.as_ref().ok().and_then(Value::as_text);
        return Ok(Value::Bool(name.is_some_and(|name| members.contains_key(name))));
    }
    let list = sequence(values, 0)?;
    let Ok(Value::Number(index)) = convert(key, &Type::Number) else {
        return Ok(Value::Bool(false));
    };
    Ok(Value::Bool(index.to_usize().is_some_and(|index| index < list.len())))
}

/// Returns the element of a list, or the member of a map or object.
pub(super) fn index(values: &[Value]) -> Outcome {
    let key = any(values, 1)?;
    if let Ok(members) = members(values, 0) {
        let name = convert(key, &Type::String)?;
        let name = text(std::slice::from_ref(&name), 0)?;
        return members.get(name).cloned().ok_or_else(|| format!("no element {name:?}"));
    }
    let list = sequence(values, 0)?;
    let Value::Number(index) = convert(key, &Type::Number)? else {
        return Err("the index must be a number".to_owned());
    };
    let found = index.to_usize().and_then(|index| list.get(index));
    found.cloned().ok_or_else(|| format!("no element {index}"))
}
