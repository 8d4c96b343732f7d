//! Calendar times with an offset from UTC (RFC 3339).

use std::fmt;

const DAY_S: i64 = 86_400;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A time and the offset in which it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timestamp {
    /// Seconds since 1970, in UTC.
    unix_s: i64,
    nanoseconds: i64,
    /// Seconds that the written time is ahead of UTC.
    offset_s: i64,
}

/// A civil date and time.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    weekday: i64,
}

/// Returns the number of days from 1970-01-01 to a date (Howard Hinnant, `days_from_civil`).
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Returns year, month and day of a number of days from 1970-01-01 (`civil_from_days`).
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + if month <= 2 { 1 } else { 0 }, month, day)
}

impl Timestamp {
    /// Makes a time in UTC. `None` if the year is not between 1 and 9999.
    #[must_use]
    pub(crate) fn of_unix(unix_s: i64) -> Option<Self> {
        let in_range = (-62_135_596_800..=253_402_300_799).contains(&unix_s);
        in_range.then_some(Self { unix_s, nanoseconds: 0, offset_s: 0 })
    }

    /// Reads RFC 3339.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(['T', 't', ' '])?;
        let [year, month, day] = numbers::<3>(date, '-', &[4, 2, 2])?;
        let zone = time.find(['Z', 'z', '+', '-'])?;
        let (time, zone) = time.split_at_checked(zone)?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let [hour, minute, second] = numbers::<3>(time, ':', &[2, 2, 2])?;
        let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        let offset_s = match zone {
            "Z" | "z" => 0,
            _ => {
                let [hours, minutes] = numbers::<2>(zone.get(1..)?, ':', &[2, 2])?;
                let size = hours * 3600 + minutes * 60;
                if zone.starts_with('-') { -size } else { size }
            }
        };
        let days = days_from_civil(year, month, day);
        let valid = civil_from_days(days) == (year, month, day) && hour < 24 && minute < 60;
        let unix_s = days * DAY_S + hour * 3600 + minute * 60 + second - offset_s;
        (valid && second < 60).then_some(Self { unix_s, nanoseconds, offset_s })
    }

    /// Returns the seconds since 1970.
    #[must_use]
    pub(crate) const fn unix_s(&self) -> i64 {
        self.unix_s
    }

    /// Returns the time that many nanoseconds later.
    #[must_use]
    pub(crate) fn plus(&self, nanoseconds: i64) -> Option<Self> {
        let all = self.nanoseconds.checked_add(nanoseconds)?;
        let unix_s = self.unix_s.checked_add(all.div_euclid(1_000_000_000))?;
        Self::of_unix(unix_s)?;
        Some(Self { unix_s, nanoseconds: all.rem_euclid(1_000_000_000), ..*self })
    }

    const fn civil(&self) -> Civil {
        let local = self.unix_s + self.offset_s;
        let (days, of_day) = (local.div_euclid(DAY_S), local.rem_euclid(DAY_S));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        Civil { year, month, day, hour, minute, second, weekday: (days + 4).rem_euclid(7) }
    }

    /// Returns the parts of the time, as `unixtimestampparse` names them.
    #[must_use]
    pub(crate) fn members(&self) -> Vec<(&'static str, Result<i64, String>)> {
        let civil = self.civil();
        let day_of_year = days_from_civil(civil.year, civil.month, civil.day)
            - days_from_civil(civil.year, 1, 1)
            + 1;
        let (iso_year, iso_week) = iso_week(&civil);
        vec![
            ("year", Ok(civil.year)),
            ("year_day", Ok(day_of_year)),
            ("day", Ok(civil.day)),
            ("month", Ok(civil.month)),
            ("month_name", Err(name(&MONTHS, civil.month - 1).to_owned())),
            ("weekday", Ok(civil.weekday)),
            ("weekday_name", Err(name(&WEEKDAYS, civil.weekday).to_owned())),
            ("hour", Ok(civil.hour)),
            ("minute", Ok(civil.minute)),
            ("second", Ok(civil.second)),
            ("rfc3339", Err(self.to_string())),
            ("iso_year", Ok(iso_year)),
            ("iso_week", Ok(iso_week)),
        ]
    }

    /// Returns the offset as `+01:30`, with `separator` between hours and minutes.
    fn offset(&self, separator: &str) -> String {
        let sign = if self.offset_s < 0 { '-' } else { '+' };
        let minutes = self.offset_s.abs() / 60;
        format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
    }
}

