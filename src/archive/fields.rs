//! File names in the fields of ustar headers (POSIX pax(1), "ustar Interchange Format").

pub(super) fn is_ascii(text: &[u8]) -> bool {
    text.is_ascii() && !text.contains(&0)
}

/// Drops all characters but ASCII, for readers without PAX support.
pub(super) fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| byte.is_ascii() && *byte != 0).collect()
}

/// Cuts a name to 100 bytes. The result must not end in a slash: old readers would take it for a
/// directory.
pub(super) fn cut_name(mut name: Vec<u8>) -> Vec<u8> {
    if name.len() > 100 {
        name.truncate(100);
        if name.ends_with(b"/") {
            while name.ends_with(b"/") {
                name.pop();
            }
        }
    }
    name
}

/// Splits a long ASCII name at a slash into ustar's `prefix` (155 bytes) and `name` (100 bytes).
pub(super) fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !is_ascii(name) {
        return None;
    }
    let end = if name.len() > 156 { 156 } else { name.strip_suffix(b"/").unwrap_or(name).len() };
    let slash = name.get(..end)?.iter().rposition(|byte| *byte == b'/')?;
    let (prefix, rest) = (name.get(..slash)?, name.get(slash + 1..)?);
    let fits = !prefix.is_empty() && prefix.len() <= 155 && !rest.is_empty() && rest.len() <= 100;
    fits.then_some((prefix, rest))
}
