//! Sizes in bytes, formatted for people and parsed from arguments.

/// Formats a number of bytes for people, such as `12.3MB`, in powers of ten as docker does.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    for (unit, factor) in units {
        if bytes >= factor {
            let tenths = bytes / (factor / 10);
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes}B")
}

/// Parses a size such as `500MB` into bytes; returns `None` if the text is not a size.
///
/// Units are powers of ten, as [`size`] writes them. Units with an `i`, as in `1.5GiB`, are powers of
/// 1024.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at_checked(digits)?;
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let mut bytes = u128::from(whole.parse::<u64>().ok()?) * u128::from(factor);
    let mut part = u128::from(factor);
    // Further digits are worth less than a byte in any unit.
    for digit in fraction.chars().take(12) {
        let worth = u128::from(digit.to_digit(10)?) * u128::from(factor);
        part = part.checked_mul(10)?;
        bytes += worth * u128::from(factor) / part;
    }
    u64::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, want) in [(0, "0B"), (999, "999B"), (1_250, "1.2kB"), (57_300_000, "57.3MB")] {
            assert_eq!(size(bytes), want);
        }
    }

    #[test]
    fn sizes_are_parsed_in_powers_of_ten_unless_the_unit_has_an_i() {
        for (text, want) in [
            ("500MB", Some(500_000_000)),
            ("1.5GiB", Some(1_610_612_736)),
            ("1.5GB", Some(1_500_000_000)),
            ("0.25 kb", Some(250)),
            ("12", Some(12)),
            ("1KiB", Some(1024)),
            ("99999999999TB", None),
            ("", None),
            (".5MB", None),
            ("1.x", None),
            ("1.2.3MB", None),
            ("5 apples", None),
            ("-1", None),
        ] {
            assert_eq!(parse_size(text), want, "{text}");
        }
    }
}
