//! JSON whose members keep their order, written as Go's encoder writes it.

use super::value::{Value, to_json};

/// A JSON value that keeps the order of its members.
#[derive(Debug, Clone)]
pub(crate) enum Json {
    /// A text, number, bool or null.
    Scalar(Value),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Returns the value as text with two blanks for each level, and a line ending.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        write(self, 0, &mut out);
        out.push('\n');
        out
    }

    /// Returns a text.
    pub(crate) fn text(text: &str) -> Self {
        Self::Scalar(Value::text(text))
    }
}

/// Writes a value with two blanks for each level.
fn write(json: &Json, depth: usize, out: &mut String) {
    let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
    match json {
        Json::Scalar(value) => out.push_str(&to_json(value)),
        Json::List(items) if items.is_empty() => out.push_str("[]"),
        Json::Object(members) if members.is_empty() => out.push_str("{}"),
        Json::List(items) => {
            for (at, item) in items.iter().enumerate() {
                out.push(if at == 0 { '[' } else { ',' });
                out.push_str(&line(depth + 1));
                write(item, depth + 1, out);
            }
            out.push_str(&line(depth));
            out.push(']');
        }
        Json::Object(members) => {
            for (at, (name, value)) in members.iter().enumerate() {
                out.push(if at == 0 { '{' } else { ',' });
                out.push_str(&format!("{}{}: ", line(depth + 1), to_json(&Value::text(name))));
                write(value, depth + 1, out);
            }
            out.push_str(&line(depth));
            out.push('}');
        }
    }
}
