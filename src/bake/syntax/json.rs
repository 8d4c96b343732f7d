//! HCL's JSON notation (github.com/hashicorp/hcl, json/spec.md).
//!
//! The parser is ours because it must keep positions, repeated members and their order.

use super::native::parse_template;
use super::{Attribute, Block, Body, Expr, ExprKind};
use crate::bake::source::{BakeError, Place};
use crate::bake::value::{Number, Type, Value};
use crate::diag::Span;
use crate::limits::MAX_BAKE_DEPTH;

/// The blocks of a file with one label.
const LABELLED: [&str; 4] = ["group", "target", "variable", "function"];

/// A JSON value with its position.
#[derive(Debug, Clone)]
struct Node {
    kind: NodeKind,
    span: Span,
}

#[derive(Debug, Clone)]
enum NodeKind {
    Null,
    Bool(bool),
    Number(Number),
    /// Decoded text; the flag is set if it stands in the source without escapes.
    Text(String, bool),
    Array(Vec<Node>),
    Object(Vec<Member>),
}

#[derive(Debug, Clone)]
struct Member {
    name: String,
    exact: bool,
    span: Span,
    value: Node,
}

/// Reads a file in JSON.
///
/// # Errors
/// The syntax is wrong, or a block is not an object.
pub(crate) fn parse_json(text: &str, file: usize) -> Result<Body, BakeError> {
    let mut reader = Reader { text, at: 0, file };
    let root = reader.value(0)?;
    reader.blanks();
    if reader.at < text.len() {
        return Err(reader.error(reader.at, "text follows the JSON value"));
    }
    let mut body = Body::default();
    for members in objects(&root, file)? {
        for member in members.iter().filter(|member| member.name != "//") {
            if LABELLED.contains(&member.name.as_str()) {
                labelled(member, file, &mut body)?;
            } else {
                body.attributes.push(attribute(member, file)?);
            }
        }
    }
    Ok(body)
}

/// Adds the blocks of a member such as `"target": {"app": {…}}`.
fn labelled(member: &Member, file: usize, body: &mut Body) -> Result<(), BakeError> {
    for labels in objects(&member.value, file)? {
        for label in labels.iter().filter(|label| label.name != "//") {
            for members in objects(&label.value, file)? {
                let at = Place::new(file, label.span);
                body.blocks.push(Block {
                    kind: member.name.clone(),
                    labels: vec![(label.name.clone(), at)],
                    at,
                    body: content(&member.name, members, file)?,
                });
            }
        }
    }
    Ok(())
}

fn content(kind: &str, members: &[Member], file: usize) -> Result<Body, BakeError> {
    let mut body = Body::default();
    for member in members.iter().filter(|member| member.name != "//") {
        if kind == "variable" && member.name == "validation" {
            for members in objects(&member.value, file)? {
                body.blocks.push(Block {
                    kind: member.name.clone(),
                    labels: Vec::new(),
                    at: Place::new(file, member.span),
                    body: content("validation", members, file)?,
                });
            }
        } else if body.attribute(&member.name).is_some() {
            let message = format!("argument {:?} is set twice in one block", member.name);
            return Err(BakeError::syntax(Place::new(file, member.span), message));
        } else {
            body.attributes.push(attribute(member, file)?);
        }
    }
    Ok(body)
}

/// Returns the objects of a value: itself, or the elements of an array.
fn objects(node: &Node, file: usize) -> Result<Vec<&[Member]>, BakeError> {
    match &node.kind {
        NodeKind::Object(members) => Ok(vec![members]),
        NodeKind::Array(items) => {
            let nested = items.iter().map(|item| objects(item, file));
            Ok(nested.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        }
        NodeKind::Null => Ok(Vec::new()),
        NodeKind::Bool(_) | NodeKind::Number(_) | NodeKind::Text(..) => {
            let at = Place::new(file, node.span);
            Err(BakeError::syntax(at, "a JSON object is required here, for the members of a block"))
        }
    }
}

fn attribute(member: &Member, file: usize) -> Result<Attribute, BakeError> {
    let at = Place::new(file, member.span);
    Ok(Attribute { name: member.name.clone(), at, expr: expression(&member.value, file)? })
}

fn expression(node: &Node, file: usize) -> Result<Expr, BakeError> {
    let at = Place::new(file, node.span);
    let kind = match &node.kind {
        NodeKind::Null => ExprKind::Literal(Value::Null(Type::Dynamic)),
        NodeKind::Bool(value) => ExprKind::Literal(Value::Bool(*value)),
        NodeKind::Number(number) => ExprKind::Literal(Value::Number(number.clone())),
        NodeKind::Text(text, exact) => return parse_template(text, at, *exact),
        NodeKind::Array(items) => {
            let items = items.iter().map(|item| expression(item, file));
            ExprKind::Tuple(items.collect::<Result<_, _>>()?)
        }
        NodeKind::Object(members) => {
            let members = members.iter().map(|member| {
                let name = Place::new(file, member.span);
                let key = parse_template(&member.name, name, member.exact)?;
                Ok((key, expression(&member.value, file)?))
            });
            ExprKind::Object(members.collect::<Result<_, BakeError>>()?)
        }
    };
    Ok(Expr { kind, at })
}

/// Reads JSON values from a text.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    file: usize,
}

