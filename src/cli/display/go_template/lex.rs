//! Splits a template into text and actions, and an action into words.

/// A part of a template before parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// The words of an action, and its text for messages.
    Action(Vec<Word>, String),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// A string constant, without quotes.
    Text(String),
    Number(i64),
    /// A keyword or the name of a function.
    Name(String),
    /// `.A.B`, with the names; empty for `.` alone.
    Fields(Vec<String>),
    /// `$x.A`, with the name of the variable, which is empty for `$`.
    Variable(String, Vec<String>),
    Open,
    /// `)` and the fields of its value: `(…).A`.
    Close(Vec<String>),
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Splits a template at `{{` and `}}`.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trims_start = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let before = if trims_start { before.trim_start() } else { before };
        let Some(after) = after else {
            push_text(&mut pieces, before);
            return Ok(pieces);
        };
        let minus = after.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace));
        let before = if minus.is_some() { before.trim_end() } else { before };
        push_text(&mut pieces, before);
        let (inner, behind) = action(minus.unwrap_or(after))
            .ok_or_else(|| format!("`{{{{{}` has no `}}}}`", after.lines().next().unwrap_or("")))?;
        let trimmed = inner.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace));
        trims_start = trimmed.is_some();
        let inner = trimmed.unwrap_or(inner).trim();
        if !inner.starts_with("/*") {
            pieces.push(Piece::Action(words(inner)?, inner.to_owned()));
        }
        rest = behind;
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Splits after an action at its `}}`, which may also be part of a string constant.
fn action(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some('"') if c == '\\' => drop(chars.next()),
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if c == '}' && chars.peek().is_some_and(|(_, next)| *next == '}') => {
                return Some((text.get(..at)?, text.get(at + 2..)?));
            }
            None => {}
        }
    }
    None
}

/// Splits the text of an action into words.
fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let word = match c {
            c if c.is_whitespace() => continue,
            '(' => Word::Open,
            ')' => Word::Close(fields(&mut chars)),
            '|' => Word::Pipe,
            ',' => Word::Comma,
            '=' => Word::Assign,
            ':' if chars.next_if_eq(&'=').is_some() => Word::Declare,
            '"' => Word::Text(quoted(&mut chars).ok_or_else(|| unclosed(text))?),
            '`' => {
                let inner: String =
                    std::iter::from_fn(|| chars.next_if(|next| *next != '`')).collect();
                chars.next().ok_or_else(|| unclosed(text))?;
                Word::Text(inner)
            }
            '.' => {
                let first = name(&mut chars, String::new());
                let more = if first.is_empty() { Vec::new() } else { fields(&mut chars) };
                Word::Fields(
                    Some(first).filter(|first| !first.is_empty()).into_iter().chain(more).collect(),
                )
            }
            '$' => Word::Variable(name(&mut chars, String::new()), fields(&mut chars)),
            c if c.is_ascii_digit() || c == '-' => {
                let digits = name(&mut chars, c.to_string());
                let number =
                    digits.parse().map_err(|_bad| format!("`{digits}` is not a number"))?;
                Word::Number(number)
            }
            c if c.is_alphabetic() || c == '_' => Word::Name(name(&mut chars, c.to_string())),
            c => return Err(format!("unexpected `{c}` in `{{{{{text}}}}}`")),
        };
        words.push(word);
    }
    Ok(words)
}

fn unclosed(text: &str) -> String {
    format!("a string in `{{{{{text}}}}}` has no end")
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Reads the rest of a name.
fn name(chars: &mut Chars<'_>, start: String) -> String {
    let mut name = start;
    name.extend(std::iter::from_fn(|| chars.next_if(|c| c.is_alphanumeric() || *c == '_')));
    name
}

/// Reads `.A.B`.
fn fields(chars: &mut Chars<'_>) -> Vec<String> {
    let mut fields = Vec::new();
    while chars.next_if_eq(&'.').is_some() {
        fields.push(name(chars, String::new()));
    }
    fields
}

/// Reads a string constant behind its first quote.
fn quoted(chars: &mut Chars<'_>) -> Option<String> {
    let mut text = String::new();
    loop {
        text.push(match chars.next()? {
            '"' => return Some(text),
            '\\' => match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                same => same,
            },
            c => c,
        });
    }
}
