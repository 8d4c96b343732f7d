//! Values of Go types, made from JSON by a description of the type.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::Value as Json;

/// A Go type, as far as its JSON and its fields depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    Number,
    Bool,
    /// Any JSON, as a Go `any`.
    Any,
    List(&'static Self),
    Map(&'static Self),
    Struct(&'static [Field]),
    /// A pointer to a struct, which may be nil.
    Pointer(&'static [Field]),
}

/// A field of a Go struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Name in templates.
    go: &'static str,
    /// Name in JSON.
    json: &'static str,
    shape: Shape,
    /// True if JSON omits the zero value (`omitempty`).
    is_optional: bool,
}

/// Describes a field of a Go struct.
pub(crate) const fn struct_field(go: &'static str, json: &'static str, shape: Shape) -> Field {
    Field { go, json, shape, is_optional: false }
}

/// Describes a field whose zero value JSON omits.
pub(crate) const fn optional_field(go: &'static str, json: &'static str, shape: Shape) -> Field {
    Field { go, json, shape, is_optional: true }
}

/// Text of a value that does not exist.
pub(super) const NO_VALUE: &str = "<no value>";

/// A value of a template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A nil pointer, list or map, or a missing key of a map, with the text that Go prints.
    Nil(&'static str),
    Bool(bool),
    Number(i64),
    /// A number that is not an integer.
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Map(BTreeMap<String, Self>),
    Struct(Vec<(Field, Self)>),
    /// A field that exists in docker only, with the reason.
    Unavailable(&'static str),
}

impl Value {
    /// Converts JSON to a value of a Go type, as `json.Unmarshal` does: unknown members are dropped.
    ///
    /// # Errors
    /// A text that names the member with another type.
    pub(crate) fn from_json(json: &Json, shape: Shape) -> Result<Self, String> {
        match (shape, json) {
            (_, Json::Null) => Ok(Self::zero(shape)),
            (Shape::Any, _) => Ok(Self::any(json)),
            (Shape::Text, Json::String(text)) => Ok(Self::Text(text.clone())),
            (Shape::Bool, Json::Bool(value)) => Ok(Self::Bool(*value)),
            (Shape::Number, Json::Number(number)) => {
                number.as_i64().map(Self::Number).ok_or_else(|| format!("{number} is too large"))
            }
            (Shape::List(item), Json::Array(items)) => {
                let items = items.iter().map(|json| Self::from_json(json, *item));
                items.collect::<Result<_, _>>().map(Self::List)
            }
            (Shape::Map(item), Json::Object(members)) => {
                let items = members.iter().map(|(key, json)| {
                    Self::from_json(json, *item).map(|value| (key.clone(), value))
                });
                items.collect::<Result<_, _>>().map(Self::Map)
            }
            (Shape::Struct(fields) | Shape::Pointer(fields), Json::Object(members)) => {
                let field = |field: &Field| {
                    let value = match members.get(field.json) {
                        Some(json) => Self::from_json(json, field.shape)
                            .map_err(|error| format!("{}: {error}", field.json))?,
                        None => Self::zero(field.shape),
                    };
                    Ok::<_, String>((*field, value))
                };
                fields.iter().map(field).collect::<Result<_, _>>().map(Self::Struct)
            }
            (shape, _) => Err(format!("is not {}", shape.name())),
        }
    }

    fn any(json: &Json) -> Self {
        match json {
            Json::Null => Self::Nil(NO_VALUE),
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => number
                .as_i64()
                .map_or_else(|| Self::Float(number.as_f64().unwrap_or_default()), Self::Number),
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(items) => Self::List(items.iter().map(Self::any).collect()),
            Json::Object(members) => Self::Map(
                members.iter().map(|(key, json)| (key.clone(), Self::any(json))).collect(),
            ),
        }
    }

    fn zero(shape: Shape) -> Self {
        match shape {
            Shape::Text => Self::Text(String::new()),
            Shape::Number => Self::Number(0),
            Shape::Bool => Self::Bool(false),
            Shape::Any => Self::Nil(NO_VALUE),
            Shape::List(_) => Self::Nil("[]"),
            Shape::Map(_) => Self::Nil("map[]"),
            Shape::Pointer(_) => Self::Nil("<nil>"),
            Shape::Struct(fields) => {
                Self::Struct(fields.iter().map(|field| (*field, Self::zero(field.shape))).collect())
            }
        }
    }

    /// Returns whether the value counts as false: false, 0, nil, or empty.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Nil(_) => true,
            Self::Bool(value) => !value,
            Self::Number(number) => *number == 0,
            Self::Float(number) => *number == 0.0,
            Self::Text(text) => text.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Map(items) => items.is_empty(),
            Self::Struct(_) | Self::Unavailable(_) => false,
        }
    }

    /// Returns a field of a struct, or the value of a key of a map.
    ///
    /// # Errors
    /// If the value has no fields, or not this one.
    pub(super) fn field(&self, name: &str) -> Result<Self, String> {
        match self {
            Self::Struct(fields) => {
                let found = fields.iter().find(|(field, _)| field.go == name);
                let (_, value) = found.ok_or_else(|| {
                    let known: Vec<&str> = fields.iter().map(|(field, _)| field.go).collect();
                    format!("unknown field .{name}: use one of {}", known.join(", "))
                })?;
                if let Self::Unavailable(why) = value {
                    return Err(format!(".{name} is not supported: {why}"));
                }
                Ok(value.clone())
            }
            Self::Map(items) => Ok(items.get(name).cloned().unwrap_or(Self::Nil(NO_VALUE))),
            Self::Nil(_) => Err(format!("nil does not have the field .{name}")),
            other @ (Self::Bool(_)
            | Self::Number(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::List(_)
            | Self::Unavailable(_)) => {
                Err(format!("{} does not have the field .{name}", other.kind()))
            }
        }
    }

    /// Returns the text that `%v` of Go's fmt prints.
    ///
    /// # Errors
    /// For a struct, whose text in Go has addresses of memory.
    pub(super) fn text(&self) -> Result<String, String> {
        let joined = |items: Vec<String>| items.join(" ");
        Ok(match self {
            Self::Nil(text) => (*text).to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::List(items) => {
                let items = items.iter().map(Self::text).collect::<Result<Vec<_>, _>>()?;
                format!("[{}]", joined(items))
            }
            Self::Map(items) => {
                let items = items.iter().map(|(key, value)| Ok(format!("{key}:{}", value.text()?)));
                format!("map[{}]", joined(items.collect::<Result<Vec<_>, String>>()?))
            }
            Self::Struct(_) => {
                return Err("a value with fields has no text: use {{json …}}".to_owned());
            }
            Self::Unavailable(why) => return Err((*why).to_owned()),
        })
    }

    /// Returns the name of the value's kind, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Nil(_) => "nil",
            Self::Bool(_) => "a truth value",
            Self::Number(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Struct(_) | Self::Unavailable(_) => "a value with fields",
        }
    }
}

impl Shape {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::Any => "a value",
            Self::List(_) => "an array",
            Self::Map(_) | Self::Struct(_) | Self::Pointer(_) => "an object",
        }
    }
}

/// JSON as `encoding/json` of Go writes it: members in the order of the fields, empty ones left out.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // A member of a struct, which leaves it out.
            Self::Nil(_) | Self::Unavailable(_) => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(items) => {
                let mut map = serializer.serialize_map(Some(items.len()))?;
                items.iter().try_for_each(|(key, item)| map.serialize_entry(key, item))?;
                map.end()
            }
            Self::Struct(fields) => {
                let is_shown = |(field, value): &&(Field, Self)| {
                    let is_left_out = field.is_optional && value.is_empty();
                    !is_left_out && !matches!(value, Self::Unavailable(_))
                };
                let shown: Vec<_> = fields.iter().filter(is_shown).collect();
                let mut map = serializer.serialize_map(Some(shown.len()))?;
                shown
                    .iter()
                    .try_for_each(|(field, value)| map.serialize_entry(field.json, value))?;
                map.end()
            }
        }
    }
}

/// Returns a text in double quotes, as `%q` of Go's fmt prints it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => {
                write!(quoted, "\\x{:02x}", u32::from(c)).expect("a String takes every text");
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
