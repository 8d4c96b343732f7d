//! The names that an expression refers to, without evaluating it.

use super::{Expr, ExprKind, Part, Step};
use crate::bake::source::Place;

/// Names in an expression, each with a position.
#[derive(Debug, Default)]
pub(crate) struct References {
    /// Free variables.
    pub variables: Vec<(String, Place)>,
    /// Called functions.
    pub functions: Vec<(String, Place)>,
}

impl References {
    /// Returns the names in an expression. `bound` are names that it gets from outside.
    #[must_use]
    pub(crate) fn of(expr: &Expr, bound: &[String]) -> Self {
        let mut references = Self::default();
        references.visit(expr, bound);
        references
    }

    fn visit(&mut self, expr: &Expr, bound: &[String]) {
        match &expr.kind {
            ExprKind::Literal(_) => {}
            ExprKind::Template(parts) | ExprKind::JsonText(_, parts) => self.parts(parts, bound),
            ExprKind::Variable(name) if !bound.contains(name) => {
                self.variables.push((name.clone(), expr.at));
            }
            ExprKind::Variable(_) => {}
            ExprKind::Traversal(source, steps) => {
                self.visit(source, bound);
                self.steps(steps, bound);
            }
            ExprKind::Call(call) => {
                self.functions.push((call.name.clone(), call.at));
                // The second argument of `convert` is a type.
                let n_values = if call.name == "convert" { 1 } else { call.arguments.len() };
                self.all(call.arguments.iter().take(n_values), bound);
            }
            ExprKind::Conditional(parts) => self.all(parts.iter(), bound),
            ExprKind::Binary(_, parts) => self.all(parts.iter(), bound),
            ExprKind::Not(operand) | ExprKind::Negate(operand) => self.visit(operand, bound),
            ExprKind::Tuple(items) => self.all(items.iter(), bound),
            ExprKind::Object(members) => {
                self.all(members.iter().flat_map(|(key, value)| [key, value]), bound);
            }
            ExprKind::For(parsed) => {
                self.visit(&parsed.collection, bound);
                let own = parsed.key_name.iter().chain([&parsed.value_name]);
                let bound: Vec<String> = bound.iter().chain(own).cloned().collect();
                self.visit(&parsed.value, &bound);
                self.all(parsed.key.iter().chain(&parsed.condition), &bound);
            }
        }
    }

    fn all<'e>(&mut self, exprs: impl Iterator<Item = &'e Expr>, bound: &[String]) {
        for expr in exprs {
            self.visit(expr, bound);
        }
    }

    fn steps(&mut self, steps: &[Step], bound: &[String]) {
        for step in steps {
            match step {
                Step::Attribute(..) => {}
                Step::Index(key) => self.visit(key, bound),
                Step::AttributeSplat(rest, _) | Step::FullSplat(rest, _) => self.steps(rest, bound),
            }
        }
    }

    fn parts(&mut self, parts: &[Part], bound: &[String]) {
        for part in parts {
            match part {
                Part::Literal(_) => {}
                Part::Value(expr) => self.visit(expr, bound),
                Part::If(condition, yes, no) => {
                    self.visit(condition, bound);
                    self.parts(yes, bound);
                    self.parts(no, bound);
                }
                Part::For { key_name, value_name, collection, body } => {
                    self.visit(collection, bound);
                    let own = key_name.iter().chain([value_name]);
                    let bound: Vec<String> = bound.iter().chain(own).cloned().collect();
                    self.parts(body, &bound);
                }
            }
        }
    }
}
