//! Evaluation of expressions.
//!
//! Source of the rules: github.com/hashicorp/hcl, `hclsyntax/spec.md` and `hclsyntax/expression.go`.

mod loops;
mod operators;
mod template;
mod traverse;

use std::collections::BTreeMap;

use super::source::{BakeError, Place};
use super::syntax::{Call, Expr, ExprKind, Operator, Step, type_of};
use super::value::{Type, Value, convert};
use template::Tolerance;

/// The variables and functions that expressions name.
pub(crate) trait Names {
    /// Returns the value of a variable. Steps that follow it say which part will be read.
    ///
    /// # Errors
    /// The variable is unknown, or its definition is wrong.
    fn variable(&mut self, name: &str, steps: &[Step], at: Place) -> Result<Value, BakeError>;

    /// Calls a function with evaluated arguments.
    ///
    /// # Errors
    /// The function is unknown or refuses its arguments.
    fn call(&mut self, call: &Call, arguments: Vec<Value>, at: Place) -> Result<Value, BakeError>;

    /// Counts a level of nesting, until [`Names::leave`].
    ///
    /// # Errors
    /// There are too many levels.
    fn enter(&mut self, at: Place) -> Result<(), BakeError>;

    /// Ends a level of nesting.
    fn leave(&mut self);

    /// Counts the size of a value that was copied or made.
    ///
    /// # Errors
    /// The values of the definitions are too large together.
    fn charge(&mut self, value: &Value, at: Place) -> Result<(), BakeError>;
}

/// The names of loops, matrices and parameters around an expression.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope<'a> {
    names: BTreeMap<String, Value>,
    outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    /// Makes a scope of some names.
    #[must_use]
    pub(crate) const fn of(names: BTreeMap<String, Value>) -> Self {
        Self { names, outer: None }
    }

    /// Makes a scope inside another.
    fn inside(outer: &'a Scope<'a>, names: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self { names: names.into_iter().collect(), outer: Some(outer) }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.names.get(name).or_else(|| self.outer?.get(name))
    }
}

/// Evaluates an expression.
///
/// # Errors
/// The first error in the expression or in what it refers to.
pub(crate) fn evaluate(
    expr: &Expr,
    scope: &Scope<'_>,
    names: &mut dyn Names,
) -> Result<Value, BakeError> {
    names.enter(expr.at)?;
    let value = evaluate_kind(expr, scope, names);
    names.leave();
    value
}

fn evaluate_kind(
    expr: &Expr,
    scope: &Scope<'_>,
    names: &mut dyn Names,
) -> Result<Value, BakeError> {
    match &expr.kind {
        ExprKind::Literal(value) => Ok(value.clone()),
        ExprKind::Template(parts) | ExprKind::JsonText(_, parts) => {
            let value = template::render(parts, scope, names, expr.at, Tolerance::Strict)?;
            names.charge(&value, expr.at)?;
            Ok(value)
        }
        ExprKind::Variable(name) => variable(name, &[], scope, names, expr.at),
        ExprKind::Traversal(source, steps) => {
            let value = if let ExprKind::Variable(name) = &source.kind {
                variable(name, steps, scope, names, source.at)?
            } else {
                evaluate(source, scope, names)?
            };
            traverse::follow(value, steps, scope, names, source.at)
        }
        ExprKind::Call(call) => function(call, expr.at, scope, names),
        ExprKind::Conditional(parts) => conditional(parts, scope, names),
        ExprKind::Binary(operator, operands) => binary(*operator, operands, scope, names),
        ExprKind::Not(operand) => {
            let value = evaluate(operand, scope, names)?;
            let value =
                operators::bool(&value).map_err(|error| BakeError::at(operand.at, error))?;
            Ok(Value::Bool(!value))
        }
        ExprKind::Negate(operand) => {
            let value = evaluate(operand, scope, names)?;
            let number = operators::number(&value);
            let number = number.map_err(|error| BakeError::at(operand.at, error))?;
            Ok(Value::Number(number.negate()))
        }
        ExprKind::Tuple(items) => {
            let items = items.iter().map(|item| evaluate(item, scope, names));
            Ok(Value::Tuple(items.collect::<Result<_, _>>()?))
        }
        ExprKind::Object(members) => object(members, scope, names),
        ExprKind::For(parsed) => loops::collect(parsed, scope, names),
    }
}

fn variable(
    name: &str,
    steps: &[Step],
    scope: &Scope<'_>,
    names: &mut dyn Names,
    at: Place,
) -> Result<Value, BakeError> {
    let value = match scope.get(name) {
        Some(value) => value.clone(),
        None => names.variable(name, steps, at)?,
    };
    names.charge(&value, at)?;
    Ok(value)
}

