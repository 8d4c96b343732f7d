//! Signal names for STOPSIGNAL (<https://docs.docker.com/reference/dockerfile/#stopsignal>).

/// Names without `SIG` and their numbers on x86 and ARM Linux (signal(7)).
const SIGNALS: [(&str, u8); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Number of the last real-time signal, `SIGRTMAX` (signal(7)).
const LAST: u8 = 64;
/// Largest offsets in `SIGRTMIN+n` and `SIGRTMAX-n` that have names, as in bash's `kill -l`.
const NAMED_REAL_TIME: (u8, u8) = (15, 14);

/// Returns whether `text` is a signal: a number from 1 to 64, or a name with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=LAST).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, sign: char, most: u8| {
        let offset = rest.strip_prefix(sign).map(str::parse::<u8>);
        rest.is_empty() || offset.is_some_and(|o| o.is_ok_and(|o| o <= most))
    };
    SIGNALS.iter().any(|(known, _)| *known == name)
        || name.strip_prefix("RTMIN").is_some_and(|rest| real_time(rest, '+', NAMED_REAL_TIME.0))
        || name.strip_prefix("RTMAX").is_some_and(|rest| real_time(rest, '-', NAMED_REAL_TIME.1))
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for good in ["SIGTERM", "term", "9", "64", "SIGRTMIN+15", "RTMAX-14", "SIGRTMIN"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["0", "65", "SIGFOO", "", "SIG", "RTMIN+16", "RTMAX-15", "-1"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
