//! `ARG`, `ENV`, `LABEL`: names and values.

use nom::Parser as _;
use nom::sequence::separated_pair;

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::{Arg, Kind, Pair};

use crate::dockerfile::syntax::blank::{bare_word, blanks1};
use crate::dockerfile::syntax::context::Context;
use crate::dockerfile::syntax::flag::quoted_words;

/// grammar: arg
/// grammar: arg_item
pub(super) fn arg<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = context.no_flags(rest);
    let words = quoted_words(arguments, context.escape);
    if words.is_empty() {
        context.missing(
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
            Some((name, default)) => (name, Some(context.word(default))),
            None => (word, None),
        };
        good &= named(context, name, word) && is_literal(context, name);
        args.push(Arg { name: context.word(name), default });
    }
    good.then_some(Kind::Arg(args))
}

/// grammar: env
pub(super) fn env<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    pairs(context, rest).map(Kind::Env)
}

/// grammar: label
pub(super) fn label<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    pairs(context, rest).map(Kind::Label)
}

/// grammar: pairs
fn pairs<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Vec<Pair>> {
    let arguments = context.no_flags(rest);
    let keyword = context.keyword.name();
    let words = quoted_words(arguments, context.escape);
    let Some(first) = words.first() else {
        context.missing(
            format!("{keyword} needs at least one `name=value`"),
            "expected `name=value`",
            &format!("write `{keyword} name=value`"),
        );
        return None;
    };
    if !first.contains('=') {
        return legacy(context, arguments).map(|pair| vec![pair]);
    }
    let mut pairs = Vec::new();
    let mut good = true;
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            no_equals(context, word);
            good = false;
            continue;
        };
        good &= named(context, name, word);
        pairs.push(Pair { name: context.word(name), value: context.word(value), legacy: false });
    }
    good.then_some(pairs)
}

/// `name value`, where the value is the rest of the line.
///
/// grammar: legacy_pair
fn legacy<'a>(context: &mut Context<'a>, arguments: &'a str) -> Option<Pair> {
    let parsed: nom::IResult<&str, _> =
        separated_pair(bare_word, blanks1, nom::combinator::rest).parse(arguments);
    let Ok((_, (name, value))) = parsed else {
        let keyword = context.keyword.name();
        let name = arguments;
        context.missing(
            format!("{keyword} needs a value for `{name}`"),
            "expected a value",
            &format!("write `{keyword} {name}=value`"),
        );
        return None;
    };
    Some(Pair { name: context.word(name), value: context.word(value), legacy: true })
}

/// grammar: pair
fn named(context: &mut Context<'_>, name: &str, word: &str) -> bool {
    if name.is_empty() {
        let keyword = context.keyword.name();
        let message = format!("{keyword} names cannot be empty");
        let label = "expected a name before `=`";
        context.error(codes::BAD_ARGUMENT, word, message, label);
    }
    !name.is_empty()
}

/// Reports a variable in the name of an ARG. BuildKit does not replace it there and so declares an
/// argument that nothing can use (`dockerfile2llb.dispatch` expands only the value).
fn is_literal(context: &mut Context<'_>, name: &str) -> bool {
    let is_literal = !name.contains('$');
    if !is_literal {
        let span = context.span(name);
        let message = format!("variables are not expanded in the name of an ARG: `{name}`");
        context.diagnostics.push(
            Diagnostic::error(codes::BAD_ARGUMENT, span, message)
                .label(span, "expected a plain name")
                .help("use a plain name; the default may contain variables, as in `ARG name=${x}`"),
        );
    }
    is_literal
}

fn no_equals(context: &mut Context<'_>, word: &str) {
    let span = context.span(word);
    let keyword = context.keyword.name();
    context.diagnostics.push(
        Diagnostic::error(
            codes::BAD_ARGUMENT,
            span,
            format!("cannot find `=` in `{word}`: {keyword} expects `name=value`"),
        )
        .label(span, "expected `name=value`")
        .help("quote values that contain spaces"),
    );
}
