//! `format` and `formatlist` (cty, `function/stdlib/format.go`).

use unicode_segmentation::UnicodeSegmentation as _;

use super::arguments::text;
use super::{Function, Outcome, Param, Run};
use crate::bake::value::{Number, Type, Value, convert, to_json};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "format",
        params: &[Param::Text],
        variadic: Some(Param::Nullable),
        run: Run::Pure(|a| {
            let (_, arguments) = a.split_first().ok_or("needs a format")?;
            formatted(text(a, 0)?, arguments).map(Value::String)
        }),
    },
    Function {
        name: "formatlist",
        params: &[Param::Text],
        variadic: Some(Param::Nullable),
        run: Run::Pure(format_list),
    },
];

/// Formats once for each element of the lists among the arguments.
fn format_list(values: &[Value]) -> Outcome {
    let format = text(values, 0)?;
    let (_, arguments) = values.split_first().ok_or("needs a format")?;
    let lengths: Vec<usize> =
        arguments.iter().filter_map(|a| Some(a.as_sequence()?.len())).collect();
    let length = lengths.first().copied().unwrap_or(1);
    if lengths.iter().any(|other| *other != length) {
        return Err("the lists have different lengths".to_owned());
    }
    let rows = (0..length).map(|at| {
        let row = arguments.iter().map(|argument| match argument.as_sequence() {
            Some(list) => list.get(at).cloned().unwrap_or(Value::Null(Type::Dynamic)),
            None => argument.clone(),
        });
        formatted(format, &row.collect::<Vec<_>>())
    });
    Ok(Value::texts(rows.collect::<Result<Vec<_>, _>>()?))
}

/// A verb such as `%-5.2f`.
#[derive(Debug, Default)]
struct Verb {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
    /// Number of the argument, from 1.
    argument: Option<usize>,
    letter: char,
}

/// Largest width and precision; larger ones only waste memory.
const MAX_WIDTH: usize = 10_000;

fn formatted(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = format;
    let mut next = 0;
    let mut highest = 0;
    while let Some((literal, after)) = rest.split_once('%') {
        out.push_str(literal);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (verb, after) = parse(after)?;
        rest = after;
        let at = verb.argument.map_or(next, |at| at - 1);
        next = at + 1;
        highest = highest.max(next);
        let argument = arguments.get(at).ok_or_else(|| {
            format!("the format needs argument {}, but only {} are given", at + 1, arguments.len())
        })?;
        let text = apply(&verb, argument)?;
        out.push_str(&padded(&verb, text));
    }
    out.push_str(rest);
    if highest < arguments.len() {
        return Err(format!("only {highest} of {} arguments are used", arguments.len()));
    }
    Ok(out)
}

fn parse(text: &str) -> Result<(Verb, &str), String> {
    let mut verb = Verb::default();
    let mut rest = text;
    while let Some(flag) = rest.chars().next() {
        match flag {
            '-' => verb.minus = true,
            '+' => verb.plus = true,
            ' ' => verb.space = true,
            '0' => verb.zero = true,
            '#' => verb.sharp = true,
            _ => break,
        }
        rest = rest.get(1..).unwrap_or("");
    }
    let (width, after) = digits(rest)?;
    (verb.width, rest) = (width, after);
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = digits(after)?;
        (verb.precision, rest) = (Some(precision.unwrap_or(0)), after);
    }
    if let Some(after) = rest.strip_prefix('[') {
        let (number, after) = digits(after)?;
        let number = number.filter(|number| *number > 0).ok_or("an argument's number is wrong")?;
        let after = after.strip_prefix(']').ok_or("the format has a [ without ]")?;
        (verb.argument, rest) = (Some(number), after);
    }
    let mut chars = rest.chars();
    verb.letter = chars.next().ok_or("the format ends inside of a verb")?;
    Ok((verb, chars.as_str()))
}

fn digits(text: &str) -> Result<(Option<usize>, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    if digits.is_empty() {
        return Ok((None, rest));
    }
    let number = digits.parse().ok().filter(|number| *number <= MAX_WIDTH);
    Ok((Some(number.ok_or("a width is too large")?), rest))
}

