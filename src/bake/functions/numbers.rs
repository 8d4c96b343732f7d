//! Arithmetic, comparison and logic.

use num_bigint::BigInt;

use super::arguments::{any, boolean, computed, number, text, whole};
use super::{Function, Outcome, Param, Run};
use crate::bake::value::{Number, Type, Value, convert};
use crate::limits::MAX_BAKE_RANGE;

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

const ONE: &[Param] = &[Param::Number];
const TWO: &[Param] = &[Param::Number, Param::Number];
const BOTH: &[Param] = &[Param::Bool, Param::Bool];
const VALUES: &[Param] = &[Param::Nullable, Param::Nullable];

pub(super) const FUNCTIONS: &[Function] = &[
    function("absolute", ONE, |a| Ok(Value::Number(number(a, 0)?.absolute()))),
    function("add", TWO, |a| computed(number(a, 0)?.add(number(a, 1)?))),
    function("and", BOTH, |a| Ok(Value::Bool(boolean(a, 0)? && boolean(a, 1)?))),
    function("ceil", ONE, |a| Ok(Value::Number(number(a, 0)?.ceil()))),
    function("divide", TWO, |a| computed(number(a, 0)?.divide(nonzero(a)?))),
    function("equal", VALUES, |a| Ok(Value::Bool(any(a, 0)?.equals(any(a, 1)?)))),
    function("floor", ONE, |a| Ok(Value::Number(number(a, 0)?.floor()))),
    function("greaterthan", TWO, |a| Ok(Value::Bool(number(a, 0)? > number(a, 1)?))),
    function("greaterthanorequalto", TWO, |a| Ok(Value::Bool(number(a, 0)? >= number(a, 1)?))),
    function("int", ONE, |a| Ok(Value::Number(number(a, 0)?.truncate()))),
    function("lessthan", TWO, |a| Ok(Value::Bool(number(a, 0)? < number(a, 1)?))),
    function("lessthanorequalto", TWO, |a| Ok(Value::Bool(number(a, 0)? <= number(a, 1)?))),
    function("log", TWO, |a| double(number(a, 0)?.to_f64().ln() / number(a, 1)?.to_f64().ln())),
    variadic("max", Param::Number, |a| extreme(a, Number::gt)),
    variadic("min", Param::Number, |a| extreme(a, Number::lt)),
    function("modulo", TWO, |a| computed(number(a, 0)?.modulo(nonzero(a)?))),
    function("multiply", TWO, |a| computed(number(a, 0)?.multiply(number(a, 1)?))),
    function("negate", ONE, |a| Ok(Value::Number(number(a, 0)?.negate()))),
    function("not", &[Param::Bool], |a| Ok(Value::Bool(!boolean(a, 0)?))),
    function("notequal", VALUES, |a| Ok(Value::Bool(!any(a, 0)?.equals(any(a, 1)?)))),
    function("or", BOTH, |a| Ok(Value::Bool(boolean(a, 0)? || boolean(a, 1)?))),
    function("parseint", &[Param::Any, Param::Number], parse_integer),
    function("pow", TWO, |a| double(number(a, 0)?.to_f64().powf(number(a, 1)?.to_f64()))),
    variadic("range", Param::Number, range),
    function("signum", ONE, |a| Ok(Value::integer(number(a, 0)?.signum()))),
    function("subtract", TWO, |a| computed(number(a, 0)?.subtract(number(a, 1)?))),
];

fn nonzero(values: &[Value]) -> Result<&Number, String> {
    let divisor = number(values, 1)?;
    if divisor.is_zero() { Err("divides by zero".to_owned()) } else { Ok(divisor) }
}

fn double(value: f64) -> Outcome {
    let number = Number::double(value).map(Value::Number);
    number.ok_or_else(|| "has no finite result for these numbers".to_owned())
}

fn extreme(values: &[Value], better: fn(&Number, &Number) -> bool) -> Outcome {
    let mut best = number(values, 0)?;
    for at in 1..values.len() {
        let other = number(values, at)?;
        if better(other, best) {
            best = other;
        }
    }
    Ok(Value::Number(best.clone()))
}

fn parse_integer(values: &[Value]) -> Outcome {
    let digits = convert(any(values, 0)?, &Type::String)?;
    let base = u32::try_from(whole(values, 1)?).ok().filter(|base| matches!(base, 2..=62));
    let base = base.ok_or("the base must be between 2 and 62")?;
    let digits = text(std::slice::from_ref(&digits), 0)?.to_owned();
    let (negative, unsigned) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let mut value = BigInt::from(0);
    for c in unsigned.chars() {
        let digit = digit(c, base).filter(|digit| *digit < base);
        let digit = digit.ok_or_else(|| format!("{digits:?} is not a number of base {base}"))?;
        value = value * base + digit;
    }
    if unsigned.is_empty() {
        return Err(format!("{digits:?} is not a number of base {base}"));
    }
    Ok(Value::Number(Number::big(if negative { -value } else { value })))
}

/// Returns the value of a digit: above base 36, capitals follow the small letters.
fn digit(c: char, base: u32) -> Option<u32> {
    if base <= 36 {
        return c.to_digit(36);
    }
    match c {
        'A'..='Z' => Some(u32::from(c) - u32::from('A') + 36),
        other => other.to_digit(36),
    }
}

/// Returns the numbers from a start to a limit, which is excluded.
fn range(values: &[Value]) -> Outcome {
    let zero = Number::integer(0);
    let (start, end) = match values.len() {
        1 => (&zero, number(values, 0)?),
        2 | 3 => (number(values, 0)?, number(values, 1)?),
        given => return Err(format!("takes one to three numbers, not {given}")),
    };
    let default = Number::integer(if end < start { -1 } else { 1 });
    let step = if values.len() == 3 { number(values, 2)? } else { &default };
    let up = step.signum() > 0;
    if step.is_zero() || (up && end < start) || (!up && end > start) {
        return Err("the step does not lead from the start to the limit".to_owned());
    }
    let mut numbers = Vec::new();
    let mut next = start.clone();
    while if up { next < *end } else { next > *end } {
        if numbers.len() >= MAX_BAKE_RANGE {
            return Err(format!("more than {MAX_BAKE_RANGE} numbers"));
        }
        numbers.push(Value::Number(next.clone()));
        next = next.add(step).ok_or("the numbers are too large")?;
    }
    Ok(Value::List(Type::Number, numbers))
}
