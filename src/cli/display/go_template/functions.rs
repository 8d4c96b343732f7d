//! The functions of templates: Go's own (<https://pkg.go.dev/text/template#hdr-Functions>), and docker's `json`.

use std::cmp::Ordering;

use crate::oci;

use super::value::{NO_VALUE, Value, quoted};

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Index,
    Len,
    Json,
    Print,
    Printf,
    Println,
}

const NAMES: [(&str, Function); 15] = [
    ("and", Function::And),
    ("or", Function::Or),
    ("not", Function::Not),
    ("eq", Function::Eq),
    ("ne", Function::Ne),
    ("lt", Function::Lt),
    ("le", Function::Le),
    ("gt", Function::Gt),
    ("ge", Function::Ge),
    ("index", Function::Index),
    ("len", Function::Len),
    ("json", Function::Json),
    ("print", Function::Print),
    ("printf", Function::Printf),
    ("println", Function::Println),
];

impl Function {
    pub(super) fn of_name(name: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, function)| *function).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            format!("unknown function `{name}`: use one of {}", known.join(", "))
        })
    }

    fn name(self) -> &'static str {
        let found = NAMES.iter().find(|(_, function)| *function == self);
        found.map(|(name, _)| *name).expect("the table has every function")
    }

    /// Calls the function.
    ///
    /// # Errors
    /// If the function does not accept the arguments.
    pub(super) fn call(self, arguments: &[Value]) -> Result<Value, String> {
        let n_given = arguments.len();
        let wrong = || format!("`{}` does not take {n_given} arguments", self.name());
        match (self, arguments) {
            (Self::And, [_, ..]) => Ok(pick(arguments, Value::is_empty)),
            (Self::Or, [_, ..]) => Ok(pick(arguments, |value| !value.is_empty())),
            (Self::Not, [value]) => Ok(Value::Bool(value.is_empty())),
            (Self::Eq, [value, others @ ..]) if !others.is_empty() => {
                let is_equal = |other| Ok::<_, String>(compare(value, other)? == Ordering::Equal);
                let equal = others.iter().map(is_equal).collect::<Result<Vec<_>, _>>()?;
                Ok(Value::Bool(equal.contains(&true)))
            }
            (Self::Ne, [a, b]) => Ok(Value::Bool(compare(a, b)? != Ordering::Equal)),
            (Self::Lt, [a, b]) => Ok(Value::Bool(compare(a, b)?.is_lt())),
            (Self::Le, [a, b]) => Ok(Value::Bool(compare(a, b)?.is_le())),
            (Self::Gt, [a, b]) => Ok(Value::Bool(compare(a, b)?.is_gt())),
            (Self::Ge, [a, b]) => Ok(Value::Bool(compare(a, b)?.is_ge())),
            (Self::Index, [value, keys @ ..]) => {
                keys.iter().try_fold(value.clone(), |value, key| element(&value, key))
            }
            (Self::Len, [value]) => length(value),
            (Self::Json, [value]) => json(value),
            (Self::Print, _) => {
                arguments.iter().map(Value::text).collect::<Result<_, _>>().map(Value::Text)
            }
            (Self::Println, _) => {
                let texts = arguments.iter().map(Value::text).collect::<Result<Vec<_>, _>>()?;
                Ok(Value::Text(texts.join(" ") + "\n"))
            }
            (Self::Printf, [Value::Text(format), values @ ..]) => formatted(format, values),
            _ => Err(wrong()),
        }
    }
}

/// Returns the first value that `is_it`, or else the last.
fn pick(values: &[Value], is_it: impl Fn(&Value) -> bool) -> Value {
    let found = values.iter().find(|value| is_it(value)).or(values.last());
    found.cloned().unwrap_or(Value::Nil(NO_VALUE))
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Nil(_), Value::Nil(_)) => Ok(Ordering::Equal),
        (Value::Nil(_), _) => Ok(Ordering::Less),
        (_, Value::Nil(_)) => Ok(Ordering::Greater),
        _ => Err(format!("{} cannot be compared with {}", a.kind(), b.kind())),
    }
}

/// Returns the element of a list, or the value of a key of a map.
fn element(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Map(items), Value::Text(key)) => Ok(match items.get(key) {
            Some(value) => value.clone(),
            // The zero value of the elements, which are structs or texts.
            None if items.values().any(|value| matches!(value, Value::Struct(_))) => {
                Value::Nil("<nil>")
            }
            None => Value::Text(String::new()),
        }),
        (Value::List(items), Value::Number(at)) => {
            let item = usize::try_from(*at).ok().and_then(|at| items.get(at));
            item.cloned()
                .ok_or_else(|| format!("the list has no element {at}: it has {}", items.len()))
        }
        _ => Err(format!("`index` of {} does not accept {}", value.kind(), key.kind())),
    }
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(items) => items.len(),
        Value::Nil(_) => 0,
        Value::Bool(_)
        | Value::Number(_)
        | Value::Float(_)
        | Value::Struct(_)
        | Value::Unavailable(_) => return Err(format!("{} has no length", value.kind())),
    };
    Ok(Value::Number(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn json(value: &Value) -> Result<Value, String> {
    if let Value::Unavailable(why) = value {
        return Err((*why).to_owned());
    }
    let bytes = oci::pretty_as_go(value);
    String::from_utf8(bytes).map(Value::Text).map_err(|error| error.to_string())
}

/// Formats values with the verbs `%s`, `%v`, `%d`, `%q` and `%%`.
fn formatted(format: &str, values: &[Value]) -> Result<Value, String> {
    let mut text = String::new();
    let mut values = values.iter();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let verb = chars.next().ok_or("`printf`: the format ends with `%`")?;
        if verb == '%' {
            text.push('%');
            continue;
        }
        let value = values.next().ok_or("`printf` has fewer values than its format")?;
        match (verb, value) {
            ('q', value) => text.push_str(&quoted(&value.text()?)),
            ('s' | 'v', value) | ('d', value @ Value::Number(_)) => text.push_str(&value.text()?),
            _ => return Err(format!("`printf` does not support `%{verb}` of {}", value.kind())),
        }
    }
    match values.next() {
        None => Ok(Value::Text(text)),
        Some(_) => Err("`printf` has more values than its format".to_owned()),
    }
}
