//! PAX records: `<length> <key>=<value>\n` (POSIX pax(1), "pax Extended Header").

use std::collections::BTreeMap;

use super::ArchiveError;

/// The prefix of extended attributes, as star, GNU tar, Go and BuildKit write them.
pub(super) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// The key and the value of a record.
pub(super) type Record<'a> = (&'a [u8], &'a [u8]);

/// Records by key; they are written in this order.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Encodes the records in order of their keys.
pub(super) fn encode(records: &Records) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        // The length includes its own digits, which may push it over a power of ten.
        let rest = key.len() + value.len() + 3;
        let mut total = rest + rest.to_string().len();
        total = rest + total.to_string().len();
        bytes.extend_from_slice(total.to_string().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(key);
        bytes.push(b'=');
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}

/// Decodes records in the order of the archive: keys may repeat (sparse maps of version 0.0).
///
/// The `tar` crate splits records at line ends, which values of extended attributes may contain.
pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Vec<Record<'_>>, ArchiveError> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() && rest.iter().any(|byte| *byte != 0) {
        let (record, after) = split_record(rest)
            .ok_or(ArchiveError::Malformed { at, what: "a PAX record has an invalid length" })?;
        records.push(record);
        rest = after;
    }
    Ok(records)
}

fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let total = decimal(bytes.get(..blank)?)?;
    let (record, after) = bytes.split_at_checked(usize::try_from(total).ok()?)?;
    let text = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some(((text.get(..equals)?, text.get(equals + 1..)?), after))
}

/// Parses a decimal number without a sign.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Parses a time in seconds with an optional sign and fraction, rounded down to whole seconds.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
        None => (text, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (negative, digits) = match whole.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, whole),
    };
    let value = i64::try_from(decimal(digits)?).ok()?;
    let below = i64::from(negative && fraction.iter().any(|digit| *digit != b'0'));
    if negative { value.checked_neg()?.checked_sub(below) } else { Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        let value = vec![b'x'; 90];
        let records =
            Records::from([(b"path".to_vec(), value.clone()), (b"a".to_vec(), b"\n".to_vec())]);
        let bytes = encode(&records);
        assert!(bytes.starts_with(b"6 a=\n\n99 path=xxx"));
        assert_eq!(decode(&bytes, 0).unwrap(), [(&b"a"[..], &b"\n"[..]), (b"path", &value)]);
        for n_bytes in 0..1200 {
            let records = Records::from([(b"k".to_vec(), vec![b'v'; n_bytes])]);
            assert_eq!(decode(&encode(&records), 0).unwrap(), [(&b"k"[..], &*vec![b'v'; n_bytes])]);
        }
    }

    #[test]
    fn records_with_an_invalid_length_are_refused() {
        for bytes in ["x", "5 a=b", "99 a=b\n", "6 ab=\n\n", "4 a\n", "-6 a=b\n"] {
            let error = decode(bytes.as_bytes(), 7).unwrap_err().to_string();
            assert_eq!(
                error,
                "the archive is damaged near byte 7: a PAX record has an invalid length"
            );
        }
    }

    #[test]
    fn times_are_rounded_down() {
        for (text, want) in [
            ("12", Some(12)),
            ("12.9", Some(12)),
            ("-1.5", Some(-2)),
            ("-1.0", Some(-1)),
            ("", None),
            ("1.x", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(seconds(text.as_bytes()), want, "{text}");
        }
    }
}
