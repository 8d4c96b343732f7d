//! Reads the grammar files, in the notation of `grammar/README.md`.
#![expect(
    clippy::string_slice,
    reason = "the grammar files are trusted, and tests panic on failure"
)]

use std::collections::BTreeMap;

/// Nodes of a production's right side. The number of a branching node is unique within its
/// production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expr {
    Sequence(Vec<Expr>),
    Choice(usize, Vec<Expr>),
    Optional(usize, Box<Expr>),
    Repeat(usize, Box<Expr>),
    Literal(String),
    Name(String),
    Special(String),
}

impl Expr {
    /// Calls `visit` for this expression and all below it.
    pub(crate) fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        visit(self);
        match self {
            Self::Sequence(parts) | Self::Choice(_, parts) => {
                parts.iter().for_each(|part| part.walk(visit));
            }
            Self::Optional(_, part) | Self::Repeat(_, part) => part.walk(visit),
            Self::Literal(_) | Self::Name(_) | Self::Special(_) => {}
        }
    }
}

/// The productions of some files, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grammar {
    pub(crate) productions: BTreeMap<String, Expr>,
}

impl Grammar {
    /// Adds the productions of `text`.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), String> {
        let tokens = tokens(text)?;
        let mut reader = Reader { tokens: &tokens, at: 0, branches: 0 };
        while reader.at < tokens.len() {
            reader.branches = 0;
            let Some(Token::Name(name)) = reader.next() else {
                return Err(reader.expected("a name"));
            };
            reader.punctuation('=')?;
            let expr = reader.choice()?;
            reader.punctuation(';')?;
            if self.productions.insert(name.clone(), expr).is_some() {
                return Err(format!("`{name}` is defined twice"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    Literal(String),
    Special(String),
    Punctuation(char),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(char) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("(*") {
            rest = comment.split_once("*)").ok_or("a comment is not closed")?.1;
        } else if char == '"' {
            let (literal, after) = literal(&rest[1..])?;
            tokens.push(Token::Literal(literal));
            rest = after;
        } else if let Some(special) = rest.strip_prefix('?') {
            let (name, after) = special.split_once('?').ok_or("a `?` is not closed")?;
            tokens.push(Token::Special(name.trim().to_owned()));
            rest = after;
        } else if char.is_ascii_alphabetic() {
            let end = rest
                .find(|char: char| !char.is_ascii_alphanumeric() && char != '_')
                .unwrap_or(rest.len());
            tokens.push(Token::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            tokens.push(Token::Punctuation(char));
            rest = &rest[char.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn literal(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => return Ok((value, chars.as_str())),
            '\\' => value.push(match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(char @ ('"' | '\\')) => char,
                other => return Err(format!("bad escape {other:?} in a literal")),
            }),
            char => value.push(char),
        }
    }
    Err("a literal is not closed".to_owned())
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    branches: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Token> {
        self.at += 1;
        self.tokens.get(self.at - 1)
    }

    fn expected(&self, what: &str) -> String {
        let near = self.tokens.get(self.at.saturating_sub(3)..self.at);
        format!("expected {what} near {near:?}")
    }

    fn punctuation(&mut self, char: char) -> Result<(), String> {
        match self.next() {
            Some(Token::Punctuation(found)) if *found == char => Ok(()),
            _ => Err(self.expected(&format!("`{char}`"))),
        }
    }

    fn branch(&mut self) -> usize {
        self.branches += 1;
        self.branches
    }

    fn choice(&mut self) -> Result<Expr, String> {
        let number = self.branch();
        let mut alternatives = vec![self.sequence()?];
        while self.peek() == Some(&Token::Punctuation('|')) {
            self.next();
            alternatives.push(self.sequence()?);
        }
        if alternatives.len() == 1 {
            return Ok(alternatives.remove(0));
        }
        Ok(Expr::Choice(number, alternatives))
    }

    fn sequence(&mut self) -> Result<Expr, String> {
        let mut parts = vec![self.part()?];
        while self.peek() == Some(&Token::Punctuation(',')) {
            self.next();
            parts.push(self.part()?);
        }
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        Ok(Expr::Sequence(parts))
    }

    fn part(&mut self) -> Result<Expr, String> {
        match self.next() {
            Some(Token::Name(name)) => Ok(Expr::Name(name.clone())),
            Some(Token::Literal(text)) => Ok(Expr::Literal(text.clone())),
            Some(Token::Special(name)) => Ok(Expr::Special(name.clone())),
            Some(Token::Punctuation('(')) => {
                let inner = self.choice()?;
                self.punctuation(')')?;
                Ok(inner)
            }
            Some(Token::Punctuation('[')) => {
                let number = self.branch();
                let inner = self.choice()?;
                self.punctuation(']')?;
                Ok(Expr::Optional(number, Box::new(inner)))
            }
            Some(Token::Punctuation('{')) => {
                let number = self.branch();
                let inner = self.choice()?;
                self.punctuation('}')?;
                Ok(Expr::Repeat(number, Box::new(inner)))
            }
            _ => Err(self.expected("a part of a production")),
        }
    }
}
