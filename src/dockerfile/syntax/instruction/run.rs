//! Parses `RUN`, `CMD` and `ENTRYPOINT`: commands
//! (<https://docs.docker.com/reference/dockerfile/#shell-and-exec-form>).

use crate::diag::{Diagnostic, Spanned, codes, nearest};
use crate::dockerfile::ir::{Kind, Run, RunForm, RunNetwork, RunSecurity, ShellOrExec};

use crate::dockerfile::syntax::exec_form;
use crate::dockerfile::syntax::flag::RawFlag;
use crate::dockerfile::syntax::reader::{FlagValue, InstructionReader, KnownFlag};

use super::mount;
use super::simple::{needs, not_strings, words};

/// grammar: run_flag
/// grammar: run_once
const FLAGS: [KnownFlag; 4] = [
    ("mount", FlagValue::List),
    ("network", FlagValue::Text),
    ("security", FlagValue::Text),
    ("device", FlagValue::List),
];

const NETWORKS: [(&str, RunNetwork); 3] =
    [("default", RunNetwork::Default), ("none", RunNetwork::None), ("host", RunNetwork::Host)];

const SECURITIES: [(&str, RunSecurity); 2] =
    [("sandbox", RunSecurity::Sandbox), ("insecure", RunSecurity::Insecure)];

/// grammar: run
pub(super) fn run<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let (arguments, flags) = reader.flags(rest, &FLAGS);
    let mut mounts = Vec::new();
    let mut devices = Vec::new();
    let (mut network, mut security) = (None, None);
    for flag in &flags {
        match flag.name {
            "mount" => mounts.extend(mount::mount(reader, flag)),
            "network" => network = choice(reader, flag, &NETWORKS),
            "security" => security = choice(reader, flag, &SECURITIES),
            _ => devices.push(reader.flag_word(flag)),
        }
    }
    let form = run_form(reader, arguments)?;
    let patience = None;
    Some(Kind::Run(Run { patience, mounts, network, security, devices, form }))
}

/// grammar: heredoc_command
fn run_form<'a>(reader: &mut InstructionReader<'a>, arguments: &'a str) -> Option<RunForm> {
    if reader.line.heredocs.is_empty() {
        return Some(match command(reader, arguments)? {
            ShellOrExec::Exec(words) if words.is_empty() => return needs(reader, "a command"),
            ShellOrExec::Exec(words) => RunForm::Exec(words),
            ShellOrExec::Shell(text) => RunForm::Shell { text, heredocs: Vec::new() },
        });
    }
    let heredocs: Vec<_> =
        reader.line.heredocs.iter().map(|opened| opened.heredoc.clone()).collect();
    match heredocs.as_slice() {
        [only] if only.opening.value == arguments => Some(RunForm::Script(only.clone())),
        _ => Some(RunForm::Shell { text: reader.word(arguments), heredocs }),
    }
}

/// grammar: cmd
pub(super) fn cmd<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = reader.no_flags(rest);
    command(reader, arguments).map(Kind::Cmd)
}

/// grammar: entrypoint
pub(super) fn entrypoint<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = reader.no_flags(rest);
    command(reader, arguments).map(Kind::Entrypoint)
}

/// Parses a command: a JSON array, or text for the shell.
///
/// grammar: command
pub(super) fn command<'a>(
    reader: &mut InstructionReader<'a>,
    arguments: &'a str,
) -> Option<ShellOrExec> {
    if arguments.is_empty() {
        return needs(reader, "a command");
    }
    match exec_form::parse(arguments) {
        exec_form::JsonForm::Strings(strings) => Some(ShellOrExec::Exec(words(reader, strings))),
        exec_form::JsonForm::NotStrings => not_strings(reader, arguments),
        exec_form::JsonForm::Text => Some(ShellOrExec::Shell(reader.word(arguments))),
    }
}

fn choice<T: Copy>(
    reader: &mut InstructionReader<'_>,
    flag: &RawFlag<'_>,
    choices: &[(&str, T)],
) -> Option<Spanned<T>> {
    let word = reader.flag_word(flag);
    let found = choices.iter().find(|(name, _)| *name == word.value);
    if let Some((_, value)) = found {
        return Some(Spanned::new(*value, word.span));
    }
    let names = || choices.iter().map(|(name, _)| *name);
    let list: Vec<String> = names().map(|name| format!("`{name}`")).collect();
    let help = match nearest(&word.value, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected one of {}", list.join(", ")),
    };
    reader.diagnostics.push(
        Diagnostic::error(
            codes::BAD_FLAG,
            word.span,
            format!("invalid value `{}` for flag `--{}`", word.value, flag.name),
        )
        .label(word.span, "not a valid value")
        .help(help),
    );
    None
}
