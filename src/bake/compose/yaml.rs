//! YAML as a tree with positions (YAML 1.2, with the merge keys that compose files use).

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span as Source, Tag};

use crate::bake::source::{BakeError, Place};
use crate::diag::Span;
use crate::limits::{MAX_BAKE_DEPTH, MAX_BAKE_VALUE_BYTES};

/// A value with its position.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) at: Place,
    pub(super) tag: MergeTag,
}

/// The tags of compose for merging (`!reset` and `!override`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MergeTag {
    None,
    Reset,
    Override,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum NodeKind {
    Null,
    /// A bool, a number, or text; the text is that of the value.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Place, Node)>),
}

impl Node {
    pub(super) const fn new(kind: NodeKind, at: Place) -> Self {
        Self { kind, at, tag: MergeTag::None }
    }

    /// Returns the value of a member.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.members()?.iter().find(|(own, ..)| own == name).map(|(_, _, value)| value)
    }

    pub(super) fn members(&self) -> Option<&[(String, Place, Self)]> {
        match &self.kind {
            NodeKind::Map(members) => Some(members),
            NodeKind::Null | NodeKind::Scalar(_) | NodeKind::List(_) => None,
        }
    }

    pub(super) fn items(&self) -> Option<&[Self]> {
        match &self.kind {
            NodeKind::List(items) => Some(items),
            NodeKind::Null | NodeKind::Scalar(_) | NodeKind::Map(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar(text) => Some(text),
            NodeKind::Null | NodeKind::List(_) | NodeKind::Map(_) => None,
        }
    }

    pub(super) const fn is_null(&self) -> bool {
        matches!(self.kind, NodeKind::Null)
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.kind {
                NodeKind::Null => 0,
                NodeKind::Scalar(text) => text.len(),
                NodeKind::List(items) => items.iter().map(Self::bytes).sum(),
                NodeKind::Map(members) => {
                    members.iter().map(|(name, _, value)| name.len() + value.bytes()).sum()
                }
            }
    }
}

