//! Conversion of values to a required type.

use std::collections::BTreeMap;

use super::{Attribute, Number, Type, Value, unify};

/// Converts a value to a type. The error says what is required.
///
/// # Errors
/// The value has no equivalent of that type.
pub(crate) fn convert(value: &Value, wanted: &Type) -> Result<Value, String> {
    if value.is_null() {
        let kind = if *wanted == Type::Dynamic { value.kind() } else { wanted.clone() };
        return Ok(Value::Null(kind));
    }
    match wanted {
        Type::Dynamic => Ok(value.clone()),
        Type::Bool => to_bool(value),
        Type::Number => to_number(value),
        Type::String => to_text(value),
        Type::List(element) => {
            let (element, values) = elements(value, element, wanted)?;
            Ok(Value::List(element, values))
        }
        Type::Set(element) => {
            let (element, values) = elements(value, element, wanted)?;
            Ok(Value::set(element, values))
        }
        Type::Map(element) => to_map(value, element, wanted),
        Type::Tuple(kinds) => to_tuple(value, kinds, wanted),
        Type::Object(attributes) => to_object(value, attributes, wanted),
    }
}

fn required(wanted: &Type) -> String {
    format!("{} required", wanted.constraint())
}

fn to_bool(value: &Value) -> Result<Value, String> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => match text.as_str() {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            other => Err(match other.to_ascii_lowercase().as_str() {
                word @ ("true" | "false") => {
                    format!("a bool is required; to convert from string, use lowercase \"{word}\"")
                }
                _ => "a bool is required".to_owned(),
            }),
        },
        Value::Null(_)
        | Value::Number(_)
        | Value::List(..)
        | Value::Set(..)
        | Value::Map(..)
        | Value::Tuple(_)
        | Value::Object(_) => Err(required(&Type::Bool)),
    }
}

fn to_number(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(_) => Ok(value.clone()),
        Value::String(text) => {
            let number = Number::parse(text).map(Value::Number);
            number.ok_or_else(|| "a number is required".to_owned())
        }
        Value::Null(_)
        | Value::Bool(_)
        | Value::List(..)
        | Value::Set(..)
        | Value::Map(..)
        | Value::Tuple(_)
        | Value::Object(_) => Err(required(&Type::Number)),
    }
}

fn to_text(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Bool(value) => Ok(Value::text(value.to_string())),
        Value::Number(number) => Ok(Value::text(number.to_string())),
        Value::Null(_)
        | Value::List(..)
        | Value::Set(..)
        | Value::Map(..)
        | Value::Tuple(_)
        | Value::Object(_) => Err(required(&Type::String)),
    }
}

/// Returns the type that all values convert to: `element`, or their common type.
fn common(element: &Type, values: &[&Value], wanted: &Type) -> Result<Type, String> {
    if *element != Type::Dynamic {
        return Ok(element.clone());
    }
    if values.is_empty() {
        return Ok(Type::Dynamic);
    }
    let kinds: Vec<Type> = values.iter().map(|value| value.kind()).collect();
    unify(&kinds).ok_or_else(|| {
        let all = match wanted {
            Type::Map(_) => "all map elements must have the same type",
            Type::Set(_) => "all set elements must have the same type",
            Type::Dynamic
            | Type::Bool
            | Type::Number
            | Type::String
            | Type::List(_)
            | Type::Tuple(_)
            | Type::Object(_) => "all list elements must have the same type",
        };
        all.to_owned()
    })
}

fn elements(value: &Value, element: &Type, wanted: &Type) -> Result<(Type, Vec<Value>), String> {
    let values = value.as_sequence().ok_or_else(|| required(wanted))?;
    let element = common(element, &values.iter().collect::<Vec<_>>(), wanted)?;
    let converted = values.iter().enumerate().map(|(at, value)| {
        convert(value, &element).map_err(|error| format!("element {at}: {error}"))
    });
    let converted = converted.collect::<Result<_, String>>()?;
    Ok((element, converted))
}

fn to_map(value: &Value, element: &Type, wanted: &Type) -> Result<Value, String> {
    let members = value.as_members().ok_or_else(|| required(wanted))?;
    let element = common(element, &members.values().collect::<Vec<_>>(), wanted)?;
    let converted = members.iter().map(|(name, value)| {
        let value = convert(value, &element);
        Ok((name.clone(), value.map_err(|error| format!("element \"{name}\": {error}"))?))
    });
    let converted = converted.collect::<Result<_, String>>()?;
    Ok(Value::Map(element, converted))
}

fn to_tuple(value: &Value, kinds: &[Type], wanted: &Type) -> Result<Value, String> {
    let Value::Tuple(values) = value else { return Err(required(wanted)) };
    if values.len() != kinds.len() {
        return Err(format!("tuple of {} elements required", kinds.len()));
    }
    let converted = values.iter().zip(kinds).enumerate().map(|(at, (value, kind))| {
        convert(value, kind).map_err(|error| format!("element {at}: {error}"))
    });
    Ok(Value::Tuple(converted.collect::<Result<_, String>>()?))
}

fn to_object(
    value: &Value,
    attributes: &BTreeMap<String, Attribute>,
    wanted: &Type,
) -> Result<Value, String> {
    let members = value.as_members().ok_or_else(|| required(wanted))?;
    let converted = attributes.iter().map(|(name, attribute)| {
        let value = match members.get(name) {
            Some(value) => convert(value, &attribute.kind)
                .map_err(|error| format!("attribute \"{name}\": {error}"))?,
            None if attribute.optional => Value::Null(attribute.kind.clone()),
            None => return Err(format!("attribute \"{name}\" is required")),
        };
        Ok((name.clone(), value))
    });
    Ok(Value::Object(converted.collect::<Result<_, String>>()?))
}
