//! The `created_by` texts of an image's history, in the form that Docker users know.

use crate::ir;

use super::step::HistoryLine;

/// An entry of an instruction that makes no layer.
pub(super) fn metadata(created_by: String) -> HistoryLine {
    HistoryLine { created_by, empty_layer: true }
}

/// An entry of an instruction that makes a layer.
pub(super) fn layer(created_by: String) -> HistoryLine {
    HistoryLine { created_by, empty_layer: false }
}

/// A list as Go's `%q` prints it: `["a" "b"]`.
pub(super) fn quoted(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// A string as Go's `strconv.Quote` prints it.
fn go_quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// HEALTHCHECK as Go prints the struct.
pub(super) fn healthcheck(test: &[String], check: &ir::Healthcheck) -> String {
    let duration = |value: Option<i64>| go_duration(value.unwrap_or(0));
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        test.join(" "),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries.unwrap_or(0),
    )
}

/// A duration as Go's `time.Duration.String` prints it: `1m30s`, `1.5s`, `100ms`, `0s`.
fn go_duration(nanoseconds: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    let fraction = |value: i64, unit: i64| {
        let digits =
            format!("{:0width$}", value % unit, width = unit.ilog10().try_into().unwrap_or(9));
        let digits = digits.trim_end_matches('0');
        let point = if digits.is_empty() { "" } else { "." };
        format!("{}{point}{digits}", value / unit)
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => format!("{}µs", fraction(n, 1_000)),
        n if n < SECOND => format!("{}ms", fraction(n, 1_000_000)),
        n => {
            let (hours, minutes) = (n / (3600 * SECOND), n / (60 * SECOND) % 60);
            let seconds = fraction(n % (60 * SECOND), SECOND);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        for (nanoseconds, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(nanoseconds), want);
        }
    }

    #[test]
    fn lists_are_quoted_as_go_does() {
        let words = ["/bin/sh", "-c", "echo \"a\\b\"\n"].map(str::to_owned);
        assert_eq!(quoted(&words), r#"["/bin/sh" "-c" "echo \"a\\b\"\n"]"#);
    }
}
