//! Parses the words of actions into a tree.

use std::collections::VecDeque;

use super::functions::Function;
use super::lex::{Piece, Word, pieces};

/// Maximum depth of nested actions and parentheses, which the parser follows recursively.
const MAX_DEPTH: usize = 100;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// Prints a value.
    Print(Pipeline),
    /// Sets a variable; the flag is true for `:=`.
    Set(String, Pipeline, bool),
    If(Pipeline, Vec<Self>, Vec<Self>),
    With(Pipeline, Vec<Self>, Vec<Self>),
    /// With the names of the variables of index and element.
    Range(Vec<String>, Pipeline, Vec<Self>, Vec<Self>),
}

/// Commands, each of which gets the value of the one before as its last argument.
pub(super) type Pipeline = Vec<Call>;

/// A function or a value, with arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) head: Operand,
    pub(super) arguments: Vec<Operand>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Text(String),
    Number(i64),
    Bool(bool),
    Nil,
    Function(Function),
    Fields(Vec<String>),
    Variable(String, Vec<String>),
    Nested(Pipeline, Vec<String>),
}

/// The word that ends a list of nodes.
#[derive(Debug, PartialEq)]
enum ListEnd {
    /// The end of the template.
    Template,
    End,
    /// `else`, with the words behind it.
    Else(VecDeque<Word>),
}

/// Parses a template.
pub(super) fn nodes(text: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser { pieces: pieces(text)?.into() };
    match parser.list(0)? {
        (nodes, ListEnd::Template) => Ok(nodes),
        (_, ListEnd::End | ListEnd::Else(_)) => {
            Err("`end` or `else` without `if`, `range` or `with`".to_owned())
        }
    }
}

struct Parser {
    pieces: VecDeque<Piece>,
}