/// Reads the first document of a file.
pub(super) fn parse(text: &str, file: usize) -> Result<Node, BakeError> {
    let options = granit_parser::options! { emit_comments: false };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { parser, file, text, anchors: BTreeMap::new(), n_bytes: 0 };
    loop {
        let Some((event, span)) = reader.next()? else {
            return Ok(Node::new(NodeKind::Null, Place::new(file, Span::default())));
        };
        if event == Event::StreamEnd {
            return Ok(Node::new(NodeKind::Null, Place::new(file, Span::default())));
        }
        if !matches!(event, Event::StreamStart | Event::DocumentStart(..)) {
            return reader.node(event, &span, 0);
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    file: usize,
    text: &'t str,
    anchors: BTreeMap<usize, Node>,
    n_bytes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Source)>, BakeError> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok(found)) => Ok(Some(found)),
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or(self.text.len());
                let place = Place::new(self.file, Span::at(at.min(self.text.len())));
                Err(BakeError::syntax(place, error.info()))
            }
        }
    }

    fn place(&self, span: &Source) -> Place {
        let range = span.byte_range().unwrap_or(0..0);
        Place::new(self.file, Span::new(range.start, range.end))
    }

    fn node(&mut self, event: Event<'t>, span: &Source, depth: usize) -> Result<Node, BakeError> {
        let at = self.place(span);
        if depth > MAX_BAKE_DEPTH {
            let message = format!("more than {MAX_BAKE_DEPTH} levels are inside one another");
            return Err(BakeError::syntax(at, message));
        }
        if let Event::Alias(id) = event {
            return self.alias(id, at);
        }
        let (kind, anchor, tag) = if let Event::Scalar(text, style, anchor, tag) = event {
            (scalar(&text, style, tag.as_deref()), anchor, tag)
        } else if let Event::SequenceStart(_, anchor, tag) = event {
            (self.list(depth)?, anchor, tag)
        } else if let Event::MappingStart(_, anchor, tag) = event {
            (self.map(depth)?, anchor, tag)
        } else {
            return Err(BakeError::syntax(at, "a value is required here"));
        };
        let tag = match tag.as_deref().map(|tag| tag.suffix()) {
            Some("reset") => MergeTag::Reset,
            Some("override") => MergeTag::Override,
            _ => MergeTag::None,
        };
        let node = Node { kind, at, tag };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, at: Place) -> Result<Node, BakeError> {
        let found = self.anchors.get(&id).cloned();
        let found = found
            .ok_or_else(|| BakeError::syntax(at, "the alias refers to a value that contains it"))?;
        // A few lines of aliases of aliases could denote more than memory holds.
        self.n_bytes = self.n_bytes.saturating_add(found.bytes());
        if self.n_bytes > MAX_BAKE_VALUE_BYTES {
            return Err(BakeError::syntax(at, "the aliases of the file denote too much"));
        }
        Ok(found)
    }

    fn list(&mut self, depth: usize) -> Result<NodeKind, BakeError> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, &span, depth + 1)?);
        }
        Ok(NodeKind::List(items))
    }

    fn map(&mut self, depth: usize) -> Result<NodeKind, BakeError> {
        let mut members: Vec<(String, Place, Node)> = Vec::new();
        let mut merged = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let at = self.place(&span);
            let Event::Scalar(name, ..) = event else {
                return Err(BakeError::syntax(at, "a key must be a plain text"));
            };
            let Some((event, span)) = self.next()? else { break };
            let value = self.node(event, &span, depth + 1)?;
            if name == "<<" {
                merged.push(value);
            } else if members.iter().any(|(own, ..)| *own == name) {
                return Err(BakeError::syntax(at, format!("the key {name:?} is repeated")));
            } else {
                members.push((name.into_owned(), at, value));
            }
        }
        for source in merged {
            let maps = match source.items() {
                Some(items) => items.to_vec(),
                None => vec![source],
            };
            for (name, at, value) in maps.iter().filter_map(Node::members).flatten() {
                if !members.iter().any(|(own, ..)| own == name) {
                    members.push((name.clone(), *at, value.clone()));
                }
            }
        }
        Ok(NodeKind::Map(members))
    }
}

/// Returns the value of a scalar; numbers as Go's `fmt.Sprint` writes them.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> NodeKind {
    let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix() == "str");
    if is_text {
        return NodeKind::Scalar(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return NodeKind::Null,
        "true" | "True" | "TRUE" => return NodeKind::Scalar("true".to_owned()),
        "false" | "False" | "FALSE" => return NodeKind::Scalar("false".to_owned()),
        _ => {}
    }
    NodeKind::Scalar(integer(text).or_else(|| float(text)).unwrap_or_else(|| text.to_owned()))
}

/// Returns the digits of an integer in any of YAML's notations.
fn integer(text: &str) -> Option<String> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)];
    let radix = prefixes.iter().find_map(|(prefix, radix)| {
        let rest = digits.strip_prefix(prefix).filter(|rest| !rest.is_empty())?;
        Some((rest, *radix))
    });
    let (digits, radix) = radix.unwrap_or((digits, 10));
    let first = digits.chars().next()?;
    let value = u64::from_str_radix(digits, radix).ok().filter(|_| first.is_ascii_hexdigit())?;
    Some(if value == 0 { "0".to_owned() } else { format!("{sign}{value}") })
}

fn float(text: &str) -> Option<String> {
    let valid = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
    let plain = text.chars().all(valid) && text.chars().any(|c| c.is_ascii_digit());
    let value: f64 = text.parse().ok().filter(|_| plain)?;
    let text = format!("{value:e}");
    let exponent: i32 = text.split_once('e')?.1.parse().ok()?;
    if (-4..21).contains(&exponent) {
        return Some(format!("{value}"));
    }
    let (mantissa, _) = text.split_once('e')?;
    let sign = if exponent < 0 { '-' } else { '+' };
    Some(format!("{mantissa}e{sign}{:02}", exponent.abs()))
}
