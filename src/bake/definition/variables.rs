//! Variables: defaults, types, values of the user, conditions.

use super::VariableInfo;
use super::program::Program;
use crate::bake::csv;
use crate::bake::eval::{Scope, evaluate};
use crate::bake::source::{BakeError, Place};
use crate::bake::syntax::{Block, keyword, type_of};
use crate::bake::target::parse_bool;
use crate::bake::value::{Number, Type, Value, convert, from_json, to_json};
use crate::diag::nearest;

/// Suffix of an environment variable that has the value as JSON.
const JSON_SUFFIX: &str = "_JSON";

/// A value that the user gave.
struct Given {
    text: String,
    json: bool,
}

impl Program<'_> {
    /// Returns the value of a variable or attribute, and evaluates it first if necessary.
    pub(super) fn resolve(&mut self, name: &str, at: Place) -> Result<Value, BakeError> {
        if let Some(value) = self.values.get(name) {
            return Ok(value.clone());
        }
        let attribute = self.attributes.get(name).copied();
        let block = self.variables.get(name).copied();
        if attribute.is_none() && block.is_none() {
            let known = self.attributes.keys().chain(self.variables.keys()).copied();
            let known = known.chain(self.settings.builtins.keys().map(String::as_str));
            let error = BakeError::at(at, format!("unknown variable {name:?}"));
            return Err(match nearest(name, known) {
                Some(near) => error.help(format!("did you mean {near}?")),
                None => error.help(format!("define it: variable \"{name}\" {{ default = … }}")),
            });
        }
        if !self.in_progress.insert(name.to_owned()) {
            let message = format!("the variable {name:?} refers to itself");
            return Err(BakeError::at(at, message).fatal());
        }
        // What is wrong in a variable is wrong for every use, so `try` does not hide it.
        let value = match (attribute, block) {
            (Some(attribute), _) => evaluate(&attribute.expr, &Scope::default(), self),
            (None, Some(block)) => self.evaluate_variable(name, block),
            (None, None) => Ok(Value::Null(Type::Dynamic)),
        };
        self.in_progress.remove(name);
        let mut value = value.map_err(BakeError::fatal)?;
        if attribute.is_some()
            && let (Some(block), Some(given)) = (block, self.given(name, false))
        {
            value = overridden(name, &value, true, None, &given)
                .map_err(|error| BakeError::at(block.at, error).fatal())?;
        }
        self.values.insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn evaluate_variable(&mut self, name: &str, block: &Block) -> Result<Value, BakeError> {
        let mut constraint = None;
        if let Some(found) = block.body.attribute("type") {
            let kind = type_of(&found.expr)?;
            let specified = kind != Type::Dynamic || keyword(&found.expr).as_deref() == Some("any");
            constraint = specified.then_some(kind);
        }
        let kind = constraint.clone().unwrap_or(Type::Dynamic);
        if let Some(kind) = &constraint {
            self.constraints.insert(name.to_owned(), kind.clone());
        }
        let default = block.body.attribute("default");
        let given = self.given(name, constraint.is_some());
        let value = match default {
            None if given.is_none() => {
                let empty = Value::text("");
                return Ok(constraint.map_or(empty, Value::Null));
            }
            None => Value::Null(kind),
            Some(default) => {
                let value = evaluate(&default.expr, &Scope::default(), self)?;
                convert(&value, &kind).map_err(|error| {
                    let message = format!("the default of {name:?} has the wrong type: {error}");
                    BakeError::at(default.expr.at, message)
                })?
            }
        };
        let Some(given) = given else { return Ok(value) };
        overridden(name, &value, default.is_some(), constraint.as_ref(), &given)
            .map_err(|error| BakeError::at(block.at, error))
    }

    /// Returns the value that the user gave. `X_JSON` counts if `X` is not set, or if JSON is
    /// preferred; a variable with that name of its own is another.
    fn given(&self, name: &str, prefer_json: bool) -> Option<Given> {
        let plain = (self.settings.lookup)(name);
        if plain.is_none() || prefer_json {
            let json_name = format!("{name}{JSON_SUFFIX}");
            let other = self.variables.contains_key(json_name.as_str())
                || self.settings.builtins.contains_key(&json_name);
            let json = (self.settings.lookup)(&json_name).filter(|_| !other);
            if let Some(text) = json {
                return Some(Given { text, json: true });
            }
        }
        plain.map(|text| Given { text, json: false })
    }

    /// Evaluates all variables and checks their conditions.
    pub(super) fn resolve_variables(&mut self) -> Result<Vec<VariableInfo>, Vec<BakeError>> {
        let blocks: Vec<(&str, &Block)> =
            self.variables.iter().map(|(name, block)| (*name, *block)).collect();
        let mut infos = Vec::new();
        for (name, block) in &blocks {
            let value = self.resolve(name, block.at).map_err(|error| vec![error])?;
            let description = match block.body.attribute("description") {
                Some(found) => {
                    let text = evaluate(&found.expr, &Scope::default(), self);
                    text.and_then(|text| self::text(&text, found.expr.at)).map_err(|e| vec![e])?
                }
                None => String::new(),
            };
            infos.push(self.info(name, description, &value));
        }
        let mut errors = Vec::new();
        for (_, block) in &blocks {
            for validation in block.body.blocks_of("validation") {
                errors.extend(self.validate(validation).err());
            }
        }
        if errors.is_empty() { Ok(infos) } else { Err(errors) }
    }

    fn info(&self, name: &str, description: String, value: &Value) -> VariableInfo {
        let constraint = self.constraints.get(name);
        let text = match constraint {
            Some(Type::String) => to_json(value).trim_matches('"').to_owned(),
            Some(Type::Dynamic) => {
                format!("{{\"value\":{},\"type\":{}}}", to_json(value), type_json(&value.kind()))
            }
            Some(_) => to_json(value),
            None => match convert(value, &Type::String) {
                Ok(Value::String(text)) => text,
                _ => to_json(value),
            },
        };
        VariableInfo {
            name: name.to_owned(),
            description,
            kind: constraint.map(Type::constraint),
            value: (!value.is_null()).then_some(text),
        }
    }

    fn validate(&mut self, block: &Block) -> Result<(), BakeError> {
        let attribute = |name: &str| {
            block
                .body
                .attribute(name)
                .map(|found| &found.expr)
                .ok_or_else(|| BakeError::at(block.at, format!("the validation has no {name}")))
        };
        let (condition, message) = (attribute("condition")?, attribute("error_message")?);
        let value = evaluate(condition, &Scope::default(), self)?;
        let valid = match convert(&value, &Type::Bool) {
            Ok(Value::Bool(valid)) => valid,
            Ok(_) => {
                return Err(BakeError::at(
                    condition.at,
                    "the condition is null, not true or false",
                ));
            }
            Err(error) => {
                return Err(BakeError::at(condition.at, format!("the condition: {error}")));
            }
        };
        if valid {
            return Ok(());
        }
        let reason = evaluate(message, &Scope::default(), self)?;
        let reason = reason.as_text().unwrap_or("the condition is false");
        Err(BakeError::at(condition.at, reason).label("this condition is false"))
    }

    /// Evaluates the attributes outside of blocks, so that each error is found.
    pub(super) fn resolve_attributes(&mut self) -> Result<(), BakeError> {
        let all: Vec<_> = self.attributes.iter().map(|(name, found)| (*name, found.at)).collect();
        for (name, at) in all {
            self.resolve(name, at)?;
        }
        Ok(())
    }
}

