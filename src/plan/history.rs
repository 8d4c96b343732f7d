//! The `created_by` texts of an image's history (image-spec, config.md), in BuildKit's format.

use crate::dockerfile::ir;
use crate::dockerfile::scope::StageScope;

use super::step::HistoryLine;

/// Makes the entry of an instruction without a layer.
pub(super) fn metadata(created_by: String) -> HistoryLine {
    HistoryLine { created_by, empty_layer: true }
}

/// Makes the entry of an instruction with a layer.
pub(super) fn layer(created_by: String) -> HistoryLine {
    HistoryLine { created_by, empty_layer: false }
}

/// Formats a list as Go's `%q` does: `["a" "b"]`.
pub(super) fn quoted(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Quotes a string as Go's `strconv.Quote` does (<https://pkg.go.dev/strconv#Quote>).
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

/// Returns the `|N NAME=value …` in front of a RUN's command line; empty without ARGs.
pub(super) fn args_prefix(scope: &StageScope) -> String {
    let args: Vec<String> = scope.args().map(|(name, value)| format!("{name}={value}")).collect();
    if args.is_empty() {
        return String::new();
    }
    format!("|{} {} ", args.len(), args.join(" "))
}

/// Formats a HEALTHCHECK as Go prints its struct.
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

/// Formats a duration as Go does: `1m30s`, `1.5s`, `100ms`, `0s`
/// (<https://pkg.go.dev/time#Duration.String>).
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

    /// Returns the last history entry of a stage with these lines, or the messages of its errors.
    fn history_of(lines: &str) -> String {
        let request = crate::plan::Request {
            contexts: crate::plan::NamedContexts::default(),
            build_args: Default::default(),
            target: None,
            platforms: vec![crate::oci::Platform::host()],
            platform_given: false,
            build_platform: crate::oci::Platform::host(),
            labels: Vec::new(),
            changes: Default::default(),
            first_base: None,
            network: crate::plan::Network::Host,
            allow_host_network: false,
            allow_insecure: false,
            uncached: crate::plan::Uncached::None,
            run: crate::plan::RunSettings::default(),
        };
        let (file, diagnostics) =
            crate::dockerfile::syntax::parse(&format!("FROM scratch\n{lines}\n"));
        assert_eq!(diagnostics, []);
        match crate::plan::plan(&file, &request, &crate::plan::Images::new()) {
            Ok(crate::plan::Outcome::Ready(plan)) => {
                let steps = plan.stages.first().map(|stage| stage.steps.as_slice());
                let line = steps.and_then(<[_]>::last).and_then(|step| step.history.clone());
                line.map(|line| line.created_by).unwrap_or_default()
            }
            Ok(crate::plan::Outcome::Needs(needs)) => format!("{} images needed", needs.len()),
            Err(errors) => errors.into_iter().map(|error| error.message).collect(),
        }
    }

    #[test]
    fn ports_are_listed_as_buildkit_does() {
        for (lines, want) in [
            ("EXPOSE 80", "[80/tcp]"),
            ("EXPOSE 443/tcp 53/udp 132/sctp", "[132/sctp 443/tcp 53/udp]"),
            ("EXPOSE 8080/TCP 5353/UDP", "[5353/udp 8080/tcp]"),
            ("EXPOSE 9000-9001/udp 7000-7002", "[7000/tcp 7001/tcp 7002/tcp 9000/udp 9001/udp]"),
            // Words are sorted as text; a range keeps its order.
            ("EXPOSE 9 10 9-11", "[10/tcp 9/tcp 9/tcp 10/tcp 11/tcp]"),
            ("EXPOSE 80/tcp 80", "[80/tcp 80/tcp]"),
            ("EXPOSE 0.0.0.0:1:3 2", "[3/tcp 2/tcp]"),
            // Words are sorted before variables are expanded.
            ("ENV Z=1 A=2\nEXPOSE $Z $A", "[2/tcp 1/tcp]"),
            ("ENV L=\"9 1\"\nEXPOSE $L 5", "[9/tcp 1/tcp 5/tcp]"),
        ] {
            assert_eq!(history_of(lines), format!("EXPOSE {want}"), "{lines}");
        }
    }

    #[test]
    fn ports_of_a_stage_are_bounded() {
        let all = "EXPOSE 1-65535 1-65535/udp 1-65535/sctp";
        assert!(history_of(all).ends_with(" 65535/udp]"));
        for lines in [format!("{all} 1"), format!("{all}\nEXPOSE 1")] {
            assert_eq!(history_of(&lines), "a stage exposes more than 196605 ports");
        }
    }

    #[test]
    fn copy_lists_heredocs_after_paths() {
        for (lines, want) in [
            ("COPY <<EOF /f\nx\nEOF", "COPY <<EOF /f # buildkit"),
            ("COPY <<-\"E\" /f\n\tx\n\tE", "COPY <<E /f # buildkit"),
            ("COPY <<a <<b c /d/\na\nb", "COPY c <<a <<b /d/ # buildkit"),
            ("ADD <<a c <<b d /d/\na\nb", "ADD c d <<a <<b /d/ # buildkit"),
            (
                "COPY --chown=1:2 --chmod=0750 <<a c /d/\na",
                "COPY --chown=1:2 --chmod=0750 c <<a /d/ # buildkit",
            ),
        ] {
            assert_eq!(history_of(lines), want, "{lines}");
        }
    }

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
