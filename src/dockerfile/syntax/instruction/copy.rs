//! Parses `COPY` and `ADD`.

use crate::diag::codes;
use crate::dockerfile::ir::{Add, Copy, CopyFlags, CopySource, Kind, Word};

use crate::dockerfile::syntax::blank::{bare_word, blanks0};
use crate::dockerfile::syntax::exec_form;
use crate::dockerfile::syntax::flag::RawFlag;
use crate::dockerfile::syntax::reader::{FlagValue, InstructionReader, KnownFlag};

use super::simple::{not_strings, words};

const COPY_FLAGS: [KnownFlag; 6] = [
    ("from", FlagValue::Text),
    ("chown", FlagValue::Text),
    ("chmod", FlagValue::Text),
    ("link", FlagValue::Bool),
    ("parents", FlagValue::Bool),
    ("exclude", FlagValue::List),
];

const ADD_FLAGS: [KnownFlag; 7] = [
    ("chown", FlagValue::Text),
    ("chmod", FlagValue::Text),
    ("link", FlagValue::Bool),
    ("exclude", FlagValue::List),
    ("keep-git-dir", FlagValue::Bool),
    ("checksum", FlagValue::Text),
    ("unpack", FlagValue::Bool),
];

/// grammar: copy
pub(super) fn copy<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let (arguments, flags) = reader.flags(rest, &COPY_FLAGS);
    let mut common = CopyFlags::default();
    let (mut from, mut parents) = (None, None);
    for flag in &flags {
        match flag.name {
            "from" => from = from_flag(reader, flag),
            "parents" => parents = reader.flag_bool(flag),
            _ => common_flag(reader, flag, &mut common),
        }
    }
    let (sources, destination) = files(reader, arguments)?;
    Some(Kind::Copy(Copy { flags: common, from, parents, sources, destination }))
}

/// grammar: add
pub(super) fn add<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let (arguments, flags) = reader.flags(rest, &ADD_FLAGS);
    let mut common = CopyFlags::default();
    let (mut keep_git_dir, mut checksum, mut unpack) = (None, None, None);
    for flag in &flags {
        match flag.name {
            "keep-git-dir" => keep_git_dir = reader.flag_bool(flag),
            "checksum" => checksum = reader.flag_some(flag),
            "unpack" => unpack = reader.flag_bool(flag),
            _ => common_flag(reader, flag, &mut common),
        }
    }
    let (sources, destination) = files(reader, arguments)?;
    Some(Kind::Add(Add { flags: common, keep_git_dir, checksum, unpack, sources, destination }))
}

/// grammar: common_flags
fn common_flag(reader: &mut InstructionReader<'_>, flag: &RawFlag<'_>, common: &mut CopyFlags) {
    match flag.name {
        "chown" => common.chown = reader.flag_some(flag),
        "chmod" => common.chmod = reader.flag_some(flag),
        "link" => common.link = reader.flag_bool(flag),
        _ => common.exclude.push(reader.flag_word(flag)),
    }
}

fn from_flag(reader: &mut InstructionReader<'_>, flag: &RawFlag<'_>) -> Option<Word> {
    let word = reader.flag_some(flag)?;
    if word.value.contains('$') {
        reader.diagnostics.push(
            crate::diag::Diagnostic::error(
                codes::BAD_FLAG,
                word.span,
                format!("variables are not expanded in `--from`: `{}`", word.value),
            )
            .label(word.span, "must be known before the build")
            .help("add a stage `FROM … AS name`, where global ARGs work, and copy from `name`"),
        );
    }
    Some(word)
}

/// Parses the sources and the destination.
///
/// grammar: files
fn files<'a>(
    reader: &mut InstructionReader<'a>,
    arguments: &'a str,
) -> Option<(Vec<CopySource>, Word)> {
    let mut sources = match exec_form::parse(arguments) {
        exec_form::JsonForm::Strings(strings) => {
            words(reader, strings).into_iter().map(CopySource::Path).collect()
        }
        exec_form::JsonForm::NotStrings => return not_strings(reader, arguments),
        exec_form::JsonForm::Text => sources(reader, arguments),
    };
    let keyword = reader.keyword.name();
    let last = sources.pop();
    match last {
        Some(CopySource::Path(destination)) if !sources.is_empty() => Some((sources, destination)),
        Some(CopySource::Heredoc(heredoc)) => {
            reader.diagnostics.push(
                crate::diag::Diagnostic::error(
                    codes::BAD_ARGUMENT,
                    heredoc.opening.span,
                    format!("{keyword} cannot have a heredoc as its destination"),
                )
                .label(heredoc.opening.span, "expected a path here")
                .help("add the destination after the heredoc"),
            );
            None
        }
        Some(CopySource::Path(_)) | None => {
            reader.missing(
                format!("{keyword} requires at least two arguments: source and destination"),
                if last.is_some() { "expected a destination" } else { "expected a source" },
                &format!("write `{keyword} source destination`"),
            );
            None
        }
    }
}

fn sources<'a>(reader: &InstructionReader<'a>, arguments: &'a str) -> Vec<CopySource> {
    let mut found = Vec::new();
    let mut rest = arguments;
    loop {
        let (start, _) = blanks0(rest).unwrap_or((rest, ""));
        if let Some(opened) = reader.heredoc_at(start) {
            found.push(CopySource::Heredoc(opened.heredoc.clone()));
            rest = start.get(opened.heredoc.opening.value.len()..).unwrap_or("");
        } else if let Ok((after, word)) = bare_word(start) {
            found.push(CopySource::Path(reader.word(word)));
            rest = after;
        } else {
            return found;
        }
    }
}
