//! Values as JSON, as the functions `jsonencode` and `jsondecode` and overrides need it.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};

use super::{Number, Type, Value};

/// Returns the value as compact JSON. Like Go, it escapes `<`, `>` and `&` in text.
#[must_use]
pub(crate) fn to_json(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null(_) => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_text(text, out),
        Value::List(_, values) | Value::Set(_, values) | Value::Tuple(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        Value::Map(_, members) | Value::Object(members) => {
            out.push('{');
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

/// Writes a JSON string as Go's encoding/json does.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Reads JSON as a value of the type that it implies: objects and tuples.
///
/// # Errors
/// The text is not JSON.
pub(crate) fn from_json(text: &str) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Parsed::deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value.0)
}

struct Parsed(Value);

impl<'de> serde::Deserialize<'de> for Parsed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed(Value::Null(Type::Dynamic)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed(Value::Number(Number::big(value.into()))))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed(Value::Number(Number::big(value.into()))))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Parsed, E> {
        let number = Number::parse(&format!("{value}"));
        number.map(|number| Parsed(Value::Number(number))).ok_or_else(|| E::custom("bad number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Parsed, E> {
        Ok(Parsed(Value::text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut values = Vec::new();
        while let Some(Parsed(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Parsed(Value::Tuple(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, Parsed(value))) = entries.next_entry::<String, Parsed>()? {
            if members.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!("member {name:?} is repeated")));
            }
        }
        Ok(Parsed(Value::Object(members)))
    }
}
