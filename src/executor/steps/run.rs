//! RUN: executes one command in a rootfs made of the layers so far.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::diag::{Span, size};
use crate::plan::RunOperation;
use crate::sandbox::{AttachOptions, Exit, Output, SandboxError};

use super::run_failure::FailedStep;
use super::step_files::StepFiles;
use super::step_root::StepRoot;
use super::time_limit::{TimeLimit, shown_command_line};

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

/// Runs the command of `operation` at `span` on `stack`; returns the files as the command left them. A
/// command that fails is re-run on the unchanged files of `stack`, as often as the Dockerfile says.
pub(in crate::executor) fn with_retries(
    state: &BuildState<'_>,
    step: &ActiveStep,
    (operation, span): (&RunOperation, Span),
    inputs: &MountInputs,
    stack: &Stack,
) -> std::result::Result<StepFiles, FailedRun> {
    let n_retries = operation.patience.n_retries;
    for nth in 1..=n_retries {
        let files = StepFiles::of(state, stack, span)?;
        let failed = match run(state, step, (operation, span), inputs, (files, stack)) {
            Err(failed) if !state.services.cancel.is_set() => failed,
            done => return done,
        };
        // The command itself failed: another attempt may succeed.
        let BuildError::Run { how, .. } = &failed.error else { return Err(failed) };
        let text = format!(
            "{} failed ({how}): it runs again on unchanged files (retry {nth} of {n_retries})",
            step.name
        );
        state.services.event(Event::Warning { text });
    }
    let files = StepFiles::of(state, stack, span)?;
    run(state, step, (operation, span), inputs, (files, stack))
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
    let limit = TimeLimit::of(operation, services.cancel);
    let mut ran = run_shown(services, step, &root, limit);
    if let Err(SandboxError::MemoryLimit { max_bytes }) = ran.exit {
        let text = format!(
            "{} changed more than {} of files, for which memory is too short: it runs again, on the disk",
            step.name,
            size(max_bytes)
        );
        services.event(Event::Note { text });
        drop(root);
        let files = StepFiles::in_place(state, stack, span)?;
        root = StepRoot::prepare(state, step, span, operation, inputs, files)?;
        ran = run_shown(services, step, &root, limit);
    }
    let failed = FailedStep {
        span,
        step,
        operation,
        root: root.as_fd(),
        provided: &state.options.provided,
        has_run_ca: state.options.run_trust.is_some(),
        exceeded_memory: root.exceeded_memory(),
    };
    let error = match ran.exit {
        Ok(Exit::Code(0)) => return Ok(root.done()?),
        Err(SandboxError::TimedOut) => failed.timeout(limit, ran),
        _ if services.cancel.is_timed_out() => failed.timeout(limit.of_build(), ran),
        _ if services.cancel.is_set() => return Err(services.stopped().into()),
        exit => failed.error(exit, ran.last_lines.into_lines()),
    };
    let root = root.is_kept().then(|| Box::new(root));
    Err(FailedRun { error, root })
}

/// The result of a command, and the facts that its error needs.
#[derive(Debug)]
pub(super) struct RanCommand {
    pub(super) exit: std::result::Result<Exit, SandboxError>,
    pub(super) last_lines: LastLines,
    /// Time since its last output.
    pub(super) silent: Duration,
    /// Command line of the process that ran when the command was killed, with secrets masked.
    pub(super) last_process: Option<String>,
}

/// Runs the command and reports its output with secrets masked.
fn run_shown(
    services: &Services<'_>,
    step: &ActiveStep,
    root: &StepRoot,
    limit: TimeLimit,
) -> RanCommand {
    let mask = root.mask();
    let mut last_lines = LastLines::default();
    let mut last_output = Instant::now();
    let mut show = |stream, bytes: Vec<u8>| {
        if !bytes.is_empty() {
            last_output = Instant::now();
            last_lines.push(&bytes);
            services.event(Event::Output { step: step.id, stream, bytes });
        }
    };
    let (mut out, mut err) = (MaskedStream::default(), MaskedStream::default());
    let last_process = OnceLock::new();
    let attending = AttachOptions {
        cancel: Some(services.cancel.as_fd()),
        deadline: limit.deadline(),
        last_process: Some(&last_process),
        ..AttachOptions::default()
    };
    let exit = root.run(attending, &mut |output, bytes| match output {
        Output::Stdout => show(Stream::Stdout, mask.pass(&mut out, bytes).into_owned()),
        Output::Stderr => show(Stream::Stderr, mask.pass(&mut err, bytes).into_owned()),
    });
    show(Stream::Stdout, mask.end(&out));
    show(Stream::Stderr, mask.end(&err));
    let last_process = last_process.into_inner().map(|line| shown_command_line(&line, mask));
    RanCommand { exit, last_lines, silent: last_output.elapsed(), last_process }
}

/// The last lines of an output of any length.
#[derive(Debug, Default)]
pub(super) struct LastLines {
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

    pub(super) fn into_lines(self) -> Vec<String> {
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
