//! Base64, JSON, CSV and URLs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::arguments::{any, text};
use super::{Function, Outcome, Param, Run};
use crate::bake::csv;
use crate::bake::value::{Type, Value, from_json, to_json};

const fn function(
    name: &'static str,
    params: &'static [Param],
    run: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, variadic: None, run: Run::Pure(run) }
}

const ONE: &[Param] = &[Param::Text];

pub(super) const FUNCTIONS: &[Function] = &[
    function("base64decode", ONE, |a| {
        let bytes = STANDARD.decode(text(a, 0)?).map_err(|error| format!("bad base64: {error}"))?;
        let text = String::from_utf8(bytes).ok().map(Value::String);
        text.ok_or_else(|| "the decoded bytes are not UTF-8".to_owned())
    }),
    function("base64encode", ONE, |a| Ok(Value::text(STANDARD.encode(text(a, 0)?)))),
    // Both take bytes, and no function makes any of a text.
    function("byteslen", &[Param::Any], |_| Err("bytes required".to_owned())),
    function("bytesslice", &[Param::Any, Param::Number, Param::Number], |_| {
        Err("bytes required".to_owned())
    }),
    function("csvdecode", ONE, decode_csv),
    function("jsondecode", ONE, |a| from_json(text(a, 0)?)),
    function("jsonencode", &[Param::Nullable], |a| Ok(Value::text(to_json(any(a, 0)?)))),
    function("urlencode", ONE, |a| Ok(Value::text(url_encoded(text(a, 0)?)))),
];

/// Returns a list of objects, whose names are in the first record.
fn decode_csv(values: &[Value]) -> Outcome {
    let mut records = csv::records(text(values, 0)?)?.into_iter();
    let names = records.next().ok_or("the text has no record with the names")?;
    let mut rows = Vec::new();
    for record in records {
        if record.len() != names.len() {
            let counts = format!("{} fields instead of {}", record.len(), names.len());
            return Err(format!("a record has {counts}"));
        }
        let members = names.iter().cloned().zip(record.into_iter().map(Value::String));
        rows.push(Value::Object(members.collect()));
    }
    let kind = rows.first().map_or(Type::Dynamic, Value::kind);
    Ok(Value::List(kind, rows))
}

/// Escapes a text for a query (Go's `url.QueryEscape`).
fn url_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
