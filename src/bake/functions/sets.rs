//! Functions of sets.

use std::collections::BTreeMap;

use super::arguments::{any, sequence};
use super::lists::element_kind;
use super::{Function, Outcome, Param, Run};
use crate::bake::value::{Type, Value, convert, to_json, unify};
use crate::limits::MAX_BAKE_ELEMENTS;

const fn variadic(
    name: &'static str,
    params: &'static [Param],
    param: Param,
    run: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, variadic: Some(param), run: Run::Pure(run) }
}

const ONE: &[Param] = &[Param::Set];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "sethaselement",
        params: &[Param::Set, Param::Any],
        variadic: None,
        run: Run::Pure(|a| {
            let wanted = any(a, 1)?;
            let wanted = convert(wanted, &element_kind(any(a, 0)?));
            let found = |wanted: Value| sequence(a, 0).map(|s| s.iter().any(|v| v.equals(&wanted)));
            Ok(Value::Bool(wanted.ok().map(found).transpose()?.unwrap_or(false)))
        }),
    },
    variadic("setintersection", ONE, Param::Set, |a| counted(a, |n, sets| n == sets)),
    Function {
        name: "setproduct",
        params: &[],
        variadic: Some(Param::Any),
        run: Run::Pure(product),
    },
    Function {
        name: "setsubtract",
        params: &[Param::Set, Param::Set],
        variadic: None,
        run: Run::Pure(subtract),
    },
    variadic("setsymmetricdifference", ONE, Param::Set, |a| counted(a, |n, _| n % 2 == 1)),
    variadic("setunion", ONE, Param::Set, |a| counted(a, |_, _| true)),
];

/// Converts all sets to sets of their common type.
fn alike(values: &[Value]) -> Result<(Type, Vec<Vec<Value>>), String> {
    let kinds: Vec<Type> = values.iter().map(element_kind).collect();
    let kind = unify(&kinds).ok_or("the sets have elements of different types")?;
    let sets = values.iter().map(|value| {
        let set = convert(value, &Type::Set(Box::new(kind.clone())))?;
        Ok(set.as_sequence().unwrap_or(&[]).to_vec())
    });
    let sets = sets.collect::<Result<_, String>>()?;
    Ok((kind, sets))
}

/// Returns the values for whose number of sets `wanted` holds.
fn counted(values: &[Value], wanted: fn(usize, usize) -> bool) -> Outcome {
    let (kind, sets) = alike(values)?;
    let n_sets = sets.len();
    let mut counts: BTreeMap<String, (Value, usize)> = BTreeMap::new();
    for value in sets.into_iter().flatten() {
        counts.entry(to_json(&value)).or_insert((value, 0)).1 += 1;
    }
    let kept = counts.into_values().filter(|(_, n)| wanted(*n, n_sets));
    Ok(Value::set(kind, kept.map(|(value, _)| value).collect()))
}

fn subtract(values: &[Value]) -> Outcome {
    let (kind, sets) = alike(values)?;
    let [first, second] = sets.as_slice() else { return Err("needs two sets".to_owned()) };
    let kept = first.iter().filter(|value| !second.iter().any(|other| other.equals(value)));
    Ok(Value::set(kind, kept.cloned().collect()))
}

/// Returns all combinations with one element of each list.
fn product(values: &[Value]) -> Outcome {
    if values.len() < 2 {
        return Err("needs at least two lists or sets".to_owned());
    }
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for at in 0..values.len() {
        let list = sequence(values, at)?;
        if rows.len().saturating_mul(list.len()) > MAX_BAKE_ELEMENTS {
            return Err(format!("has more than {MAX_BAKE_ELEMENTS} combinations"));
        }
        rows = rows
            .iter()
            .flat_map(|row| {
                list.iter().map(|value| [row.as_slice(), std::slice::from_ref(value)].concat())
            })
            .collect();
    }
    let rows: Vec<Value> = rows.into_iter().map(Value::Tuple).collect();
    if values.iter().all(|value| matches!(value, Value::Set(..))) {
        let kinds = values.iter().map(element_kind).collect();
        return Ok(Value::set(Type::Tuple(kinds), rows));
    }
    Ok(match convert(&Value::Tuple(rows.clone()), &Type::Dynamic.list()) {
        Ok(list) => list,
        Err(_) => Value::Tuple(rows),
    })
}