impl Parser {
    fn list(&mut self, depth: usize) -> Result<(Vec<Node>, ListEnd), String> {
        if depth > MAX_DEPTH {
            return Err(format!("actions are nested more than {MAX_DEPTH} deep"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.pop_front() {
            let (words, text) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(words, text) => (words, text),
            };
            let mut words = VecDeque::from(words);
            let shown = |error: String| format!("`{{{{{text}}}}}`: {error}");
            match keyword(&words) {
                Some("end") => return Ok((nodes, ListEnd::End)),
                Some("else") => {
                    words.pop_front();
                    return Ok((nodes, ListEnd::Else(words)));
                }
                Some(word @ ("if" | "with" | "range")) => {
                    let word = word.to_owned();
                    words.pop_front();
                    nodes.push(self.block(&word, words, depth).map_err(shown)?);
                }
                Some(word @ ("define" | "template" | "block" | "break" | "continue")) => {
                    return Err(shown(format!("`{word}` is not supported")));
                }
                _ => nodes.push(simple(words).map_err(shown)?),
            }
        }
        Ok((nodes, ListEnd::Template))
    }

    /// Parses `if`, `with` or `range` up to its `end`.
    fn block(
        &mut self,
        word: &str,
        mut words: VecDeque<Word>,
        depth: usize,
    ) -> Result<Node, String> {
        let names = if word == "range" { range_variables(&mut words) } else { Vec::new() };
        let value = whole_pipeline(words)?;
        let (body, end) = self.list(depth + 1)?;
        let otherwise = match end {
            ListEnd::End => Vec::new(),
            ListEnd::Template => return Err(format!("`{word}` has no `end`")),
            ListEnd::Else(words) if words.is_empty() => match self.list(depth + 1)? {
                (nodes, ListEnd::End) => nodes,
                (_, ListEnd::Template | ListEnd::Else(_)) => {
                    return Err("`else` has no `end`".to_owned());
                }
            },
            ListEnd::Else(mut words) => {
                let next = keyword(&words).unwrap_or_default().to_owned();
                if !matches!(next.as_str(), "if" | "with") {
                    return Err("`else` must be followed by `if` or by nothing".to_owned());
                }
                words.pop_front();
                vec![self.block(&next, words, depth + 1)?]
            }
        };
        Ok(match word {
            "if" => Node::If(value, body, otherwise),
            "with" => Node::With(value, body, otherwise),
            _ => Node::Range(names, value, body, otherwise),
        })
    }
}

fn keyword(words: &VecDeque<Word>) -> Option<&str> {
    if let Some(Word::Name(name)) = words.front() { Some(name) } else { None }
}

/// Takes `$x :=` or `$i, $x :=`.
fn range_variables(words: &mut VecDeque<Word>) -> Vec<String> {
    let name = |word: Option<&Word>| match word {
        Some(Word::Variable(name, fields)) if fields.is_empty() => Some(name.clone()),
        _ => None,
    };
    let (first, second) = (name(words.front()), name(words.get(2)));
    let names = match (first, words.get(1), second, words.get(3)) {
        (Some(first), Some(Word::Declare), ..) => vec![first],
        (Some(first), Some(Word::Comma), Some(second), Some(Word::Declare)) => vec![first, second],
        _ => Vec::new(),
    };
    words.drain(..names.len() * 2);
    names
}

/// Parses an action without a body.
fn simple(mut words: VecDeque<Word>) -> Result<Node, String> {
    let declares = match words.get(1) {
        Some(Word::Declare) => Some(true),
        Some(Word::Assign) => Some(false),
        _ => None,
    };
    let Some(declares) = declares else { return whole_pipeline(words).map(Node::Print) };
    let Some(Word::Variable(name, _)) = words.pop_front() else {
        return Err("only a variable, such as $x, can be set".to_owned());
    };
    words.pop_front();
    Ok(Node::Set(name, whole_pipeline(words)?, declares))
}

fn whole_pipeline(mut words: VecDeque<Word>) -> Result<Pipeline, String> {
    let pipeline = pipeline(&mut words, 0)?;
    match words.pop_front() {
        None => Ok(pipeline),
        Some(_) => Err("unexpected `)`, `,` or `=`".to_owned()),
    }
}

/// Parses commands up to `)` or the end.
fn pipeline(words: &mut VecDeque<Word>, depth: usize) -> Result<Pipeline, String> {
    if depth > MAX_DEPTH {
        return Err(format!("parentheses are nested more than {MAX_DEPTH} deep"));
    }
    let mut calls = Vec::new();
    loop {
        let head = operand(words, depth)?.ok_or("a value is missing")?;
        let mut arguments = Vec::new();
        while let Some(argument) = operand(words, depth)? {
            arguments.push(argument);
        }
        calls.push(Call { head, arguments });
        if words.front() != Some(&Word::Pipe) {
            return Ok(calls);
        }
        words.pop_front();
    }
}

/// Takes an operand. `None` at the end of a command.
fn operand(words: &mut VecDeque<Word>, depth: usize) -> Result<Option<Operand>, String> {
    let ends = matches!(
        words.front(),
        None | Some(Word::Pipe | Word::Close(_) | Word::Comma | Word::Declare | Word::Assign)
    );
    if ends {
        return Ok(None);
    }
    words
        .pop_front()
        .map(|word| match word {
            Word::Text(text) => Ok(Operand::Text(text)),
            Word::Number(number) => Ok(Operand::Number(number)),
            Word::Fields(fields) => Ok(Operand::Fields(fields)),
            Word::Variable(name, fields) => Ok(Operand::Variable(name, fields)),
            Word::Name(name) => match name.as_str() {
                "true" => Ok(Operand::Bool(true)),
                "false" => Ok(Operand::Bool(false)),
                "nil" => Ok(Operand::Nil),
                name => Function::of_name(name).map(Operand::Function),
            },
            Word::Open => {
                let inner = pipeline(words, depth + 1)?;
                match words.pop_front() {
                    Some(Word::Close(fields)) => Ok(Operand::Nested(inner, fields)),
                    _ => Err("`(` has no `)`".to_owned()),
                }
            }
            Word::Pipe | Word::Close(_) | Word::Comma | Word::Declare | Word::Assign => {
                Err("a value is missing".to_owned())
            }
        })
        .transpose()
}