fn text(value: &Value, at: Place) -> Result<String, BakeError> {
    let text = convert(value, &Type::String).map_err(|error| BakeError::at(at, error))?;
    Ok(text.as_text().unwrap_or("").to_owned())
}

/// Returns the value that the user gave, as the type of the variable or of its default.
fn overridden(
    name: &str,
    default: &Value,
    has_default: bool,
    constraint: Option<&Type>,
    given: &Given,
) -> Result<Value, String> {
    let failed = |how: &str, error: String| format!("the given value of {name:?} {how}: {error}");
    let Some(kind) = constraint else {
        let kind = if has_default { default.kind() } else { Type::Dynamic };
        if kind == Type::Dynamic {
            return Ok(Value::text(&given.text));
        }
        if kind.is_primitive() {
            let value = primitive(&given.text, &kind);
            return value.map_err(|error| failed("has the wrong type", error));
        }
        let kind = kind.friendly();
        return Err(format!(
            "{name:?} is a {kind} without a type, so it cannot be set from outside"
        ));
    };
    if given.json {
        let value = from_json(&given.text).and_then(|value| convert(&unwrapped(value, kind), kind));
        return value.map_err(|error| failed("is not JSON of its type", error));
    }
    match kind {
        Type::List(_) | Type::Set(_) | Type::Tuple(_) | Type::Map(_) => {
            from_csv(&given.text, kind).map_err(|error| failed("is not CSV of its type", error))
        }
        Type::Bool | Type::Number | Type::String => {
            primitive(&given.text, kind).map_err(|error| failed("has the wrong type", error))
        }
        Type::Object(_) | Type::Dynamic => {
            let kind = kind.constraint();
            Err(format!("{name:?} has the type {kind}: give it as JSON, in {name}{JSON_SUFFIX}"))
        }
    }
}

