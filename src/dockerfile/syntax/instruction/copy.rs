//! `COPY` and `ADD`

use crate::diag::codes;
use crate::dockerfile::ir::{Add, Copy, CopyFlags, CopySource, Kind, Word};

use crate::dockerfile::syntax::blank::{bare_word, blanks0};
use crate::dockerfile::syntax::context::{Context, KnownFlag, Takes};
use crate::dockerfile::syntax::exec_form;
use crate::dockerfile::syntax::flag::RawFlag;

use super::simple::{not_strings, words};

const COPY_FLAGS: [KnownFlag; 6] = [
    ("from", Takes::Text),
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::List),
];

const ADD_FLAGS: [KnownFlag; 7] = [
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("exclude", Takes::List),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::Text),
    ("unpack", Takes::Bool),
];

/// grammar: copy
pub(super) fn copy<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let (arguments, flags) = context.flags(rest, &COPY_FLAGS);
    let mut common = CopyFlags::default();
    let (mut from, mut parents) = (None, None);
    for flag in &flags {
        match flag.name {
            "from" => from = from_flag(context, flag),
            "parents" => parents = context.flag_bool(flag),
            _ => common_flag(context, flag, &mut common),
        }
    }
    let (sources, destination) = files(context, arguments)?;
    Some(Kind::Copy(Copy { flags: common, from, parents, sources, destination }))
}

/// grammar: add
pub(super) fn add<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let (arguments, flags) = context.flags(rest, &ADD_FLAGS);
    let mut common = CopyFlags::default();
    let (mut keep_git_dir, mut checksum, mut unpack) = (None, None, None);
    for flag in &flags {
        match flag.name {
            "keep-git-dir" => keep_git_dir = context.flag_bool(flag),
            "checksum" => checksum = context.flag_some(flag),
            "unpack" => unpack = context.flag_bool(flag),
            _ => common_flag(context, flag, &mut common),
        }
    }
    let (sources, destination) = files(context, arguments)?;
    Some(Kind::Add(Add { flags: common, keep_git_dir, checksum, unpack, sources, destination }))
}

/// grammar: common_flags
fn common_flag(context: &mut Context<'_>, flag: &RawFlag<'_>, common: &mut CopyFlags) {
    match flag.name {
        "chown" => common.chown = context.flag_some(flag),
        "chmod" => common.chmod = context.flag_some(flag),
        "link" => common.link = context.flag_bool(flag),
        _ => common.exclude.push(context.flag_word(flag)),
    }
}

fn from_flag(context: &mut Context<'_>, flag: &RawFlag<'_>) -> Option<Word> {
    let word = context.flag_some(flag)?;
    if word.value.contains('$') {
        context.diagnostics.push(
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

/// Sources and destination.
///
/// grammar: files
fn files<'a>(context: &mut Context<'a>, arguments: &'a str) -> Option<(Vec<CopySource>, Word)> {
    let mut sources = match exec_form::parse(arguments) {
        exec_form::Parsed::Strings(strings) => {
            words(context, strings).into_iter().map(CopySource::Path).collect()
        }
        exec_form::Parsed::NotStrings => return not_strings(context, arguments),
        exec_form::Parsed::Text => sources(context, arguments),
    };
    let keyword = context.keyword.name();
    let last = sources.pop();
    match last {
        Some(CopySource::Path(destination)) if !sources.is_empty() => Some((sources, destination)),
        Some(CopySource::Heredoc(heredoc)) => {
            context.diagnostics.push(
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
            context.missing(
                format!("{keyword} requires at least two arguments: source and destination"),
                if last.is_some() { "expected a destination" } else { "expected a source" },
                &format!("write `{keyword} source destination`"),
            );
            None
        }
    }
}

fn sources<'a>(context: &Context<'a>, arguments: &'a str) -> Vec<CopySource> {
    let mut found = Vec::new();
    let mut rest = arguments;
    loop {
        let (start, _) = blanks0(rest).unwrap_or((rest, ""));
        if let Some(opened) = context.heredoc_at(start) {
            found.push(CopySource::Heredoc(opened.heredoc.clone()));
            rest = start.get(opened.heredoc.opening.value.len()..).unwrap_or("");
        } else if let Ok((after, word)) = bare_word(start) {
            found.push(CopySource::Path(context.word(word)));
            rest = after;
        } else {
            return found;
        }
    }
}
