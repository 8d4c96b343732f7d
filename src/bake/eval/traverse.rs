//! Parts of values: attributes, elements and splats.

use super::{Names, Scope, evaluate};
use crate::bake::source::{BakeError, Place};
use crate::bake::syntax::Step;
use crate::bake::value::{Type, Value, convert};
use crate::diag::nearest;

/// Follows steps from a value.
pub(super) fn follow(
    mut value: Value,
    steps: &[Step],
    scope: &Scope<'_>,
    names: &mut dyn Names,
    mut at: Place,
) -> Result<Value, BakeError> {
    for step in steps {
        match step {
            Step::Attribute(name, place) => {
                value = attribute(&value, name).map_err(|error| located(error, *place))?;
                at = Place::new(at.file, at.span.to(place.span));
            }
            Step::Index(key) => {
                let index = evaluate(key, scope, names)?;
                value = element(&value, &index).map_err(|error| located(error, key.at))?;
            }
            Step::AttributeSplat(rest, place) | Step::FullSplat(rest, place) => {
                value = splat(&value, rest, scope, names, *place)?;
            }
        }
    }
    Ok(value)
}

/// An error, and advice.
type Refusal = (String, Option<String>);

fn located((message, help): Refusal, at: Place) -> BakeError {
    let error = BakeError::at(at, message);
    match help {
        Some(help) => error.help(help),
        None => error,
    }
}

/// Returns an attribute of an object, or an element of a map.
fn attribute(value: &Value, name: &str) -> Result<Value, Refusal> {
    if value.is_null() {
        return Err((format!("the value is null, so it has no attribute {name:?}"), None));
    }
    let Some(members) = value.as_members() else {
        let kind = value.kind().friendly();
        let help = value
            .as_sequence()
            .map(|_| format!("use a splat to read {name:?} of every element: [*].{name}"));
        return Err((format!("a {kind} has no attributes, so not {name:?}"), help));
    };
    members.get(name).cloned().ok_or_else(|| {
        let near = nearest(name, members.keys().map(String::as_str));
        let help = near.map(|near| format!("did you mean {near:?}?"));
        (format!("the {} has no attribute {name:?}", word(value)), help)
    })
}

const fn word(value: &Value) -> &'static str {
    if matches!(value, Value::Map(..)) { "map" } else { "object" }
}

/// Returns the element at a key or index.
pub(super) fn element(value: &Value, key: &Value) -> Result<Value, Refusal> {
    let plain = |message: &str| (message.to_owned(), None);
    if value.is_null() {
        return Err(plain("the value is null, so it has no elements"));
    }
    if key.is_null() {
        return Err(plain("the index is null"));
    }
    if let Some(members) = value.as_members() {
        let Ok(Value::String(name)) = convert(key, &Type::String) else {
            return Err(plain("the key of a map or object must be a string"));
        };
        return members.get(&name).cloned().ok_or_else(|| {
            let near = nearest(&name, members.keys().map(String::as_str));
            let help = near.map(|near| format!("did you mean {near:?}?"));
            (format!("the {} has no element {name:?}", word(value)), help)
        });
    }
    let (Some(values), false) = (value.as_sequence(), matches!(value, Value::Set(..))) else {
        let kind = value.kind().friendly();
        return Err((format!("a {kind} has no elements with an index"), None));
    };
    let Ok(Value::Number(index)) = convert(key, &Type::Number) else {
        return Err(plain("the index of a list must be a number"));
    };
    let found = index.to_usize().and_then(|index| values.get(index));
    found.cloned().ok_or_else(|| {
        let n = values.len();
        (format!("the index {index} is outside of the list, which has {n} elements"), None)
    })
}

/// Follows steps from every element of a list. A single value counts as a list of one.
fn splat(
    value: &Value,
    steps: &[Step],
    scope: &Scope<'_>,
    names: &mut dyn Names,
    at: Place,
) -> Result<Value, BakeError> {
    if value.is_null() {
        return Ok(Value::Tuple(Vec::new()));
    }
    let single = std::slice::from_ref(value);
    let values = value.as_sequence().unwrap_or(single);
    let mut parts = Vec::with_capacity(values.len());
    for value in values {
        parts.push(follow(value.clone(), steps, scope, names, at)?);
    }
    let kind = parts.first().map_or(Type::Dynamic, Value::kind);
    let is_list = value.list_element().is_some() && parts.iter().all(|part| part.kind() == kind);
    Ok(if is_list { Value::List(kind, parts) } else { Value::Tuple(parts) })
}
