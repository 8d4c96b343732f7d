//! The first line of a script, read as Linux's `fs/binfmt_script.c` does since Linux 5.11.

/// Number of bytes that the kernel reads (`BINPRM_BUF_SIZE`).
pub(super) const HEAD_BYTES: usize = 256;

/// A `#!` line. Both values may be empty: the kernel then opens, or passes, an empty string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Shebang {
    /// The path of the program that runs the script.
    pub(in crate::sandbox) interpreter: Vec<u8>,
    /// The rest of the line: one argument, with its spaces.
    pub(in crate::sandbox) argument: Option<Vec<u8>>,
}

impl Shebang {
    /// Parses the first bytes of a file; bytes after the first 256 have no effect. Returns `None`
    /// where execve(2) fails with `NOEXEC`.
    pub(in crate::sandbox) fn parse(file: &[u8]) -> Option<Self> {
        let mut head = [0; HEAD_BYTES];
        for (to, from) in head.iter_mut().zip(file) {
            *to = *from;
        }
        if !head.starts_with(b"#!") {
            return None;
        }
        let end = trimmed(&head, line_end(&head)?);
        let name = next_non_blank(&head, 2, end).filter(|name| *name != end)?;
        // The byte at `end` may still be one of the blanks that were trimmed.
        let separator = next_terminator(&head, name, end);
        let argument = separator
            .filter(|separator| head.get(*separator) != Some(&0))
            .and_then(|separator| next_non_blank(&head, separator, end));
        let name_end = argument.and(separator).unwrap_or(end);
        Some(Self {
            interpreter: string(&head, name, name_end),
            argument: argument.map(|argument| string(&head, argument, end)),
        })
    }
}

/// Returns the position of the newline, or of the last byte if there is none but the path is
/// complete: a truncated argument is accepted, a truncated path is not.
fn line_end(head: &[u8; HEAD_BYTES]) -> Option<usize> {
    let stop = head.iter().position(|byte| [b'\n', 0].contains(byte));
    if let Some(stop) = stop.filter(|stop| head.get(*stop) == Some(&b'\n')) {
        return Some(stop);
    }
    let last = HEAD_BYTES - 1;
    let name = next_non_blank(head, 2, last)?;
    next_terminator(head, name, last).map(|_terminator| last)
}

/// Returns `end` without the blanks before it.
fn trimmed(head: &[u8; HEAD_BYTES], end: usize) -> usize {
    let before = head.get(..end).unwrap_or_default();
    before.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last.saturating_add(1))
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Returns the first position from `first` to `last`, inclusive, without a blank.
fn next_non_blank(head: &[u8], first: usize, last: usize) -> Option<usize> {
    let bytes = head.get(first..=last)?;
    bytes.iter().position(|byte| !is_blank(*byte)).and_then(|at| first.checked_add(at))
}

/// Returns the first position from `first` to `last`, inclusive, with a blank or a null byte.
fn next_terminator(head: &[u8], first: usize, last: usize) -> Option<usize> {
    let bytes = head.get(first..=last)?;
    let found = bytes.iter().position(|byte| is_blank(*byte) || *byte == 0);
    found.and_then(|at| first.checked_add(at))
}

/// Returns the bytes from `first` to before `end`, or before a null byte.
fn string(head: &[u8], first: usize, end: usize) -> Vec<u8> {
    let bytes = head.get(first..end).unwrap_or_default();
    bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &[u8], want: Option<(&str, Option<&str>)>) {
        let found = Shebang::parse(file);
        let want = want.map(|(interpreter, argument)| Shebang {
            interpreter: interpreter.into(),
            argument: argument.map(Into::into),
        });
        assert_eq!(found, want, "{}", file.escape_ascii());
    }

    #[test]
    fn lines_are_split_like_the_kernel_does() {
        check(b"#!/bin/sh\n", Some(("/bin/sh", None)));
        check(b"#! \t/bin/sh \t\necho", Some(("/bin/sh", None)));
        check(b"#!/usr/bin/env  perl -w \t\n", Some(("/usr/bin/env", Some("perl -w"))));
        check(b"#!/bin/sh\r\n", Some(("/bin/sh\r", None)));
        check(b"#!x\ty\tz\n", Some(("x", Some("y\tz"))));
    }

    #[test]
    fn lines_without_a_newline_end_at_the_end_of_the_file() {
        check(b"#!/bin/sh", Some(("/bin/sh", None)));
        check(b"#!/bin/sh -e  ", Some(("/bin/sh", Some("-e  "))));
        check(b"#!/bin/sh ", Some(("/bin/sh", Some(""))));
        check(b"#! ", Some(("", None)));
        check(b"#!/bin/sh\0x\n", Some(("/bin/sh", None)));
    }

    #[test]
    fn lines_without_an_interpreter_are_rejected() {
        for file in [&b""[..], b"#", b"#x", b"#!\n", b"#! \t \n", b"echo #!/bin/sh\n"] {
            check(file, None);
        }
        check(&[b"#!".as_slice(), &[b' '; 254]].concat(), None);
    }

    #[test]
    fn a_truncated_argument_is_accepted_and_a_truncated_path_is_not() {
        let path = "/".repeat(253);
        check(format!("#!{path}\n").as_bytes(), Some((&path, None)));
        check(format!("#!{path}/\n").as_bytes(), None);
        let line = format!("#!/bin/sh {}\n", "a".repeat(300));
        check(line.as_bytes(), Some(("/bin/sh", Some(&"a".repeat(245)))));
        let blanks = format!("#!/bin/sh{}x\n", " ".repeat(300));
        check(blanks.as_bytes(), Some(("/bin/sh", None)));
    }
}
