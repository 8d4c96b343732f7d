//! Templates as text.

use super::{Names, Scope, evaluate, operators};
use crate::bake::source::{BakeError, Place};
use crate::bake::syntax::Part;
use crate::bake::value::{Type, Value, convert};

/// The handling of a template that consists of one interpolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tolerance {
    /// It has the value of the interpolation, of any type.
    Strict,
    /// It is text, as everything else.
    Text,
}

/// Evaluates a template.
pub(super) fn render(
    parts: &[Part],
    scope: &Scope<'_>,
    names: &mut dyn Names,
    at: Place,
    tolerance: Tolerance,
) -> Result<Value, BakeError> {
    if let ([Part::Value(expr)], Tolerance::Strict) = (parts, tolerance) {
        return evaluate(expr, scope, names);
    }
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Literal(text) => out.push_str(text),
            Part::Value(expr) => {
                let value = evaluate(expr, scope, names)?;
                push(&value, expr.at, &mut out)?;
            }
            Part::If(condition, yes, no) => {
                let value = evaluate(condition, scope, names)?;
                let chosen = operators::bool(&value);
                let chosen = chosen.map_err(|error| BakeError::at(condition.at, error))?;
                let parts = if chosen { yes } else { no };
                push(&render(parts, scope, names, at, Tolerance::Text)?, at, &mut out)?;
            }
            Part::For { key_name, value_name, collection, body } => {
                let values = evaluate(collection, scope, names)?;
                for pair in super::loops::pairs(&values, collection.at)? {
                    let scope = super::loops::scope(scope, key_name.as_deref(), value_name, pair);
                    let text = render(body, &scope, names, at, Tolerance::Text)?;
                    names.charge(&text, at)?;
                    push(&text, at, &mut out)?;
                }
            }
        }
    }
    Ok(Value::String(out))
}

fn push(value: &Value, at: Place, out: &mut String) -> Result<(), BakeError> {
    match convert(value, &Type::String) {
        Ok(Value::String(text)) => {
            out.push_str(&text);
            Ok(())
        }
        Ok(_) => Err(BakeError::at(at, "null cannot be part of a text")
            .help("give it a default: ${coalesce(value, \"default\")}")),
        Err(_) => {
            let kind = value.kind().friendly();
            let error = BakeError::at(at, format!("a {kind} cannot be part of a text"));
            let list = value.as_sequence().is_some();
            Err(if list { error.help("join its elements: ${join(\",\", list)}") } else { error })
        }
    }
}