fn object(
    members: &[(Expr, Expr)],
    scope: &Scope<'_>,
    names: &mut dyn Names,
) -> Result<Value, BakeError> {
    let mut object = BTreeMap::new();
    for (key, value) in members {
        let name = evaluate(key, scope, names)?;
        let name = member_name(&name).map_err(|error| BakeError::at(key.at, error))?;
        object.insert(name, evaluate(value, scope, names)?);
    }
    Ok(Value::Object(object))
}

/// Converts the key of an object to text.
fn member_name(key: &Value) -> Result<String, String> {
    let name = convert(key, &Type::String)?.as_text().map(str::to_owned);
    name.ok_or_else(|| "the key of a member is null".to_owned())
}

/// Evaluates both branches, because the value has their common type; only the chosen one may fail.
fn conditional(
    parts: &[Expr; 3],
    scope: &Scope<'_>,
    names: &mut dyn Names,
) -> Result<Value, BakeError> {
    let [condition, yes, no] = parts;
    let chosen = evaluate(condition, scope, names)?;
    let chosen = operators::bool(&chosen).map_err(|error| BakeError::at(condition.at, error))?;
    let (wanted, other) = if chosen { (yes, no) } else { (no, yes) };
    let value = evaluate(wanted, scope, names)?;
    let other = match evaluate(other, scope, names) {
        Ok(other) => other,
        Err(error) if error.fatal => return Err(error),
        Err(_) => return Ok(value),
    };
    let kinds = [value.kind(), other.kind()];
    let Some(kind) = super::value::unify(&kinds) else {
        let [a, b] = if chosen { kinds } else { [kinds[1].clone(), kinds[0].clone()] };
        let message = format!(
            "the branches of a conditional have no common type: {} and {}",
            a.friendly(),
            b.friendly()
        );
        return Err(BakeError::at(Place::new(yes.at.file, yes.at.span.to(no.at.span)), message));
    };
    convert(&value, &kind).map_err(|error| BakeError::at(wanted.at, error))
}

fn binary(
    operator: Operator,
    operands: &[Expr; 2],
    scope: &Scope<'_>,
    names: &mut dyn Names,
) -> Result<Value, BakeError> {
    let [left, right] = operands;
    let first = evaluate(left, scope, names)?;
    if matches!(operator, Operator::And | Operator::Or) {
        let value = operators::bool(&first).map_err(|error| BakeError::at(left.at, error))?;
        if value == (operator == Operator::Or) {
            return Ok(Value::Bool(value));
        }
        let second = evaluate(right, scope, names)?;
        let value = operators::bool(&second).map_err(|error| BakeError::at(right.at, error))?;
        return Ok(Value::Bool(value));
    }
    let second = evaluate(right, scope, names)?;
    operators::apply(operator, &first, &second)
        .map_err(|(second, error)| BakeError::at(if second { right.at } else { left.at }, error))
}

/// Calls a function. `try`, `can` and `convert` get their arguments unevaluated.
fn function(
    call: &Call,
    at: Place,
    scope: &Scope<'_>,
    names: &mut dyn Names,
) -> Result<Value, BakeError> {
    match call.name.as_str() {
        "try" => return first_success(call, at, scope, names),
        "can" => {
            let [argument] = call.arguments.as_slice() else {
                return Err(BakeError::at(at, "can takes one argument"));
            };
            return match evaluate(argument, scope, names) {
                Err(error) if error.fatal => Err(error),
                result => Ok(Value::Bool(result.is_ok())),
            };
        }
        "convert" => {
            let [argument, kind] = call.arguments.as_slice() else {
                return Err(BakeError::at(at, "convert takes two arguments: a value and a type"));
            };
            let value = evaluate(argument, scope, names)?;
            let converted = convert(&value, &type_of(kind)?);
            return converted.map_err(|error| BakeError::at(argument.at, error));
        }
        _ => {}
    }
    let mut arguments = Vec::with_capacity(call.arguments.len());
    for argument in &call.arguments {
        arguments.push(evaluate(argument, scope, names)?);
    }
    if call.expand
        && let (Some(last), Some(expr)) = (arguments.pop(), call.arguments.last())
    {
        let values = last.as_sequence().ok_or_else(|| {
            BakeError::at(expr.at, "the argument before ... must be a list, a set or a tuple")
        })?;
        arguments.extend(values.iter().cloned());
    }
    let value = names.call(call, arguments, at)?;
    names.charge(&value, at)?;
    Ok(value)
}

fn first_success(
    call: &Call,
    at: Place,
    scope: &Scope<'_>,
    names: &mut dyn Names,
) -> Result<Value, BakeError> {
    let mut last = BakeError::at(at, "try needs an argument");
    for argument in &call.arguments {
        match evaluate(argument, scope, names) {
            Err(error) if !error.fatal => last = error,
            result => return result,
        }
    }
    Err(last)
}
