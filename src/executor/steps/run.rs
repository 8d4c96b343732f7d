//! RUN: executes one command in a rootfs made of the layers so far.

use std::collections::VecDeque;

use crate::diag::{Span, size};
use crate::plan::RunOperation;
use crate::sandbox::{Exit, Output, SandboxError};

use super::run_failure::FailedStep;
use super::step_files::StepFiles;
use super::step_root::StepRoot;

use crate::executor::active_step::ActiveStep;
use crate::executor::error::unshared;
use crate::executor::mounts::mask::MaskedStream;
use crate::executor::mounts::source::MountInputs;
use crate::executor::stack::Stack;
use crate::executor::state::BuildState;
use crate::executor::{BuildError, Event, Failure, Services, Stream};

/// Maximum number of lines of a failed command that its error repeats.
pub const LAST_LINES: usize = 20;

/// A RUN that failed.
#[derive(Debug)]
pub(in crate::executor) struct FailedRun {
    pub(in crate::executor) error: BuildError,
    /// The rootfs as the command left it, if `BuildOptions::keep_failed` asks for it.
    pub(in crate::executor) root: Option<Box<StepRoot>>,
}

impl From<BuildError> for FailedRun {
    fn from(error: BuildError) -> Self {
        Self { error, root: None }
    }
}

impl From<Failure> for FailedRun {
    fn from(failure: Failure) -> Self {
        unshared(failure).into()
    }
}

/// Runs the command of `operation` at `span` in `files`, which are those of `stack`; returns them as the
/// command left them.
///
/// A command whose changes take too much memory runs again, with its changes on the disk.
pub(in crate::executor) fn run(
    state: &BuildState<'_>,
    step: &ActiveStep,
    (operation, span): (&RunOperation, Span),
    inputs: &MountInputs,
    (files, stack): (StepFiles, &Stack),
) -> std::result::Result<StepFiles, FailedRun> {
    let services = state.services;
    let mut root = StepRoot::prepare(state, step, span, operation, inputs, files)?;
    services.execute(step, state.root_remark());
    let (mut exit, mut last_lines) = run_shown(services, step, &root);
    if let Err(SandboxError::MemoryLimit { max_bytes }) = exit {
        let text = format!(
            "{} changed more than {} of files, for which memory is too short: it runs again, on the disk",
            step.name,
            size(max_bytes)
        );
        services.event(Event::Note { text });
        drop(root);
        let files = StepFiles::in_place(state, stack, span)?;
        root = StepRoot::prepare(state, step, span, operation, inputs, files)?;
        (exit, last_lines) = run_shown(services, step, &root);
    }
    if services.cancel.is_set() && !matches!(exit, Ok(Exit::Code(0))) {
        return Err(services.stopped().into());
    }
    match exit {
        Ok(Exit::Code(0)) => Ok(root.done()?),
        exit => {
            let failed = FailedStep {
                span,
                step,
                operation,
                root: root.as_fd(),
                provided: &state.options.provided,
            };
            let error = failed.error(exit, last_lines.into_lines());
            let root = root.is_kept().then(|| Box::new(root));
            Err(FailedRun { error, root })
        }
    }
}

/// Runs the command and reports its output with secrets masked.
fn run_shown(
    services: &Services<'_>,
    step: &ActiveStep,
    root: &StepRoot,
) -> (std::result::Result<Exit, SandboxError>, LastLines) {
    let mask = root.mask();
    let mut last_lines = LastLines::default();
    let mut show = |stream, bytes: Vec<u8>| {
        if !bytes.is_empty() {
            last_lines.push(&bytes);
            services.event(Event::Output { step: step.id, stream, bytes });
        }
    };
    let (mut out, mut err) = (MaskedStream::default(), MaskedStream::default());
    let stop = services.cancel.as_fd();
    let exit = root.run(stop, &mut |output, bytes| match output {
        Output::Stdout => show(Stream::Stdout, mask.pass(&mut out, bytes).into_owned()),
        Output::Stderr => show(Stream::Stderr, mask.pass(&mut err, bytes).into_owned()),
    });
    show(Stream::Stdout, mask.end(&out));
    show(Stream::Stderr, mask.end(&err));
    (exit, last_lines)
}

/// The last lines of an output of any length.
#[derive(Debug, Default)]
struct LastLines {
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

/// Maximum length of a kept line.
const MAX_LINE_BYTES: usize = 4096;

impl LastLines {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.open {
                self.lines.push_back(Vec::new());
                if self.lines.len() > LAST_LINES {
                    self.lines.pop_front();
                }
            }
            self.open = !piece.ends_with(b"\n");
            let Some(line) = self.lines.back_mut() else { continue };
            for byte in piece.iter().filter(|byte| **byte != b'\n') {
                // If a line is overwritten, as by progress bars, its last content counts.
                let is_overwritten = *byte != b'\r' && line.last() == Some(&b'\r');
                if is_overwritten {
                    line.clear();
                }
                if line.len() < MAX_LINE_BYTES {
                    line.push(*byte);
                } else if *byte == b'\r' {
                    line.clear();
                }
            }
        }
    }

    fn into_lines(self) -> Vec<String> {
        let text = |line: Vec<u8>| String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
        self.lines.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_kept_across_chunks() {
        let mut last_lines = LastLines::default();
        for n in 0..30 {
            last_lines.push(b"line");
            last_lines.push(format!(" {n}\n").as_bytes());
        }
        last_lines.push(b"\r10 %\r20 %");
        last_lines.push(b"\rend\r");
        let lines = last_lines.into_lines();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines.first().map(String::as_str), Some("line 11"));
        assert_eq!(lines.last().map(String::as_str), Some("end"));
    }
}
