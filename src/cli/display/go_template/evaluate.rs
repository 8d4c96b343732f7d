//! Fills in templates.

use super::parse::{Call, Node, Operand, Pipeline};
use super::value::{NO_VALUE, Value};

/// Returns the text of nodes for a value of `.`.
pub(super) fn fill(nodes: &[Node], dot: &Value) -> Result<String, String> {
    let mut filler = Filler { variables: vec![(String::new(), dot.clone())], out: String::new() };
    filler.nodes(nodes, dot)?;
    Ok(filler.out)
}

struct Filler {
    /// Variables in scope, the innermost last. `$` has an empty name.
    variables: Vec<(String, Value)>,
    out: String,
}

impl Filler {
    /// Fills in a body, whose variables end with it.
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let n_outer = self.variables.len();
        let filled = nodes.iter().try_for_each(|node| self.node(node, dot));
        self.variables.truncate(n_outer);
        filled
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let text = self.pipeline(pipeline, dot)?.text()?;
                self.out.push_str(&text);
            }
            Node::Set(name, pipeline, declares) => {
                let value = self.pipeline(pipeline, dot)?;
                self.set(name, value, *declares)?;
            }
            Node::If(condition, body, otherwise) => {
                let is_true = !self.pipeline(condition, dot)?.is_empty();
                self.nodes(if is_true { body } else { otherwise }, dot)?;
            }
            Node::With(value, body, otherwise) => {
                let value = self.pipeline(value, dot)?;
                if value.is_empty() {
                    self.nodes(otherwise, dot)?;
                } else {
                    self.nodes(body, &value)?;
                }
            }
            Node::Range(names, list, body, otherwise) => {
                let list = self.pipeline(list, dot)?;
                self.range(names, list, body, otherwise, dot)?;
            }
        }
        Ok(())
    }

    fn range(
        &mut self,
        names: &[String],
        list: Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let items: Vec<(Value, Value)> = match list {
            Value::List(items) => (0..).map(Value::Number).zip(items).collect(),
            Value::Map(items) => {
                items.into_iter().map(|(key, value)| (Value::Text(key), value)).collect()
            }
            Value::Nil(_) => Vec::new(),
            other @ (Value::Bool(_)
            | Value::Number(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Struct(_)
            | Value::Unavailable(_)) => {
                return Err(format!("`range` over {} is not possible", other.kind()));
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, value) in items {
            let n_outer = self.variables.len();
            match names {
                [element] => self.variables.push((element.clone(), value.clone())),
                [index, element] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((element.clone(), value.clone()));
                }
                _ => {}
            }
            let filled = self.nodes(body, &value);
            self.variables.truncate(n_outer);
            filled?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value, declares: bool) -> Result<(), String> {
        if declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        let (_, known) = known.ok_or_else(|| format!("unknown variable ${name}"))?;
        *known = value;
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for call in pipeline {
            last = Some(self.call(call, last, dot)?);
        }
        Ok(last.unwrap_or(Value::Nil(NO_VALUE)))
    }

    fn call(&self, call: &Call, piped: Option<Value>, dot: &Value) -> Result<Value, String> {
        let arguments = call.arguments.iter().map(|argument| self.operand(argument, dot));
        let mut arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        if let Operand::Function(function) = &call.head {
            return function.call(&arguments);
        }
        if !arguments.is_empty() {
            return Err("a value that is not a function cannot have arguments".to_owned());
        }
        self.operand(&call.head, dot)
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let fields = |value: Value, names: &[String]| {
            names.iter().try_fold(value, |value, name| value.field(name))
        };
        match operand {
            Operand::Text(text) => Ok(Value::Text(text.clone())),
            Operand::Number(number) => Ok(Value::Number(*number)),
            Operand::Bool(value) => Ok(Value::Bool(*value)),
            Operand::Nil => Ok(Value::Nil("<nil>")),
            Operand::Function(function) => function.call(&[]),
            Operand::Fields(names) => fields(dot.clone(), names),
            Operand::Variable(name, names) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| format!("unknown variable ${name}"))?;
                fields(value.clone(), names)
            }
            Operand::Nested(pipeline, names) => fields(self.pipeline(pipeline, dot)?, names),
        }
    }
}