/// Returns the ISO 8601 week: the week belongs to the year of its Thursday.
fn iso_week(civil: &Civil) -> (i64, i64) {
    let thursday =
        days_from_civil(civil.year, civil.month, civil.day) - (civil.weekday + 6).rem_euclid(7) + 3;
    let (year, ..) = civil_from_days(thursday);
    (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
}

fn name(names: &[&'static str], at: i64) -> &'static str {
    usize::try_from(at).ok().and_then(|at| names.get(at)).copied().unwrap_or("")
}

/// Reads numbers of fixed width.
fn numbers<const N: usize>(text: &str, separator: char, widths: &[usize]) -> Option<[i64; N]> {
    let parts: Vec<&str> = text.split(separator).collect();
    let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let fits = parts.iter().map(|part| part.len()).eq(widths.iter().copied());
    let valid = fits && parts.iter().all(digits);
    let values: Option<Vec<i64>> = parts.iter().map(|part| part.parse().ok()).collect();
    valid.then_some(values?).and_then(|values| values.try_into().ok())
}

/// Writes RFC 3339 without a fraction of a second.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second, .. } = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.offset_s == 0 { f.write_str("Z") } else { f.write_str(&self.offset(":")) }
    }
}

/// Writes a time in a format such as `DD MMM YYYY hh:mm ZZZ` (cty, `FormatDateFunc`).
///
/// # Errors
/// The format has an unknown sequence of letters, or a quote is not closed.
pub(crate) fn format(format: &str, time: &Timestamp) -> Result<String, String> {
    let civil = time.civil();
    let mut out = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            rest = quoted(rest, &mut out)?;
            continue;
        }
        let end = rest.find(|c| c != first).unwrap_or(rest.len());
        let (token, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        rest = after;
        if first.is_ascii_alphabetic() {
            out.push_str(&verb(token, &civil, time)?);
        } else {
            out.push_str(token);
        }
    }
    Ok(out)
}

/// Copies literal text in quotes, in which two quotes stand for one. Returns what follows.
fn quoted<'a>(text: &'a str, out: &mut String) -> Result<&'a str, String> {
    let mut rest = text.get(1..).unwrap_or("");
    if let Some(after) = rest.strip_prefix('\'') {
        out.push('\'');
        return Ok(after);
    }
    loop {
        let (part, after) =
            rest.split_once('\'').ok_or("the format has a quote that is not closed")?;
        out.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                out.push('\'');
                rest = after;
            }
            None => return Ok(after),
        }
    }
}

fn verb(token: &str, civil: &Civil, time: &Timestamp) -> Result<String, String> {
    let short = |name: &str| name.get(..3).unwrap_or(name).to_owned();
    let half = if civil.hour % 12 == 0 { 12 } else { civil.hour % 12 };
    let afternoon = civil.hour >= 12;
    Ok(match token {
        "YYYY" => format!("{:04}", civil.year),
        "YY" => format!("{:02}", civil.year % 100),
        "MMMM" => name(&MONTHS, civil.month - 1).to_owned(),
        "MMM" => short(name(&MONTHS, civil.month - 1)),
        "MM" => format!("{:02}", civil.month),
        "M" => civil.month.to_string(),
        "DD" => format!("{:02}", civil.day),
        "D" => civil.day.to_string(),
        "EEEE" => name(&WEEKDAYS, civil.weekday).to_owned(),
        "EEE" => short(name(&WEEKDAYS, civil.weekday)),
        "hh" => format!("{:02}", civil.hour),
        "h" => civil.hour.to_string(),
        "HH" => format!("{half:02}"),
        "H" => half.to_string(),
        "AA" => if afternoon { "PM" } else { "AM" }.to_owned(),
        "aa" => if afternoon { "pm" } else { "am" }.to_owned(),
        "mm" => format!("{:02}", civil.minute),
        "m" => civil.minute.to_string(),
        "ss" => format!("{:02}", civil.second),
        "s" => civil.second.to_string(),
        "ZZZZZ" => time.offset(":"),
        "ZZZZ" => time.offset(""),
        "ZZZ" if time.offset_s == 0 => "UTC".to_owned(),
        "ZZZ" => time.offset(""),
        "Z" if time.offset_s == 0 => "Z".to_owned(),
        "Z" => time.offset(":"),
        other => {
            return Err(format!(
                "the format has the unknown sequence {other:?}; quote text with '"
            ));
        }
    })
}

/// Reads a duration such as `-1h30m` (Go's `time.ParseDuration`) as nanoseconds.
///
/// # Errors
/// The text is not a duration.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a duration such as 1h30m");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0_i64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (digits, after) = rest.split_at_checked(end).ok_or_else(bad)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end).ok_or_else(bad)?;
        rest = after;
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok().ok_or_else(bad)? };
        let mut part = whole.checked_mul(unit).ok_or_else(bad)?;
        let mut scale = unit;
        for digit in fraction.chars().map(|c| c.to_digit(10)) {
            scale /= 10;
            part += scale * i64::from(digit.ok_or_else(bad)?);
        }
        total = total.checked_add(part).ok_or_else(bad)?;
    }
    Ok(if negative { -total } else { total })
}
