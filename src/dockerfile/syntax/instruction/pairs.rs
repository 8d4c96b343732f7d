//! Parses `ARG`, `ENV` and `LABEL`: names and values.

use nom::Parser as _;
use nom::sequence::separated_pair;

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::{Arg, Kind, Pair};

use crate::dockerfile::syntax::blank::{bare_word, blanks1};
use crate::dockerfile::syntax::flag::quoted_words;
use crate::dockerfile::syntax::reader::InstructionReader;

/// grammar: arg
/// grammar: arg_item
pub(super) fn arg<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = reader.no_flags(rest);
    let words = quoted_words(arguments, reader.escape);
    if words.is_empty() {
        reader.missing(
            "ARG needs at least one name".to_owned(),
            "expected a name",
            "write `ARG name` or `ARG name=default`",
        );
        return None;
    }
    let mut args = Vec::new();
    let mut good = true;
    for word in words {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(reader.word(default))),
            None => (word, None),
        };
        good &= named(reader, name, word) && is_literal(reader, name);
        args.push(Arg { name: reader.word(name), default });
    }
    good.then_some(Kind::Arg(args))
}

/// grammar: env
pub(super) fn env<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    pairs(reader, rest).map(Kind::Env)
}

/// grammar: label
pub(super) fn label<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    pairs(reader, rest).map(Kind::Label)
}

/// grammar: pairs
fn pairs<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Vec<Pair>> {
    let arguments = reader.no_flags(rest);
    let keyword = reader.keyword.name();
    let words = quoted_words(arguments, reader.escape);
    let Some(first) = words.first() else {
        reader.missing(
            format!("{keyword} needs at least one `name=value`"),
            "expected `name=value`",
            &format!("write `{keyword} name=value`"),
        );
        return None;
    };
    if !first.contains('=') {
        return legacy(reader, arguments).map(|pair| vec![pair]);
    }
    let mut pairs = Vec::new();
    let mut good = true;
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            no_equals(reader, word);
            good = false;
            continue;
        };
        good &= named(reader, name, word);
        pairs.push(Pair { name: reader.word(name), value: reader.word(value), legacy: false });
    }
    good.then_some(pairs)
}

/// Parses the legacy form `name value`, in which the value is the rest of the line.
///
/// grammar: legacy_pair
fn legacy<'a>(reader: &mut InstructionReader<'a>, arguments: &'a str) -> Option<Pair> {
    let parsed: nom::IResult<&str, _> =
        separated_pair(bare_word, blanks1, nom::combinator::rest).parse(arguments);
    let Ok((_, (name, value))) = parsed else {
        let keyword = reader.keyword.name();
        let name = arguments;
        reader.missing(
            format!("{keyword} needs a value for `{name}`"),
            "expected a value",
            &format!("write `{keyword} {name}=value`"),
        );
        return None;
    };
    Some(Pair { name: reader.word(name), value: reader.word(value), legacy: true })
}

/// grammar: pair
fn named(reader: &mut InstructionReader<'_>, name: &str, word: &str) -> bool {
    if name.is_empty() {
        let keyword = reader.keyword.name();
        let message = format!("{keyword} names cannot be empty");
        let label = "expected a name before `=`";
        reader.error(codes::BAD_ARGUMENT, word, message, label);
    }
    !name.is_empty()
}

/// Reports a variable in the name of an ARG, and returns whether there is none. BuildKit does not
/// expand the name, and so declares an argument that nothing can use (`dockerfile2llb.dispatch` expands
/// only the value).
fn is_literal(reader: &mut InstructionReader<'_>, name: &str) -> bool {
    let is_literal = !name.contains('$');
    if !is_literal {
        let span = reader.span(name);
        let message = format!("variables are not expanded in the name of an ARG: `{name}`");
        reader.diagnostics.push(
            Diagnostic::error(codes::BAD_ARGUMENT, span, message)
                .label(span, "expected a plain name")
                .help("use a plain name; the default may contain variables, as in `ARG name=${x}`"),
        );
    }
    is_literal
}

fn no_equals(reader: &mut InstructionReader<'_>, word: &str) {
    let span = reader.span(word);
    let keyword = reader.keyword.name();
    reader.diagnostics.push(
        Diagnostic::error(
            codes::BAD_ARGUMENT,
            span,
            format!("cannot find `=` in `{word}`: {keyword} expects `name=value`"),
        )
        .label(span, "expected `name=value`")
        .help("quote values that contain spaces"),
    );
}
