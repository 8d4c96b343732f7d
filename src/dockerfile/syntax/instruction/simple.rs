//! Parses instructions that consist of a keyword and words, such as `WORKDIR`, `USER` and `EXPOSE`.

use crate::diag::{Spanned, codes};
use crate::dockerfile::ir::{Expose, Kind, Word};

use crate::dockerfile::syntax::blank::bare_words;
use crate::dockerfile::syntax::exec_form;
use crate::dockerfile::syntax::reader::InstructionReader;

/// grammar: workdir
pub(super) fn workdir<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    line(reader, rest, "a path").map(Kind::Workdir)
}

/// grammar: user
pub(super) fn user<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    line(reader, rest, "a user").map(Kind::User)
}

/// grammar: stopsignal
pub(super) fn stopsignal<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    line(reader, rest, "a signal").map(Kind::Stopsignal)
}

/// grammar: maintainer
pub(super) fn maintainer<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    line(reader, rest, "a name").map(Kind::Maintainer)
}

/// Parses the rest of the line as one argument.
///
/// grammar: text
fn line<'a>(reader: &mut InstructionReader<'a>, rest: &'a str, what: &str) -> Option<Word> {
    let argument = reader.no_flags(rest);
    if argument.is_empty() {
        return needs(reader, what);
    }
    Some(reader.word(argument))
}

/// grammar: expose
pub(super) fn expose<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = reader.no_flags(rest);
    let ports: Vec<Word> =
        bare_words(arguments).into_iter().map(|word| reader.word(word)).collect();
    if ports.is_empty() {
        return needs(reader, "at least one port");
    }
    Some(Kind::Expose(Expose { ports }))
}

/// grammar: volume
/// grammar: volume_array
/// grammar: volume_path
pub(super) fn volume<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = reader.no_flags(rest);
    let paths = list(reader, arguments)?;
    if paths.is_empty() {
        return needs(reader, "at least one path");
    }
    if let Some(empty) = paths.iter().find(|path| path.value.is_empty()) {
        let message = "VOLUME specified cannot be an empty string".to_owned();
        let diagnostic = crate::diag::Diagnostic::error(codes::BAD_ARGUMENT, empty.span, message)
            .label(empty.span, "expected a path");
        reader.diagnostics.push(diagnostic);
        return None;
    }
    Some(Kind::Volume(paths))
}

/// grammar: shell
pub(super) fn shell<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = reader.no_flags(rest);
    if arguments.is_empty() {
        return needs(reader, "a JSON array");
    }
    match exec_form::parse(arguments) {
        exec_form::JsonForm::Strings(strings) if strings.is_empty() => {
            reader.missing(
                "SHELL needs at least one word".to_owned(),
                "the array is empty",
                r#"write the program and its flags, as in `SHELL ["/bin/sh", "-c"]`"#,
            );
            None
        }
        exec_form::JsonForm::Strings(strings) => Some(Kind::Shell(words(reader, strings))),
        exec_form::JsonForm::NotStrings => not_strings(reader, arguments),
        exec_form::JsonForm::Text => {
            reader.error(
                codes::BAD_JSON_FORM,
                arguments,
                "SHELL requires the arguments to be in JSON form".to_owned(),
                r#"expected an array of strings, as in `["/bin/sh", "-c"]`"#,
            );
            None
        }
    }
}

/// Parses words in JSON form, or separated by blanks.
pub(super) fn list<'a>(
    reader: &mut InstructionReader<'a>,
    arguments: &'a str,
) -> Option<Vec<Word>> {
    match exec_form::parse(arguments) {
        exec_form::JsonForm::Strings(strings) => Some(words(reader, strings)),
        exec_form::JsonForm::NotStrings => not_strings(reader, arguments),
        exec_form::JsonForm::Text => {
            Some(bare_words(arguments).into_iter().map(|word| reader.word(word)).collect())
        }
    }
}

/// Makes words of the elements of a JSON array.
pub(super) fn words(reader: &InstructionReader<'_>, strings: Vec<(&str, String)>) -> Vec<Word> {
    strings.into_iter().map(|(part, text)| Spanned::new(text, reader.span(part))).collect()
}

/// Reports an array with elements that are not strings.
pub(super) fn not_strings<T>(reader: &mut InstructionReader<'_>, arguments: &str) -> Option<T> {
    let keyword = reader.keyword.name();
    let message = format!("the JSON form of {keyword} must be an array of strings only");
    reader.error(
        codes::BAD_JSON_FORM,
        arguments,
        message,
        "contains an element that is not a string",
    );
    None
}

/// Reports a missing argument, described by `what`.
pub(super) fn needs<T>(reader: &mut InstructionReader<'_>, what: &str) -> Option<T> {
    let keyword = reader.keyword.name();
    let help = match reader.keyword.name() {
        "WORKDIR" => "write `WORKDIR /path`",
        "USER" => "write `USER name` or `USER uid:gid`",
        "EXPOSE" => "write `EXPOSE 8080` or `EXPOSE 53/udp`",
        "VOLUME" => "write `VOLUME /path`",
        "STOPSIGNAL" => "write `STOPSIGNAL SIGTERM`",
        "MAINTAINER" => "use `LABEL org.opencontainers.image.authors=…` instead",
        "SHELL" => r#"write `SHELL ["/bin/sh", "-c"]`"#,
        _ => "add it, or remove the instruction",
    };
    reader.missing(format!("{keyword} needs {what}"), &format!("expected {what}"), help);
    None
}
