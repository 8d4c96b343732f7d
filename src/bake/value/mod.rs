//! Values of definition files, with the types and conversions of HCL.
//!
//! Source of the rules: github.com/zclconf/go-cty, packages `cty` and `cty/convert`, version 1.17.

mod convert;
mod json;
mod number;
mod types;

use std::cmp::Ordering;
use std::collections::BTreeMap;

pub(crate) use convert::convert;
pub(crate) use json::{from_json, to_json};
pub(crate) use number::Number;
pub(crate) use types::{Attribute, Type, unify};

/// A value of an expression.
#[derive(Debug, Clone)]
pub enum Value {
    /// No value, of a type.
    Null(Type),
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    String(String),
    /// Values of one type.
    List(Type, Vec<Value>),
    /// Different values of one type, in order.
    Set(Type, Vec<Value>),
    /// Values of one type by name.
    Map(Type, BTreeMap<String, Value>),
    /// Values, each with its own type.
    Tuple(Vec<Value>),
    /// Values by name, each with its own type.
    Object(BTreeMap<String, Value>),
}

impl Value {
    /// Makes a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// Makes an integer.
    #[must_use]
    pub fn integer(value: i64) -> Self {
        Self::Number(Number::integer(value))
    }

    /// Makes the integer that counts something.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self::integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Makes a list of texts.
    pub fn texts<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Self {
        Self::List(Type::String, texts.into_iter().map(Self::text).collect())
    }

    /// Makes a map of texts.
    #[must_use]
    pub fn text_map(entries: BTreeMap<String, String>) -> Self {
        let entries = entries.into_iter().map(|(name, text)| (name, Self::String(text)));
        Self::Map(Type::String, entries.collect())
    }

    /// Makes a set: sorts the values and drops repeated ones.
    #[must_use]
    pub fn set(element: Type, mut values: Vec<Self>) -> Self {
        values.sort_by(Self::order);
        values.dedup_by(|a, b| Self::order(a, b) == Ordering::Equal);
        Self::Set(element, values)
    }

    /// Returns the type of the value.
    #[must_use]
    pub fn kind(&self) -> Type {
        match self {
            Self::Null(kind) => kind.clone(),
            Self::Bool(_) => Type::Bool,
            Self::Number(_) => Type::Number,
            Self::String(_) => Type::String,
            Self::List(element, _) => element.clone().list(),
            Self::Set(element, _) => Type::Set(Box::new(element.clone())),
            Self::Map(element, _) => element.clone().map(),
            Self::Tuple(values) => Type::Tuple(values.iter().map(Self::kind).collect()),
            Self::Object(values) => {
                let attribute = |value: &Self| Attribute { kind: value.kind(), optional: false };
                let attributes =
                    values.iter().map(|(name, value)| (name.clone(), attribute(value)));
                Type::Object(attributes.collect())
            }
        }
    }

    /// Returns whether the value is null.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null(_))
    }

    /// Returns the text, if the value is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Null(_)
            | Self::Bool(_)
            | Self::Number(_)
            | Self::List(..)
            | Self::Set(..)
            | Self::Map(..)
            | Self::Tuple(_)
            | Self::Object(_) => None,
        }
    }

    /// Returns the bool, if the value is one.
    #[must_use]
    pub(crate) const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// Returns the number, if the value is one.
    #[must_use]
    pub(crate) const fn as_number(&self) -> Option<&Number> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// Returns the type of the elements of a list or a set.
    #[must_use]
    pub(crate) const fn list_element(&self) -> Option<&Type> {
        if let Self::List(kind, _) | Self::Set(kind, _) = self { Some(kind) } else { None }
    }

    /// Returns the type of the values of a map.
    #[must_use]
    pub(crate) const fn map_element(&self) -> Option<&Type> {
        if let Self::Map(kind, _) = self { Some(kind) } else { None }
    }

    /// Returns the values of a sequence: list, set or tuple.
    #[must_use]
    pub fn as_sequence(&self) -> Option<&[Self]> {
        match self {
            Self::List(_, values) | Self::Set(_, values) | Self::Tuple(values) => Some(values),
            Self::Null(_)
            | Self::Bool(_)
            | Self::Number(_)
            | Self::String(_)
            | Self::Map(..)
            | Self::Object(_) => None,
        }
    }

    /// Returns the values by name: of a map or an object.
    #[must_use]
    pub const fn as_members(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Map(_, members) | Self::Object(members) => Some(members),
            Self::Null(_)
            | Self::Bool(_)
            | Self::Number(_)
            | Self::String(_)
            | Self::List(..)
            | Self::Set(..)
            | Self::Tuple(_) => None,
        }
    }

    /// Returns the pairs of key and value that a `for` visits, or `None` for single values.
    #[must_use]
    pub fn entries(&self) -> Option<Vec<(Self, Self)>> {
        if let Some(members) = self.as_members() {
            let pairs = members.iter().map(|(name, value)| (Self::text(name), value.clone()));
            return Some(pairs.collect());
        }
        let is_set = matches!(self, Self::Set(..));
        let values = self.as_sequence()?.iter().enumerate();
        let key = |at: usize, value: &Self| if is_set { value.clone() } else { Self::count(at) };
        Some(values.map(|(at, value)| (key(at, value), value.clone())).collect())
    }

    /// Returns a total order; values of one primitive type are in their natural order.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (a, b) if a.is_null() || b.is_null() => b.is_null().cmp(&a.is_null()),
            (a, b) => match (a.as_sequence(), b.as_sequence(), a.as_members(), b.as_members()) {
                (Some(a), Some(b), _, _) => {
                    let pairs = a.iter().zip(b).map(|(a, b)| a.order(b));
                    let first = pairs.into_iter().find(|order| order.is_ne());
                    first.unwrap_or_else(|| a.len().cmp(&b.len()))
                }
                (_, _, Some(a), Some(b)) => {
                    let pairs = a.iter().zip(b);
                    let mut orders =
                        pairs.map(|((a, x), (b, y))| a.cmp(b).then_with(|| x.order(y)));
                    orders.find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
                }
                _ => a.kind().cmp(&b.kind()),
            },
        }
    }

    /// Returns whether two values are equal; values of different types are not.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        match (self.is_null(), other.is_null()) {
            (true, true) => true,
            (false, false) => self.kind() == other.kind() && self.order(other) == Ordering::Equal,
            _ => false,
        }
    }
}
