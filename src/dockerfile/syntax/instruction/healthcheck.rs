//! `HEALTHCHECK`

use nom::Parser as _;
use nom::sequence::pair;

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::{Healthcheck, HealthcheckTest, Kind, ShellOrExec};

use crate::dockerfile::syntax::blank::{bare_word, blanks0};
use crate::dockerfile::syntax::context::{Context, KnownFlag, Takes};
use crate::dockerfile::syntax::flag::RawFlag;
use crate::dockerfile::syntax::value;

use super::run::command;
use super::simple::needs;

const FLAGS: [KnownFlag; 5] = [
    ("interval", Takes::Text),
    ("timeout", Takes::Text),
    ("start-period", Takes::Text),
    ("start-interval", Takes::Text),
    ("retries", Takes::Text),
];

/// The shortest duration a runtime accepts.
const MIN_NS: i64 = 1_000_000;

/// `HEALTHCHECK NONE`.
const NO_CHECK: Healthcheck = Healthcheck {
    interval: None,
    timeout: None,
    start_period: None,
    start_interval: None,
    retries: None,
    test: HealthcheckTest::None,
};

/// grammar: healthcheck
pub(super) fn healthcheck<'a>(context: &mut Context<'a>, rest: &'a str) -> Option<Kind> {
    let (arguments, flags) = context.flags(rest, &FLAGS);
    let mut check = NO_CHECK;
    for flag in &flags {
        match flag.name {
            "interval" => check.interval = duration(context, flag),
            "timeout" => check.timeout = duration(context, flag),
            "start-period" => check.start_period = duration(context, flag),
            "start-interval" => check.start_interval = duration(context, flag),
            _ => check.retries = retries(context, flag),
        }
    }
    check.test = test(context, arguments)?;
    if check.test == HealthcheckTest::None {
        // Options without a check say nothing.
        check = NO_CHECK;
    }
    Some(Kind::Healthcheck(check))
}

fn test<'a>(context: &mut Context<'a>, arguments: &'a str) -> Option<HealthcheckTest> {
    let parsed: nom::IResult<&str, _> = pair(bare_word, blanks0).parse(arguments);
    let Ok((rest, (kind, _))) = parsed else { return needs(context, "`CMD` or `NONE`") };
    if kind.eq_ignore_ascii_case("NONE") {
        if !rest.is_empty() {
            let message = "HEALTHCHECK NONE takes no arguments".to_owned();
            context.error(codes::BAD_HEALTHCHECK, rest, message, "not expected");
            return None;
        }
        return Some(HealthcheckTest::None);
    }
    if !kind.eq_ignore_ascii_case("CMD") {
        let message = format!("unknown type `{kind}` in HEALTHCHECK (try CMD)");
        context.error(codes::BAD_HEALTHCHECK, kind, message, "expected `CMD` or `NONE`");
        return None;
    }
    match command(context, rest)? {
        ShellOrExec::Exec(words) if words.is_empty() => needs(context, "a command"),
        command @ (ShellOrExec::Exec(_) | ShellOrExec::Shell(_)) => {
            Some(HealthcheckTest::Cmd(command))
        }
    }
}

fn duration(context: &mut Context<'_>, flag: &RawFlag<'_>) -> Option<i64> {
    let word = context.flag_word(flag);
    let name = flag.name;
    if word.value.is_empty() {
        return None;
    }
    let (message, label) = match value::duration(&word.value) {
        Some(0) => return Some(0),
        Some(ns) if ns >= MIN_NS => return Some(ns),
        Some(_) => {
            (format!("`--{name}` is {}, but cannot be less than 1ms", word.value), "too short")
        }
        None => (
            format!("invalid duration `{}` for `--{name}`", word.value),
            "expected a duration such as `30s` or `1m30s`",
        ),
    };
    context.diagnostics.push(
        Diagnostic::error(codes::BAD_HEALTHCHECK, word.span, message).label(word.span, label),
    );
    None
}

/// grammar: count
fn retries(context: &mut Context<'_>, flag: &RawFlag<'_>) -> Option<i64> {
    let word = context.flag_word(flag);
    if word.value.is_empty() {
        return None;
    }
    let (message, label) = match word.value.parse::<i32>() {
        Ok(count) if count >= 0 => return Some(i64::from(count)),
        Ok(_) => (format!("`--retries` cannot be negative ({})", word.value), "negative"),
        Err(_) => {
            (format!("`--retries` must be a number, not `{}`", word.value), "expected a number")
        }
    };
    context.diagnostics.push(
        Diagnostic::error(codes::BAD_HEALTHCHECK, word.span, message).label(word.span, label),
    );
    None
}
