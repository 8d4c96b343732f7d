//! Types of values, named as HCL names them in messages.

use std::collections::BTreeMap;

/// The type of a value, or a constraint on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// Any type; the type of a bare `null`.
    Dynamic,
    /// `true` and `false`.
    Bool,
    /// Numbers.
    Number,
    /// Text.
    String,
    /// A sequence of values of one type.
    List(Box<Type>),
    /// Different values of one type, in no particular order.
    Set(Box<Type>),
    /// Values of one type by name.
    Map(Box<Type>),
    /// A sequence of fixed length.
    Tuple(Vec<Type>),
    /// Values by name, each with its own type.
    Object(BTreeMap<String, Attribute>),
}

/// The type of one attribute of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attribute {
    /// Type of its value.
    pub kind: Type,
    /// If set, the attribute may be left out.
    pub optional: bool,
}

impl Type {
    /// Returns the type of a list of `self`.
    #[must_use]
    pub fn list(self) -> Self {
        Self::List(Box::new(self))
    }

    /// Returns the type of a map to `self`.
    #[must_use]
    pub fn map(self) -> Self {
        Self::Map(Box::new(self))
    }

    /// Returns the type of an object with optional attributes.
    #[must_use]
    pub fn optional_object(attributes: &[(&str, Self)]) -> Self {
        let attributes = attributes.iter().map(|(name, kind)| {
            ((*name).to_owned(), Attribute { kind: kind.clone(), optional: true })
        });
        Self::Object(attributes.collect())
    }

    /// Returns whether values of the type are single: text, number or bool.
    #[must_use]
    pub const fn is_primitive(&self) -> bool {
        matches!(self, Self::Bool | Self::Number | Self::String)
    }

    /// Returns the name for messages about a value: `list of string`, `object`.
    #[must_use]
    pub fn friendly(&self) -> String {
        self.named("dynamic")
    }

    /// Returns the name for messages about a required type.
    #[must_use]
    pub fn constraint(&self) -> String {
        self.named("any type")
    }

    fn named(&self, dynamic: &str) -> String {
        match self {
            Self::Dynamic => dynamic.to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Number => "number".to_owned(),
            Self::String => "string".to_owned(),
            Self::List(element) => format!("list of {}", element.named(dynamic)),
            Self::Set(element) => format!("set of {}", element.named(dynamic)),
            Self::Map(element) => format!("map of {}", element.named(dynamic)),
            Self::Tuple(_) => "tuple".to_owned(),
            Self::Object(_) => "object".to_owned(),
        }
    }
}

/// Returns the type to which values of all `types` convert, as branches and lists need it.
#[must_use]
pub(crate) fn unify(types: &[Type]) -> Option<Type> {
    let first = types.first()?;
    if types.iter().all(|kind| kind == first) {
        return Some(first.clone());
    }
    let mut known: Vec<&Type> = types.iter().filter(|kind| **kind != Type::Dynamic).collect();
    known.dedup();
    match known.as_slice() {
        [] => return Some(Type::Dynamic),
        [only] => return Some((*only).clone()),
        _ => {}
    }
    if known.iter().all(|kind| kind.is_primitive()) {
        // Bools and numbers both convert to text, but not to each other.
        return known.contains(&&Type::String).then_some(Type::String);
    }
    unify_collections(&known)
}

fn unify_collections(known: &[&Type]) -> Option<Type> {
    let elements: Option<Vec<(Kind, Vec<&Type>)>> = known.iter().map(|kind| parts(kind)).collect();
    let elements = elements?;
    let all: Vec<Type> =
        elements.iter().flat_map(|(_, kinds)| kinds).map(|kind| (*kind).clone()).collect();
    let is = |wanted: &[Kind]| elements.iter().all(|(kind, _)| wanted.contains(kind));
    let element = || if all.is_empty() { Some(Type::Dynamic) } else { unify(&all) };
    if is(&[Kind::Tuple]) {
        let length = elements.first()?.1.len();
        if elements.iter().all(|(_, kinds)| kinds.len() == length) {
            let columns = (0..length).map(|at| {
                let column = elements.iter().filter_map(|(_, kinds)| kinds.get(at));
                unify(&column.map(|kind| (*kind).clone()).collect::<Vec<_>>())
            });
            if let Some(columns) = columns.collect::<Option<Vec<Type>>>() {
                return Some(Type::Tuple(columns));
            }
        }
    }
    if is(&[Kind::Object]) {
        return unify_objects(known).or_else(|| element().map(Type::map));
    }
    if is(&[Kind::Tuple, Kind::List]) {
        return element().map(Type::list);
    }
    if is(&[Kind::Tuple, Kind::List, Kind::Set]) {
        return element().map(|kind| Type::Set(Box::new(kind)));
    }
    if is(&[Kind::Object, Kind::Map]) {
        return element().map(Type::map);
    }
    None
}

fn unify_objects(known: &[&Type]) -> Option<Type> {
    let objects = known.iter().filter_map(|kind| match kind {
        Type::Object(attributes) => Some(attributes),
        Type::Dynamic
        | Type::Bool
        | Type::Number
        | Type::String
        | Type::List(_)
        | Type::Set(_)
        | Type::Map(_)
        | Type::Tuple(_) => None,
    });
    let objects: Vec<_> = objects.collect();
    let first = objects.first()?;
    if !objects.iter().all(|object| object.keys().eq(first.keys())) {
        return None;
    }
    let attributes = first.keys().map(|name| {
        let kinds = objects.iter().filter_map(|object| object.get(name));
        let kind = unify(&kinds.map(|attribute| attribute.kind.clone()).collect::<Vec<_>>())?;
        Some((name.clone(), Attribute { kind, optional: false }))
    });
    Some(Type::Object(attributes.collect::<Option<_>>()?))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    Set,
    Map,
    Tuple,
    Object,
}

/// Returns the kind of a collection and the types of its elements.
fn parts(kind: &Type) -> Option<(Kind, Vec<&Type>)> {
    Some(match kind {
        Type::List(element) => (Kind::List, vec![element.as_ref()]),
        Type::Set(element) => (Kind::Set, vec![element.as_ref()]),
        Type::Map(element) => (Kind::Map, vec![element.as_ref()]),
        Type::Tuple(elements) => (Kind::Tuple, elements.iter().collect()),
        Type::Object(attributes) => {
            (Kind::Object, attributes.values().map(|attribute| &attribute.kind).collect())
        }
        Type::Dynamic | Type::Bool | Type::Number | Type::String => return None,
    })
}
