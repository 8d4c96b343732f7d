//! Operators on values.

use crate::bake::syntax::Operator;
use crate::bake::value::{Number, Type, Value, convert};

/// Converts an operand to a bool.
pub(super) fn bool(value: &Value) -> Result<bool, String> {
    convert(value, &Type::Bool)?.as_bool().ok_or_else(|| "a bool is required, not null".to_owned())
}

/// Converts an operand to a number.
pub(super) fn number(value: &Value) -> Result<Number, String> {
    let number = convert(value, &Type::Number)?.as_number().cloned();
    number.ok_or_else(|| "a number is required, not null".to_owned())
}

/// Applies an operator. The error says whether it is about the second operand.
pub(super) fn apply(
    operator: Operator,
    first: &Value,
    second: &Value,
) -> Result<Value, (bool, String)> {
    if matches!(operator, Operator::Equal | Operator::NotEqual) {
        return Ok(Value::Bool(first.equals(second) == (operator == Operator::Equal)));
    }
    let a = number(first).map_err(|error| (false, error))?;
    let b = number(second).map_err(|error| (true, error))?;
    let result = match operator {
        Operator::Less => return Ok(Value::Bool(a < b)),
        Operator::LessOrEqual => return Ok(Value::Bool(a <= b)),
        Operator::Greater => return Ok(Value::Bool(a > b)),
        Operator::GreaterOrEqual => return Ok(Value::Bool(a >= b)),
        Operator::Divide | Operator::Modulo if b.is_zero() => {
            return Err((true, "division by zero".to_owned()));
        }
        Operator::Add => a.add(&b),
        Operator::Subtract => a.subtract(&b),
        Operator::Multiply => a.multiply(&b),
        Operator::Divide => a.divide(&b),
        Operator::Modulo => a.modulo(&b),
        Operator::Equal | Operator::NotEqual | Operator::And | Operator::Or => None,
    };
    result.map(Value::Number).ok_or_else(|| (false, "the result is too large".to_owned()))
}
