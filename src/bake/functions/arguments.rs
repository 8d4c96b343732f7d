//! Access to arguments whose types were converted already.

use std::collections::BTreeMap;

use super::Outcome;
use crate::bake::value::{Number, Value};

fn argument(values: &[Value], at: usize) -> Result<&Value, String> {
    values.get(at).ok_or_else(|| format!("argument {} is missing", at + 1))
}

pub(super) fn text(values: &[Value], at: usize) -> Result<&str, String> {
    let text = argument(values, at)?.as_text();
    text.ok_or_else(|| format!("argument {}: string required", at + 1))
}

pub(super) fn any(values: &[Value], at: usize) -> Result<&Value, String> {
    argument(values, at)
}

pub(super) fn number(values: &[Value], at: usize) -> Result<&Number, String> {
    let number = argument(values, at)?.as_number();
    number.ok_or_else(|| format!("argument {}: number required", at + 1))
}

/// Returns a whole number that fits into an `i64`.
pub(super) fn whole(values: &[Value], at: usize) -> Result<i64, String> {
    let number = number(values, at)?.to_i64();
    number.ok_or_else(|| format!("argument {} must be a whole number", at + 1))
}

pub(super) fn boolean(values: &[Value], at: usize) -> Result<bool, String> {
    let value = argument(values, at)?.as_bool();
    value.ok_or_else(|| format!("argument {}: bool required", at + 1))
}

/// Returns the elements of a list, set or tuple.
pub(super) fn sequence(values: &[Value], at: usize) -> Result<&[Value], String> {
    let values = argument(values, at)?.as_sequence();
    values.ok_or_else(|| format!("argument {} must be a list, a set or a tuple", at + 1))
}

/// Returns the members of a map or object.
pub(super) fn members(values: &[Value], at: usize) -> Result<&BTreeMap<String, Value>, String> {
    let values = argument(values, at)?.as_members();
    values.ok_or_else(|| format!("argument {} must be a map or an object", at + 1))
}

/// Returns the result of an operation on numbers.
pub(super) fn computed(number: Option<Number>) -> Outcome {
    number.map(Value::Number).ok_or_else(|| "the result is too large".to_owned())
}
