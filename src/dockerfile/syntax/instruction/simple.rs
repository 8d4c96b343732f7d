//! Instructions that are a keyword and words: `WORKDIR`, `USER`, `EXPOSE`, `VOLUME` and such.

use crate::diag::{Spanned, codes};
use crate::dockerfile::ir::{Expose, Kind, Word};

use crate::dockerfile::syntax::blank::bare_words;
use crate::dockerfile::syntax::context::Context;
use crate::dockerfile::syntax::exec_form;

/// grammar: workdir
pub(super) fn workdir<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    line(context, rest, "a path").map(Kind::Workdir)
}

/// grammar: user
pub(super) fn user<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    line(context, rest, "a user").map(Kind::User)
}

/// grammar: stopsignal
pub(super) fn stopsignal<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    line(context, rest, "a signal").map(Kind::Stopsignal)
}

/// grammar: maintainer
pub(super) fn maintainer<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    line(context, rest, "a name").map(Kind::Maintainer)
}

/// The rest of the line as one argument.
///
/// grammar: text
fn line<'a>(context: &mut Context<'a>, rest: &'a str, what: &str) -> Option<Word> {
    let argument = context.no_flags(rest);
    if argument.is_empty() {
        return needs(context, what);
    }
    Some(context.word(argument))
}

/// grammar: expose
pub(super) fn expose<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = context.no_flags(rest);
    let ports: Vec<Word> =
        bare_words(arguments).into_iter().map(|word| context.word(word)).collect();
    if ports.is_empty() {
        return needs(context, "at least one port");
    }
    Some(Kind::Expose(Expose { ports }))
}

/// grammar: volume
/// grammar: volume_array
/// grammar: volume_path
pub(super) fn volume<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = context.no_flags(rest);
    let paths = list(context, arguments)?;
    if paths.is_empty() {
        return needs(context, "at least one path");
    }
    if let Some(empty) = paths.iter().find(|path| path.value.is_empty()) {
        let message = "VOLUME specified cannot be an empty string".to_owned();
        let diagnostic = crate::diag::Diagnostic::error(codes::BAD_ARGUMENT, empty.span, message)
            .label(empty.span, "expected a path");
        context.diagnostics.push(diagnostic);
        return None;
    }
    Some(Kind::Volume(paths))
}

/// grammar: shell
pub(super) fn shell<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = context.no_flags(rest);
    if arguments.is_empty() {
        return needs(context, "a JSON array");
    }
    match exec_form::parse(arguments) {
        exec_form::Parsed::Strings(strings) if strings.is_empty() => {
            context.missing(
                "SHELL needs at least one word".to_owned(),
                "the array is empty",
                r#"write the program and its flags, as in `SHELL ["/bin/sh", "-c"]`"#,
            );
            None
        }
        exec_form::Parsed::Strings(strings) => Some(Kind::Shell(words(context, strings))),
        exec_form::Parsed::NotStrings => not_strings(context, arguments),
        exec_form::Parsed::Text => {
            context.error(
                codes::BAD_JSON_FORM,
                arguments,
                "SHELL requires the arguments to be in JSON form".to_owned(),
                r#"expected an array of strings, as in `["/bin/sh", "-c"]`"#,
            );
            None
        }
    }
}

/// Words in JSON form, or separated by blanks.
pub(super) fn list<'a>(context: &mut Context<'a>, arguments: &'a str) -> Option<Vec<Word>> {
    match exec_form::parse(arguments) {
        exec_form::Parsed::Strings(strings) => Some(words(context, strings)),
        exec_form::Parsed::NotStrings => not_strings(context, arguments),
        exec_form::Parsed::Text => {
            Some(bare_words(arguments).into_iter().map(|word| context.word(word)).collect())
        }
    }
}

/// The elements of a JSON array.
pub(super) fn words(context: &Context<'_>, strings: Vec<(&str, String)>) -> Vec<Word> {
    strings.into_iter().map(|(part, text)| Spanned::new(text, context.span(part))).collect()
}

/// Complains about an array of other things than strings.
pub(super) fn not_strings<T>(context: &mut Context<'_>, arguments: &str) -> Option<T> {
    let keyword = context.keyword.name();
    let message = format!("the JSON form of {keyword} must be an array of strings only");
    context.error(
        codes::BAD_JSON_FORM,
        arguments,
        message,
        "contains an element that is not a string",
    );
    None
}

/// Complains about missing arguments.
pub(super) fn needs<T>(context: &mut Context<'_>, what: &str) -> Option<T> {
    let keyword = context.keyword.name();
    let help = match context.keyword.name() {
        "WORKDIR" => "write `WORKDIR /path`",
        "USER" => "write `USER name` or `USER uid:gid`",
        "EXPOSE" => "write `EXPOSE 8080` or `EXPOSE 53/udp`",
        "VOLUME" => "write `VOLUME /path`",
        "STOPSIGNAL" => "write `STOPSIGNAL SIGTERM`",
        "MAINTAINER" => "use `LABEL org.opencontainers.image.authors=…` instead",
        "SHELL" => r#"write `SHELL ["/bin/sh", "-c"]`"#,
        _ => "add it, or remove the instruction",
    };
    context.missing(format!("{keyword} needs {what}"), &format!("expected {what}"), help);
    None
}