impl Reader<'_> {
    fn error(&self, at: usize, message: impl Into<String>) -> BakeError {
        BakeError::syntax(Place::new(self.file, Span::at(at.min(self.text.len()))), message)
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn accept(&mut self, text: &str) -> bool {
        let accepted = self.rest().starts_with(text);
        if accepted {
            self.at += text.len();
        }
        accepted
    }

    fn value(&mut self, depth: usize) -> Result<Node, BakeError> {
        self.blanks();
        if depth > MAX_BAKE_DEPTH {
            let message = format!("more than {MAX_BAKE_DEPTH} levels are inside one another");
            return Err(self.error(self.at, message));
        }
        let start = self.at;
        let kind = match self.rest().chars().next() {
            Some('{') => self.object(depth)?,
            Some('[') => self.array(depth)?,
            Some('"') => {
                let (text, exact) = self.string()?;
                NodeKind::Text(text, exact)
            }
            _ if self.accept("null") => NodeKind::Null,
            _ if self.accept("true") => NodeKind::Bool(true),
            _ if self.accept("false") => NodeKind::Bool(false),
            Some(c) if c == '-' || c.is_ascii_digit() => self.number()?,
            _ => return Err(self.error(start, "a JSON value is required here")),
        };
        Ok(Node { kind, span: Span::new(start, self.at) })
    }

    fn number(&mut self) -> Result<NodeKind, BakeError> {
        let start = self.at;
        let part = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
        let rest = self.rest();
        let text: String = rest.chars().take_while(|c| part(*c)).collect();
        self.at += text.len();
        let number = Number::parse(&text);
        number.map(NodeKind::Number).ok_or_else(|| self.error(start, "bad number"))
    }

    /// Reads elements up to `close`; `element` reads one of them.
    fn items(
        &mut self,
        close: &str,
        mut element: impl FnMut(&mut Self) -> Result<(), BakeError>,
    ) -> Result<(), BakeError> {
        self.at += 1;
        self.blanks();
        if self.accept(close) {
            return Ok(());
        }
        loop {
            element(self)?;
            self.blanks();
            if self.accept(close) {
                return Ok(());
            }
            if !self.accept(",") {
                let message = format!("a comma or \"{close}\" is required here");
                return Err(self.error(self.at, message));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<NodeKind, BakeError> {
        let mut items = Vec::new();
        self.items("]", |reader| {
            items.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        Ok(NodeKind::Array(items))
    }

    fn object(&mut self, depth: usize) -> Result<NodeKind, BakeError> {
        let mut members = Vec::new();
        self.items("}", |reader| {
            reader.blanks();
            let start = reader.at;
            if !reader.rest().starts_with('"') {
                return Err(reader.error(start, "a member's name in quotes is required here"));
            }
            let (name, exact) = reader.string()?;
            let span = Span::new(start, reader.at);
            reader.blanks();
            if !reader.accept(":") {
                return Err(reader.error(reader.at, "a colon is required after a member's name"));
            }
            let value = reader.value(depth + 1)?;
            members.push(Member { name, exact, span, value });
            Ok(())
        })?;
        Ok(NodeKind::Object(members))
    }

    /// Reads a string at a quote. Returns its text, and whether it has no escapes.
    fn string(&mut self) -> Result<(String, bool), BakeError> {
        let start = self.at;
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let Some((end, _)) = end else {
            return Err(self.error(start, "the string has no closing quote"));
        };
        let quoted = rest.get(..=end).unwrap_or("").to_owned();
        let text: Option<String> = serde_json::from_str(&quoted).ok();
        let text = text.ok_or_else(|| {
            self.error(start, "the string has a bad escape or a control character")
        })?;
        self.at += quoted.len();
        let exact = !quoted.contains('\\');
        Ok((text, exact))
    }
}
