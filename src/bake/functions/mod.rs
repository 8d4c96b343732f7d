//! The functions of buildx (`bake/hclparser/stdlib.go`), most of them from cty's standard library.
//!
//! `try`, `can` and `convert` are not here: they need their arguments unevaluated.

mod arguments;
mod cidr;
mod collections;
mod dates;
mod digests;
mod encoding;
mod format;
mod lists;
mod numbers;
mod patterns;
mod semver;
mod sets;
mod table;
mod text;

use super::value::{Type, Value, convert};
pub use digests::Randomness;

/// The facts about the user and the time that functions return.
#[derive(Debug, Clone)]
pub struct Ambient {
    /// Seconds since 1970.
    pub now_s: i64,
    /// Home directory of the user.
    pub home: String,
    /// Source of UUIDs and salts.
    pub randomness: Randomness,
}

/// The type that a function requires of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Param {
    /// Text.
    Text,
    /// A number.
    Number,
    /// A bool.
    Bool,
    /// Any value but null.
    Any,
    /// Any value.
    Nullable,
    /// A list of text.
    Texts,
    /// A list.
    List,
    /// A set.
    Set,
}

impl Param {
    fn kind(self) -> Type {
        match self {
            Self::Text => Type::String,
            Self::Number => Type::Number,
            Self::Bool => Type::Bool,
            Self::Any | Self::Nullable => Type::Dynamic,
            Self::Texts => Type::String.list(),
            Self::List => Type::Dynamic.list(),
            Self::Set => Type::Set(Box::new(Type::Dynamic)),
        }
    }
}

/// The result of a function, or why it refuses its arguments.
type Outcome = Result<Value, String>;

#[derive(Clone, Copy)]
enum Run {
    Pure(fn(&[Value]) -> Outcome),
    Ambient(fn(&[Value], &mut Ambient) -> Outcome),
}

/// A function: the types of its arguments, and what it does.
#[derive(Clone, Copy)]
struct Function {
    name: &'static str,
    params: &'static [Param],
    /// Type of any further arguments.
    variadic: Option<Param>,
    run: Run,
}

/// Returns whether there is a function of this name.
#[must_use]
pub(crate) fn exists(name: &str) -> bool {
    matches!(name, "try" | "can" | "convert") || find(name).is_some()
}

/// Returns the names of all functions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let tables = table::ALL.iter().copied().flatten();
    tables.map(|function| function.name).chain(["try", "can", "convert"])
}

fn find(name: &str) -> Option<&'static Function> {
    table::ALL.iter().copied().flatten().find(|function| function.name == name)
}

/// Calls a function of the standard list. `None` if there is none of this name.
#[must_use]
pub(crate) fn call(name: &str, arguments: &[Value], ambient: &mut Ambient) -> Option<Outcome> {
    let function = find(name)?;
    Some(run(function, arguments, ambient))
}

fn run(function: &Function, arguments: &[Value], ambient: &mut Ambient) -> Outcome {
    let n_required = function.params.len();
    let too_many = arguments.len() > n_required && function.variadic.is_none();
    if arguments.len() < n_required || too_many {
        let at_least = if function.variadic.is_some() { "at least " } else { "" };
        let plural = if n_required == 1 { "" } else { "s" };
        let given = arguments.len();
        return Err(format!("takes {at_least}{n_required} argument{plural}, not {given}"));
    }
    let params = function.params.iter().copied();
    let params = params.chain(std::iter::repeat_n(function.variadic, arguments.len()).flatten());
    let converted = arguments.iter().zip(params).enumerate().map(|(at, (value, param))| {
        if value.is_null() && param != Param::Nullable {
            return Err(format!("argument {} must not be null", at + 1));
        }
        convert(value, &param.kind()).map_err(|error| format!("argument {}: {error}", at + 1))
    });
    let converted: Vec<Value> = converted.collect::<Result<_, String>>()?;
    match function.run {
        Run::Pure(run) => run(&converted),
        Run::Ambient(run) => run(&converted, ambient),
    }
}
