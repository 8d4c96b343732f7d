//! The 512-byte header of a tar entry: its numbers and its checksum (POSIX pax(1), "ustar
//! Interchange Format"; GNU tar manual, "Basic Tar Format").

use tar::Header;

/// The size of a block: headers and contents start at multiples of it.
pub(super) const BLOCK: usize = 512;

/// A block of zeros; two of them end a tar.
pub(super) const ZERO_BLOCK: [u8; BLOCK] = [0; BLOCK];

/// Returns the first value that does not fit an octal field of `width` bytes, of which one is a
/// NUL.
pub(super) const fn octal_limit(width: u32) -> u64 {
    1 << (3 * (width - 1))
}

/// Writes `value` in octal with leading zeros and a final NUL. A value that does not fit is written
/// as zero: a PAX record contains it.
pub(super) fn put_octal(field: &mut [u8], value: u64) {
    let width = u32::try_from(field.len()).unwrap_or(u32::MAX);
    let mut rest = if value < octal_limit(width) { value } else { 0 };
    let Some((last, digits)) = field.split_last_mut() else { return };
    *last = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest & 7).unwrap_or(0);
        rest >>= 3;
    }
}

/// Writes as much of `text` as fits.
pub(super) fn put_bytes(field: &mut [u8], text: &[u8]) {
    field.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
}

/// Reads a field up to its first NUL.
pub(super) fn bytes(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Reads a number: octal between blanks and NULs, or base-256 with a sign (GNU tar manual,
/// "Extensions").
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => {
            // 0xff begins a negative number; other first bytes contain six bits of a positive one.
            let start = if first & 0x40 == 0 { i64::from(first & 0x3f) } else { -1 };
            rest.iter().try_fold(start, |value, byte| {
                value.checked_mul(256)?.checked_add(i64::from(*byte))
            })
        }
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let text = field.get(start..)?;
    let end = text.iter().position(blank).unwrap_or(text.len());
    text.get(..end)?.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Returns the sum of all bytes of the header, with those of the checksum field counted as blanks.
fn checksum(header: &Header) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(header.as_bytes()) - sum(&header.as_old().cksum) + 8 * u32::from(b' ')
}

/// Writes the checksum: six digits, a NUL, a blank.
pub(super) fn seal(header: &mut Header) {
    let sum = checksum(header);
    let [digits @ .., last] = &mut header.as_old_mut().cksum;
    put_octal(digits, u64::from(sum));
    *last = b' ';
}

/// Returns whether the checksum is right. Sun's tar summed signed bytes, so both sums are accepted.
pub(super) fn is_sealed(header: &Header) -> bool {
    let field = &header.as_old().cksum;
    let Some(found) = octal(field) else { return false };
    let n_high: i64 = header.as_bytes().iter().map(|byte| i64::from(byte >> 7)).sum();
    let high_in_field: i64 = field.iter().map(|byte| i64::from(byte >> 7)).sum();
    let unsigned = i64::from(checksum(header));
    found == unsigned || found == unsigned - 256 * (n_high - high_in_field)
}

/// Returns whether a stream with this beginning is a tar: its first header has the ustar or GNU
/// magic, or at least (v7) a name, and a valid checksum.
#[must_use]
pub fn is_tar(first_512: &[u8]) -> bool {
    let Some(block) = first_512.get(..BLOCK) else { return false };
    let header = Header::from_byte_slice(block);
    let named = header.as_old().name.first().is_some_and(|byte| *byte != 0);
    let marked = header.as_ustar().is_some() || header.as_gnu().is_some();
    is_sealed(header) && (marked || named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, want) in [
            (&b"0000755\0"[..], Some(0o755)),
            (b"   755 \0", Some(0o755)),
            (b"755     ", Some(0o755)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"00000008", None),
            (b"\x80\0\0\0\0\x20\0\0", Some(0x20_0000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), want, "{field:?}");
        }
    }

    #[test]
    fn octal_fields_are_full_and_end_in_nul() {
        let mut field = [1; 8];
        put_octal(&mut field, 0o755);
        assert_eq!(&field, b"0000755\0");
        put_octal(&mut field, 1 << 21);
        assert_eq!(&field, b"0000000\0");
    }

    #[test]
    fn tar_is_recognised_by_its_first_header() {
        let mut header = Header::new_old();
        put_bytes(&mut header.as_old_mut().name, b"a");
        assert!(!is_tar(header.as_bytes()));
        seal(&mut header);
        assert!(is_tar(header.as_bytes()));
        assert!(!is_tar(&header.as_bytes()[..511]));
        assert!(!is_tar(&ZERO_BLOCK));
    }
}
