//! Type expressions, such as `list(object({name = string}))`, and names where HCL wants no value.

use std::collections::BTreeMap;

use super::{Call, Expr, ExprKind, parse_expression};
use crate::bake::source::BakeError;
use crate::bake::value::{Attribute, Type, Value};

/// Returns the name that an expression consists of.
#[must_use]
pub(crate) fn keyword(expr: &Expr) -> Option<String> {
    if let ExprKind::JsonText(text, _) = &expr.kind {
        return keyword(&parse_expression(text, expr.at).ok()?);
    }
    if let ExprKind::Variable(name) = &expr.kind { Some(name.clone()) } else { None }
}

/// Returns the type that an expression denotes.
///
/// # Errors
/// The expression denotes no type.
pub(crate) fn type_of(expr: &Expr) -> Result<Type, BakeError> {
    if let ExprKind::JsonText(text, _) = &expr.kind {
        return type_of(&parse_expression(text, expr.at)?);
    }
    if let ExprKind::Variable(name) = &expr.kind {
        return named(name, expr);
    }
    if let ExprKind::Call(call) = &expr.kind {
        return constructed(call, expr);
    }
    let message = "a type is required: a keyword such as string, or a constructor such as \
                   list(string)";
    Err(BakeError::at(expr.at, message))
}

fn named(name: &str, expr: &Expr) -> Result<Type, BakeError> {
    match name {
        "bool" => Ok(Type::Bool),
        "string" => Ok(Type::String),
        "number" => Ok(Type::Number),
        "any" => Ok(Type::Dynamic),
        "list" | "set" | "map" => {
            let message = format!("the type {name} needs an argument: the type of its elements");
            Err(BakeError::at(expr.at, message).help(format!("write {name}(string), for example")))
        }
        "object" | "tuple" => {
            let message = format!("the type {name} needs an argument: the types of its elements");
            Err(BakeError::at(expr.at, message))
        }
        other => {
            let known =
                ["bool", "string", "number", "any", "list", "set", "map", "object", "tuple"];
            let error = BakeError::at(expr.at, format!("unknown type {other:?}"));
            Err(match crate::diag::nearest(other, known) {
                Some(near) => error.help(format!("did you mean {near}?")),
                None => error.help(format!("the types are {}", known.join(", "))),
            })
        }
    }
}

fn constructed(call: &Call, expr: &Expr) -> Result<Type, BakeError> {
    let [argument] = call.arguments.as_slice() else {
        let message = format!("the type {} takes one argument", call.name);
        return Err(BakeError::at(expr.at, message));
    };
    match call.name.as_str() {
        "list" => Ok(type_of(argument)?.list()),
        "set" => Ok(Type::Set(Box::new(type_of(argument)?))),
        "map" => Ok(type_of(argument)?.map()),
        "tuple" => {
            let ExprKind::Tuple(items) = &argument.kind else {
                return Err(BakeError::at(argument.at, "the type tuple takes a list of types"));
            };
            Ok(Type::Tuple(items.iter().map(type_of).collect::<Result<_, _>>()?))
        }
        "object" => object(argument),
        other => {
            let message = format!("{other} is not a type that takes an argument");
            Err(BakeError::at(call.at, message).help("use list, set, map, object or tuple"))
        }
    }
}

fn object(argument: &Expr) -> Result<Type, BakeError> {
    let ExprKind::Object(members) = &argument.kind else {
        return Err(BakeError::at(argument.at, "the type object takes attributes and their types"));
    };
    let mut attributes = BTreeMap::new();
    for (key, value) in members {
        let ExprKind::Literal(Value::String(name)) = &key.kind else {
            return Err(BakeError::at(key.at, "an attribute of a type needs a plain name"));
        };
        let call = if let ExprKind::Call(call) = &value.kind { Some(call) } else { None };
        let (kind, optional) = match call.filter(|call| call.name == "optional") {
            Some(call) => match call.arguments.as_slice() {
                [kind] => (type_of(kind)?, true),
                _ => return Err(BakeError::at(value.at, "optional takes one argument, a type")),
            },
            None => (type_of(value)?, false),
        };
        attributes.insert(name.clone(), Attribute { kind, optional });
    }
    Ok(Type::Object(attributes))
}
