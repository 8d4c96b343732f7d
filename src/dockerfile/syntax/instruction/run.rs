//! `RUN`, `CMD`, `ENTRYPOINT`: commands.

use crate::diag::{Diagnostic, Spanned, codes, nearest};
use crate::dockerfile::ir::{Kind, Run, RunForm, RunNetwork, RunSecurity, ShellOrExec};

use crate::dockerfile::syntax::context::{Context, KnownFlag, Takes};
use crate::dockerfile::syntax::exec_form;
use crate::dockerfile::syntax::flag::RawFlag;

use super::mount;
use super::simple::{needs, not_strings, words};

/// grammar: run_flag
/// grammar: run_once
const FLAGS: [KnownFlag; 4] = [
    ("mount", Takes::List),
    ("network", Takes::Text),
    ("security", Takes::Text),
    ("device", Takes::List),
];

const NETWORKS: [(&str, RunNetwork); 3] =
    [("default", RunNetwork::Default), ("none", RunNetwork::None), ("host", RunNetwork::Host)];

const SECURITIES: [(&str, RunSecurity); 2] =
    [("sandbox", RunSecurity::Sandbox), ("insecure", RunSecurity::Insecure)];

/// grammar: run
pub(super) fn run<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let (arguments, flags) = context.flags(rest, &FLAGS);
    let mut mounts = Vec::new();
    let mut devices = Vec::new();
    let (mut network, mut security) = (None, None);
    for flag in &flags {
        match flag.name {
            "mount" => mounts.extend(mount::mount(context, flag)),
            "network" => network = choice(context, flag, &NETWORKS),
            "security" => security = choice(context, flag, &SECURITIES),
            _ => devices.push(context.flag_word(flag)),
        }
    }
    let form = run_form(context, arguments)?;
    Some(Kind::Run(Run { mounts, network, security, devices, form }))
}

/// grammar: heredoc_command
fn run_form<'a>(context: &mut Context<'a>, arguments: &'a str) -> Option<RunForm> {
    if context.line.heredocs.is_empty() {
        return Some(match command(context, arguments)? {
            ShellOrExec::Exec(words) if words.is_empty() => return needs(context, "a command"),
            ShellOrExec::Exec(words) => RunForm::Exec(words),
            ShellOrExec::Shell(text) => RunForm::Shell { text, heredocs: Vec::new() },
        });
    }
    let heredocs: Vec<_> =
        context.line.heredocs.iter().map(|opened| opened.heredoc.clone()).collect();
    match heredocs.as_slice() {
        [only] if only.opening.value == arguments => Some(RunForm::Script(only.clone())),
        _ => Some(RunForm::Shell { text: context.word(arguments), heredocs }),
    }
}

/// grammar: cmd
pub(super) fn cmd<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = context.no_flags(rest);
    command(context, arguments).map(Kind::Cmd)
}

/// grammar: entrypoint
pub(super) fn entrypoint<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let arguments = context.no_flags(rest);
    command(context, arguments).map(Kind::Entrypoint)
}

/// A JSON array, or text for the shell.
///
/// grammar: command
pub(super) fn command<'a>(context: &mut Context<'a>, arguments: &'a str) -> Option<ShellOrExec> {
    if arguments.is_empty() {
        return needs(context, "a command");
    }
    match exec_form::parse(arguments) {
        exec_form::Parsed::Strings(strings) => Some(ShellOrExec::Exec(words(context, strings))),
        exec_form::Parsed::NotStrings => not_strings(context, arguments),
        exec_form::Parsed::Text => Some(ShellOrExec::Shell(context.word(arguments))),
    }
}

fn choice<T: Copy>(
    context: &mut Context<'_>,
    flag: &RawFlag<'_>,
    choices: &[(&str, T)],
) -> Option<Spanned<T>> {
    let word = context.flag_word(flag);
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
    context.diagnostics.push(
        Diagnostic::error(
            codes::BAD_FLAG,
            word.span,
            format!("invalid value `{}` for flag `--{}`", word.value, flag.name),
        )
        .label(word.span, "no such value")
        .help(help),
    );
    None
}
