//! Functions that files define.

use super::program::Program;
use crate::bake::eval::{Scope, evaluate};
use crate::bake::functions;
use crate::bake::source::{BakeError, Place};
use crate::bake::syntax::{Block, Call, Expr, ExprKind, References, keyword};
use crate::bake::value::Value;
use crate::diag::nearest;

/// A function of a file.
struct Own<'a> {
    params: Vec<String>,
    variadic: Option<String>,
    result: &'a Expr,
}

fn own<'a>(name: &str, block: &'a Block) -> Result<Own<'a>, BakeError> {
    let attribute = |wanted: &str| {
        block.body.attribute(wanted).map(|found| &found.expr).ok_or_else(|| {
            BakeError::at(block.at, format!("the function {name:?} has no {wanted}"))
        })
    };
    let list = attribute("params")?;
    let ExprKind::Tuple(params) = &list.kind else {
        return Err(BakeError::at(list.at, "params must be a list of names"));
    };
    let named = |expr: &Expr| {
        keyword(expr).ok_or_else(|| BakeError::at(expr.at, "a parameter must be a plain name"))
    };
    let variadic = block.body.attribute("variadic_params").map(|found| named(&found.expr));
    Ok(Own {
        params: params.iter().map(named).collect::<Result<_, _>>()?,
        variadic: variadic.transpose()?,
        result: attribute("result")?,
    })
}

impl Program<'_> {
    /// Checks that all functions are complete, and that none calls itself.
    pub(super) fn check_functions(&mut self) -> Result<(), BakeError> {
        let names: Vec<&str> = self.functions.keys().copied().collect();
        for name in names {
            self.check_function(name, &mut Vec::new())?;
        }
        Ok(())
    }

    fn check_function(&mut self, name: &str, callers: &mut Vec<String>) -> Result<(), BakeError> {
        let Some(block) = self.functions.get(name).copied() else { return Ok(()) };
        if functions::exists(name) {
            // The standard function of the same name is the one that is called.
            return Ok(());
        }
        let own = own(name, block)?;
        callers.push(name.to_owned());
        let bound: Vec<String> = own.params.into_iter().chain(own.variadic).collect();
        let references = References::of(own.result, &bound);
        for (called, at) in references.functions {
            if callers.contains(&called) {
                let message = format!("the function {called:?} calls itself");
                return Err(BakeError::at(at, message).fatal());
            }
            if !functions::exists(&called) && !self.functions.contains_key(called.as_str()) {
                return Err(self.unknown_function(&called, at));
            }
            self.check_function(&called, callers)?;
        }
        for (variable, at) in references.variables {
            if !matches!(variable.as_str(), "target" | "group") {
                self.resolve(&variable, at)?;
            }
        }
        callers.pop();
        Ok(())
    }

    fn unknown_function(&self, name: &str, at: Place) -> BakeError {
        let error = BakeError::at(at, format!("unknown function {name:?}"));
        let standard = functions::names().map(|name| -> &str { name });
        let known: Vec<&str> = standard.chain(self.functions.keys().map(|name| &**name)).collect();
        match nearest(name, known.iter().copied()) {
            Some(near) => error.help(format!("did you mean {near}?")),
            None => error.help("define it with a function block, or see the list of functions"),
        }
    }

    /// Calls a function of a file.
    pub(super) fn call_own(
        &mut self,
        call: &Call,
        arguments: Vec<Value>,
        at: Place,
    ) -> Result<Value, BakeError> {
        let Some(block) = self.functions.get(call.name.as_str()).copied() else {
            return Err(self.unknown_function(&call.name, call.at));
        };
        let own = own(&call.name, block)?;
        let (given, required) = (arguments.len(), own.params.len());
        if given < required || (given > required && own.variadic.is_none()) {
            let message = format!("{} takes {required} arguments, not {given}", call.name);
            return Err(BakeError::at(at, message));
        }
        if self.calls.contains(&call.name) {
            let message = format!("the function {:?} calls itself", call.name);
            return Err(BakeError::at(call.at, message).fatal());
        }
        let mut arguments = arguments.into_iter();
        let params = own.params.into_iter().zip(arguments.by_ref());
        let mut names: std::collections::BTreeMap<String, Value> = params.collect();
        if let Some(variadic) = own.variadic {
            names.insert(variadic, Value::Tuple(arguments.collect()));
        }
        self.calls.push(call.name.clone());
        let value = evaluate(own.result, &Scope::of(names), self);
        self.calls.pop();
        value
    }
}