/// Returns the value of a document for the type `any`, which names the type of its value.
fn unwrapped(value: Value, kind: &Type) -> Value {
    let members = value.as_members().filter(|members| members.contains_key("type"));
    let inner = members.and_then(|members| members.get("value")).filter(|_| *kind == Type::Dynamic);
    inner.cloned().unwrap_or(value)
}

/// Returns a type as JSON (cty, `json.go`).
fn type_json(kind: &Type) -> String {
    let of = |name: &str, element: &Type| format!("[\"{name}\",{}]", type_json(element));
    match kind {
        Type::Dynamic => "\"dynamic\"".to_owned(),
        Type::Bool | Type::Number | Type::String => format!("\"{}\"", kind.friendly()),
        Type::List(element) => of("list", element),
        Type::Set(element) => of("set", element),
        Type::Map(element) => of("map", element),
        Type::Tuple(kinds) => {
            let kinds: Vec<String> = kinds.iter().map(type_json).collect();
            format!("[\"tuple\",[{}]]", kinds.join(","))
        }
        Type::Object(attributes) => {
            let attributes = attributes.iter().map(|(name, attribute)| {
                format!("{}:{}", to_json(&Value::text(name)), type_json(&attribute.kind))
            });
            format!("[\"object\",{{{}}}]", attributes.collect::<Vec<_>>().join(","))
        }
    }
}

/// Reads a single value. Errors do not repeat it: a value from outside may be secret.
fn primitive(text: &str, kind: &Type) -> Result<Value, String> {
    match kind {
        Type::String => Ok(Value::text(text)),
        Type::Bool => match parse_bool(text) {
            Ok(value) => Ok(Value::Bool(value)),
            Err(_) => Err("it is neither true nor false".to_owned()),
        },
        Type::Number => {
            let number = Number::parse_double(text).map(Value::Number);
            number.ok_or_else(|| "it is not a number".to_owned())
        }
        Type::Dynamic
        | Type::List(_)
        | Type::Set(_)
        | Type::Map(_)
        | Type::Tuple(_)
        | Type::Object(_) => Err(format!("{} is not supported", kind.constraint())),
    }
}

/// Reads comma-separated values; those of a map are `name:value`.
fn from_csv(text: &str, kind: &Type) -> Result<Value, String> {
    let fields = csv::fields(text)?;
    let all = |element: &Type| {
        fields.iter().map(|field| primitive(field, element)).collect::<Result<Vec<_>, _>>()
    };
    match kind {
        Type::List(element) => Ok(Value::List((**element).clone(), all(element)?)),
        Type::Set(element) => Ok(Value::set((**element).clone(), all(element)?)),
        Type::Tuple(kinds) => {
            if kinds.len() != fields.len() {
                return Err(format!("{} values needed, not {}", kinds.len(), fields.len()));
            }
            let values = fields.iter().zip(kinds).map(|(field, kind)| primitive(field, kind));
            Ok(Value::Tuple(values.collect::<Result<_, _>>()?))
        }
        Type::Map(element) => {
            let members = fields.iter().map(|field| match csv::fields_by(field, ':')?.as_slice() {
                [name, value] => Ok((name.clone(), primitive(value, element)?)),
                _ => Err("a field is not NAME:VALUE".to_owned()),
            });
            Ok(Value::Map((**element).clone(), members.collect::<Result<_, String>>()?))
        }
        Type::Dynamic | Type::Bool | Type::Number | Type::String | Type::Object(_) => {
            Err(format!("{} is not supported", kind.constraint()))
        }
    }
}
