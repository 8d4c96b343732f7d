//! The error of a command that could not be executed.

use std::ffi::OsString;
use std::io;

use rustix::io::Errno;

use super::error::SandboxError;
use super::report::Report;
use super::spec::RunSpec;

/// Converts the report of a failed execve(2) into an error.
pub(super) fn of(report: Report, spec: &RunSpec) -> SandboxError {
    let source = io::Error::from_raw_os_error(report.errno);
    let argv0: OsString = spec.argv.first().cloned().unwrap_or_default();
    match Errno::from_raw_os_error(report.errno) {
        Errno::LOOP => SandboxError::MagicLink { argv0 },
        Errno::NOENT | Errno::NOTDIR if report.detail == 0 => SandboxError::NotFound { argv0 },
        Errno::NOENT | Errno::NOTDIR => SandboxError::InterpreterNotFound { argv0 },
        Errno::NOEXEC => SandboxError::WrongFormat { argv0 },
        Errno::ACCESS | Errno::PERM => SandboxError::PermissionDenied { argv0 },
        Errno::TOOBIG => SandboxError::TooLong { argv0 },
        _ => SandboxError::setup(format!("execute `{}`", argv0.display()), source),
    }
}
