//! Parses `HEALTHCHECK` and its durations
//! (<https://docs.docker.com/reference/dockerfile/#healthcheck>).

use nom::Parser as _;
use nom::sequence::pair;

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::{Healthcheck, HealthcheckTest, Kind, ShellOrExec};

use crate::dockerfile::syntax::blank::{bare_word, blanks0};
use crate::dockerfile::syntax::flag::RawFlag;
use crate::dockerfile::syntax::reader::{FlagValue, InstructionReader, KnownFlag};
use crate::dockerfile::syntax::value;

use super::run::command;
use super::simple::needs;

const FLAGS: [KnownFlag; 5] = [
    ("interval", FlagValue::Text),
    ("timeout", FlagValue::Text),
    ("start-period", FlagValue::Text),
    ("start-interval", FlagValue::Text),
    ("retries", FlagValue::Text),
];

/// Minimum duration: Docker rejects less than a millisecond (`container.MinimumDuration`).
const MIN_NS: i64 = 1_000_000;

/// The value of `HEALTHCHECK NONE`.
const NO_CHECK: Healthcheck = Healthcheck {
    interval: None,
    timeout: None,
    start_period: None,
    start_interval: None,
    retries: None,
    test: HealthcheckTest::None,
};

/// grammar: healthcheck
pub(super) fn healthcheck<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<Kind> {
    let (arguments, flags) = reader.flags(rest, &FLAGS);
    let mut check = NO_CHECK;
    for flag in &flags {
        match flag.name {
            "interval" => check.interval = duration(reader, flag),
            "timeout" => check.timeout = duration(reader, flag),
            "start-period" => check.start_period = duration(reader, flag),
            "start-interval" => check.start_interval = duration(reader, flag),
            _ => check.retries = retries(reader, flag),
        }
    }
    check.test = test(reader, arguments)?;
    if check.test == HealthcheckTest::None {
        // Options have no effect without a check.
        check = NO_CHECK;
    }
    Some(Kind::Healthcheck(check))
}

fn test<'a>(reader: &mut InstructionReader<'a>, arguments: &'a str) -> Option<HealthcheckTest> {
    let parsed: nom::IResult<&str, _> = pair(bare_word, blanks0).parse(arguments);
    let Ok((rest, (kind, _))) = parsed else { return needs(reader, "`CMD` or `NONE`") };
    if kind.eq_ignore_ascii_case("NONE") {
        if !rest.is_empty() {
            let message = "HEALTHCHECK NONE takes no arguments".to_owned();
            reader.error(codes::BAD_HEALTHCHECK, rest, message, "not expected");
            return None;
        }
        return Some(HealthcheckTest::None);
    }
    if !kind.eq_ignore_ascii_case("CMD") {
        let message = format!("unknown type `{kind}` in HEALTHCHECK (try CMD)");
        reader.error(codes::BAD_HEALTHCHECK, kind, message, "expected `CMD` or `NONE`");
        return None;
    }
    match command(reader, rest)? {
        ShellOrExec::Exec(words) if words.is_empty() => needs(reader, "a command"),
        command @ (ShellOrExec::Exec(_) | ShellOrExec::Shell(_)) => {
            Some(HealthcheckTest::Cmd(command))
        }
    }
}

fn duration(reader: &mut InstructionReader<'_>, flag: &RawFlag<'_>) -> Option<i64> {
    let word = reader.flag_word(flag);
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
    reader.diagnostics.push(
        Diagnostic::error(codes::BAD_HEALTHCHECK, word.span, message).label(word.span, label),
    );
    None
}

/// grammar: count
fn retries(reader: &mut InstructionReader<'_>, flag: &RawFlag<'_>) -> Option<i64> {
    let word = reader.flag_word(flag);
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
    reader.diagnostics.push(
        Diagnostic::error(codes::BAD_HEALTHCHECK, word.span, message).label(word.span, label),
    );
    None
}
