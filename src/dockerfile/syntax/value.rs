//! Parses values of flags and options: booleans, durations and sizes.

use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::character::complete::{char, digit0, digit1, one_of};
use nom::combinator::{all_consuming, opt, value};
use nom::multi::many1;
use nom::sequence::preceded;
use nom::{IResult, Parser as _};

/// Parses a boolean of a mount option or check, as Go's `strconv.ParseBool` does
/// (<https://pkg.go.dev/strconv#ParseBool>).
///
/// grammar: boolean
pub(super) fn bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Parses a duration such as `1m30s` or `1.5h` into nanoseconds, as Go's `time.ParseDuration` does
/// (<https://pkg.go.dev/time#ParseDuration>). Returns `None` if it is invalid or out of range.
///
/// grammar: duration
pub(super) fn duration(text: &str) -> Option<i64> {
    if matches!(text, "0" | "+0" | "-0") {
        return Some(0);
    }
    let parts = many1(duration_part);
    let (_, (sign, parts)) = all_consuming((opt(one_of("+-")), parts)).parse(text).ok()?;
    let mut total: i128 = 0;
    for (whole, fraction, unit) in parts {
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in fraction.chars() {
            // Digits below a nanosecond are dropped.
            scale /= 10;
            total = total.checked_add(i128::from(digit.to_digit(10)?) * scale)?;
        }
    }
    i64::try_from(if sign == Some('-') { -total } else { total }).ok()
}

/// grammar: duration_part
fn duration_part(input: &str) -> IResult<&str, (&str, &str, i128)> {
    let number = alt((
        (digit1, opt(preceded(char('.'), digit0))),
        (tag(""), preceded(char('.'), digit1).map(Some)),
    ));
    let unit = alt((
        value(1, tag("ns")),
        value(1_000, alt((tag("us"), tag("µs"), tag("μs")))),
        value(1_000_000, tag("ms")),
        value(1_000_000_000, tag("s")),
        value(60_000_000_000, tag("m")),
        value(3_600_000_000_000, tag("h")),
    ));
    let (rest, ((whole, fraction), unit)) = (number, unit).parse(input)?;
    Ok((rest, (whole, fraction.unwrap_or(""), unit)))
}

/// Returns whether `text` is a size such as `64m` or `1.5GiB`.
///
/// grammar: size
pub(super) fn is_size(text: &str) -> bool {
    let number = (digit1, opt((char('.'), digit1)));
    let unit = (opt(one_of("kKmMgGtTpP")), opt(one_of("iI")), opt(one_of("bB")));
    let mut size = all_consuming((number, opt(char(' ')), unit));
    let parsed: IResult<&str, _> = size.parse(text);
    parsed.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_in_nanoseconds_or_none() {
        for (text, want) in [
            ("0", Some(0)),
            ("1ns", Some(1)),
            ("1.5us", Some(1_500)),
            ("1µs", Some(1_000)),
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1h.5m", Some(3_630_000_000_000)),
            ("-2ms", Some(-2_000_000)),
            ("1.0000000009s", Some(1_000_000_000)),
            ("", None),
            ("1", None),
            (".s", None),
            ("1d", None),
            ("1s ", None),
            ("9999999h", None),
        ] {
            assert_eq!(duration(text), want, "{text}");
        }
    }

    #[test]
    fn size_has_digits_and_at_most_one_unit() {
        let good = ["1", "64m", "64M", "1.5g", "10kb", "1GiB", "7 MB"];
        let bad = ["", "m", "-1", "1x", "1mm", "1.m", "one"];
        assert_eq!(good.map(is_size), [true; 7]);
        assert_eq!(bad.map(is_size), [false; 7]);
    }
}
