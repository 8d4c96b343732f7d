//! Limits on the duration of a RUN, and the words for a command that exceeded one.

use std::time::{Duration, Instant};

use crate::executor::CancelSwitch;
use crate::executor::mounts::mask::{Mask, MaskedStream};
use crate::plan::{RunOperation, redacted};

/// Maximum number of characters of a command line in an error.
const MAX_SHOWN: usize = 200;

/// The limit that a command reaches first.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor) struct TimeLimit {
    deadline: Option<Instant>,
    /// Maximum duration of the command.
    step: Option<Duration>,
    /// Maximum duration of the build.
    build: Option<Duration>,
    is_of_build: bool,
}

impl TimeLimit {
    /// Returns the limits of a command that starts now.
    pub(super) fn of(operation: &RunOperation, cancel: &CancelSwitch) -> Self {
        let step = operation.patience.timeout;
        let own = step.and_then(|limit| Instant::now().checked_add(limit));
        let (of_build, build) = cancel.deadline().unzip();
        let is_of_build = of_build.is_some_and(|end| own.is_none_or(|own| end <= own));
        Self { deadline: own.into_iter().chain(of_build).min(), step, build, is_of_build }
    }

    /// Returns the time at which the command is killed.
    pub(super) const fn deadline(self) -> Option<Instant> {
        self.deadline
    }

    /// Returns it as the limit of the build, which another thread noticed first.
    pub(super) const fn of_build(self) -> Self {
        Self { is_of_build: true, ..self }
    }

    /// Describes the limit, as in `timed out after 5m`.
    pub(super) fn how(self) -> String {
        let limit = if self.is_of_build { self.build } else { self.step };
        let limit = humantime::format_duration(limit.unwrap_or_default());
        if self.is_of_build {
            format!("the build took longer than {limit} (--timeout)")
        } else {
            format!("timed out after {limit}")
        }
    }

    /// Says how to raise the limit.
    pub(super) fn help(self) -> String {
        if self.is_of_build {
            "raise the limit of the build with --timeout; finished steps are cached".to_owned()
        } else {
            "raise the limit of steps with --step-timeout, or of this one with a comment above the RUN: \
             `# rbuild: timeout=DURATION`"
                .to_owned()
        }
    }
}

/// Returns a command line of null-terminated words as one line, without secrets.
pub(super) fn shown_command_line(line: &[u8], mask: &Mask) -> String {
    let words = line.strip_suffix(&[0]).unwrap_or(line);
    let words: Vec<u8> = words.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    let mut stream = MaskedStream::default();
    let mut shown = mask.pass(&mut stream, &words).into_owned();
    shown.extend(mask.end(&stream));
    let text = String::from_utf8_lossy(&shown);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = redacted(&text);
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_one_line_without_secrets() {
        let mut mask = Mask::default();
        mask.add(b"hunter2");
        for (line, want) in [
            (b"sleep\x0060\0".as_slice(), "sleep 60"),
            (b"curl\0-H\0token: hunter2\0", "curl -H token: ****"),
            (b"wget\0https://me:pass@host/x\0", "wget https://me:xxxxx@host/x"),
            (b"sh\0-c\0a\nb\x1b[31m\0", "sh -c a b [31m"),
        ] {
            assert_eq!(shown_command_line(line, &mask), want);
        }
        let long = shown_command_line(&[b'x'; 400], &mask);
        assert_eq!(long.chars().count(), MAX_SHOWN + 1);
    }
}