fn apply(verb: &Verb, argument: &Value) -> Result<String, String> {
    let need = |kind: &Type| {
        if argument.is_null() {
            return Err(format!("%{} needs a value, not null", verb.letter));
        }
        convert(argument, kind).map_err(|error| format!("%{}: {error}", verb.letter))
    };
    let number = || {
        let number = need(&Type::Number)?.as_number().cloned();
        number.ok_or_else(|| "number required".to_owned())
    };
    let string = || Ok::<_, String>(need(&Type::String)?.as_text().unwrap_or("").to_owned());
    match verb.letter {
        'v' if !verb.sharp && argument.as_text().is_some() => string(),
        'v' if !verb.sharp && matches!(argument, Value::Number(_)) => string(),
        'v' => Ok(to_json(argument)),
        't' => string_of_bool(&need(&Type::Bool)?),
        'b' | 'd' | 'o' | 'x' | 'X' => integer(verb, &number()?),
        'e' | 'E' | 'f' | 'g' | 'G' => Ok(signed(verb, float(verb, &number()?))),
        's' => Ok(shortened(verb, string()?)),
        'q' => Ok(to_json(&Value::String(shortened(verb, string()?)))),
        other => Err(format!("the format has the unknown verb %{other}")),
    }
}

fn string_of_bool(value: &Value) -> Result<String, String> {
    value.as_bool().map(|value| value.to_string()).ok_or_else(|| "bool required".to_owned())
}

fn shortened(verb: &Verb, text: String) -> String {
    match verb.precision {
        Some(n) => text.graphemes(true).take(n).collect(),
        None => text,
    }
}

fn integer(verb: &Verb, number: &Number) -> Result<String, String> {
    let whole = number.truncate().to_integer().ok_or("the number is too large")?;
    let (radix, prefix) = match verb.letter {
        'b' => (2, "0b"),
        'o' => (8, "0"),
        'x' => (16, "0x"),
        'X' => (16, "0X"),
        _ => (10, ""),
    };
    let mut digits = whole.magnitude().to_str_radix(radix);
    if verb.letter == 'X' {
        digits = digits.to_uppercase();
    }
    if let Some(precision) = verb.precision {
        digits = format!("{}{digits}", "0".repeat(precision.saturating_sub(digits.len())));
    }
    let prefix = if verb.sharp { prefix } else { "" };
    let sign = if number.signum() < 0 { "-" } else { "" };
    Ok(signed(verb, format!("{sign}{prefix}{digits}")))
}

fn signed(verb: &Verb, text: String) -> String {
    match (text.starts_with('-'), verb.plus, verb.space) {
        (false, true, _) => format!("+{text}"),
        (false, false, true) => format!(" {text}"),
        _ => text,
    }
}

fn float(verb: &Verb, number: &Number) -> String {
    let value = number.to_f64();
    match verb.letter {
        'f' => format!("{value:.*}", verb.precision.unwrap_or(6)),
        'e' | 'E' => exponential(value, Some(verb.precision.unwrap_or(6)), verb.letter),
        _ => general(value, verb.precision, if verb.letter == 'G' { 'E' } else { 'e' }),
    }
}

/// Writes an exponent with a sign and two digits, as C and Go do.
fn exponential(value: f64, precision: Option<usize>, letter: char) -> String {
    let text = match precision {
        Some(precision) => format!("{value:.precision$e}"),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}{letter}{sign}{digits:0>2}")
}

/// Writes the shorter of both notations: an exponent below -4 or from 21 on needs the second.
fn general(value: f64, precision: Option<usize>, letter: char) -> String {
    let shortest = format!("{value:e}");
    let exponent: i64 = shortest.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let Some(precision) = precision.map(|precision| precision.max(1)) else {
        let large = !(-4..21).contains(&exponent);
        return if large { exponential(value, None, letter) } else { format!("{value}") };
    };
    let limit = i64::try_from(precision).unwrap_or(i64::MAX);
    let trimmed = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    if (-4..limit).contains(&exponent) {
        let decimals = usize::try_from(limit - 1 - exponent).unwrap_or(0);
        return trimmed(format!("{value:.decimals$}"));
    }
    let text = exponential(value, Some(precision - 1), letter);
    match text.split_once(letter) {
        Some((mantissa, exponent)) => format!("{}{letter}{exponent}", trimmed(mantissa.to_owned())),
        None => text,
    }
}

fn padded(verb: &Verb, text: String) -> String {
    let width = verb.width.unwrap_or(0);
    let blanks = width.saturating_sub(text.graphemes(true).count());
    if blanks == 0 {
        return text;
    }
    if verb.minus {
        return format!("{text}{}", " ".repeat(blanks));
    }
    if !verb.zero {
        return format!("{}{text}", " ".repeat(blanks));
    }
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.get(..1).unwrap_or(""), digits),
        None => ("", text.as_str()),
    };
    format!("{sign}{}{digits}", "0".repeat(blanks))
}
