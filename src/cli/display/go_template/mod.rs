//! Templates in Go's syntax (<https://pkg.go.dev/text/template>), as docker's `--format` has them.
//!
//! The language without definitions of templates (`define`, `block`, `template`) and without methods.
//! `parse` reads a template, `evaluate` fills it in; values are those of Go types, see `value`.

mod evaluate;
mod functions;
mod lex;
mod parse;
mod value;

pub(crate) use value::{Field, Shape, Value, optional_field, struct_field};

use parse::Node;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GoTemplate {
    nodes: Vec<Node>,
}

impl GoTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// A text that names the action that cannot be parsed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { nodes: parse::nodes(text)? })
    }

    /// Returns the text of the template for a value of `.`.
    ///
    /// # Errors
    /// A text that names the field or function that fails.
    pub(crate) fn fill(&self, dot: &Value) -> Result<String, String> {
        evaluate::fill(&self.nodes, dot)
    }
}

#[cfg(test)]
mod tests;
