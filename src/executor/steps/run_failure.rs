//! The error of a failed RUN, with advice.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::diag::{Span, size};
use crate::oci::Platform;
use crate::plan::{RunMountKind, RunOperation};
use crate::sandbox::{Exit, SandboxError};

use crate::executor::active_step::ActiveStep;
use crate::executor::{BuildError, Provided};

use super::exec_diagnosis::{self, ProgramSearch};
use super::failure_hints::{FailedCommand, likely_cause, signal_hint};
use super::run::RanCommand;
use super::time_limit::TimeLimit;

/// A RUN that failed, with its rootfs.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor) struct FailedStep<'a> {
    pub(in crate::executor) span: Span,
    pub(in crate::executor) step: &'a ActiveStep,
    pub(in crate::executor) operation: &'a RunOperation,
    /// The step's root, without its mounts.
    pub(in crate::executor) root: BorrowedFd<'a>,
    /// Secrets and agents of the build.
    pub(in crate::executor) provided: &'a Provided,
    /// True if the step trusts the certificates of `--ca-for-run`.
    pub(in crate::executor) has_run_ca: bool,
    /// The limit on memory because of which the kernel has killed a process of the step.
    pub(in crate::executor) exceeded_memory: Option<u64>,
}

impl FailedStep<'_> {
    /// Returns the error with the command's exit and advice.
    pub(in crate::executor) fn error(
        &self,
        exit: Result<Exit, SandboxError>,
        last_lines: Vec<String>,
    ) -> BuildError {
        let Self { span, operation, .. } = *self;
        let command = operation.argv.join(" ");
        let (how, help) = match exit {
            Ok(Exit::Code(code)) => {
                let how = format!("exit code: {code}");
                (how, self.likely_cause(code, &last_lines))
            }
            Ok(Exit::Signal(9)) => ("signal: 9 (killed)".to_owned(), signal_hint(9)),
            Ok(Exit::Signal(signal)) => {
                let how = format!("signal: {signal}, exit code: {}", 128 + signal);
                (how, signal_hint(signal))
            }
            Err(error @ SandboxError::NotFound { .. }) => {
                let how = format!("exit code: 127: {error}: no such file or directory");
                (how, Some(self.missing_program_hint()))
            }
            Err(error @ SandboxError::InterpreterNotFound { .. }) => {
                let how = format!("exit code: 127: {error}: no such file or directory");
                (how, self.likely_cause(127, &last_lines))
            }
            Err(
                error @ (SandboxError::PermissionDenied { .. }
                | SandboxError::MagicLink { .. }
                | SandboxError::WrongFormat { .. }),
            ) => {
                let is_other_format = matches!(error, SandboxError::WrongFormat { .. });
                let hint = is_other_format.then(|| platform_hint(&operation.platform)).flatten();
                let help = hint.or_else(|| self.likely_cause(126, &last_lines));
                (format!("exit code: 126: {error}"), help)
            }
            Err(source) => return BuildError::Sandbox { span, source },
        };
        let (how, help) = match self.exceeded_memory {
            Some(bytes) => (
                format!(
                    "{how}; out of memory: the limit of {} (--memory) was reached",
                    size(bytes)
                ),
                Some("raise --memory, or let the command use less, as with `make -j2`".to_owned()),
            ),
            None => (how, help),
        };
        let mut helps = self.not_given();
        helps.extend(hard_link_hint(&last_lines));
        helps.extend(help);
        let step = self.step.short_name().into();
        BuildError::Run { span, step, command, how, last_lines, helps, is_timeout: false }
    }

    /// Returns the error of a command that was killed because of `limit`.
    pub(super) fn timeout(&self, limit: TimeLimit, ran: RanCommand) -> BuildError {
        let mut how = limit.how();
        if let Some(process) = &ran.last_process {
            how.push_str(&format!(", while `{process}` was running"));
        }
        let last_lines = ran.last_lines.into_lines();
        let silent = humantime::format_duration(Duration::from_secs(ran.silent.as_secs()));
        how.push_str(&match last_lines.is_empty() {
            true => "; it printed nothing".to_owned(),
            false => format!("; its last output came {silent} earlier"),
        });
        BuildError::Run {
            span: self.span,
            step: self.step.short_name().into(),
            command: self.operation.argv.join(" "),
            how,
            last_lines,
            helps: vec![limit.help()],
            is_timeout: true,
        }
    }

    /// Names optional secrets and agents that the step mounts and the caller did not provide.
    fn not_given(&self) -> Vec<String> {
        let mounts = self.operation.mounts.iter();
        let lack = mounts.filter_map(|mount| match &mount.kind {
            RunMountKind::Secret { id, .. } if !self.provided.secrets.contains_key(id) => {
                Some(format!("secret `{id}` was not given: add `--secret id={id},src=FILE`"))
            }
            RunMountKind::Ssh { id, .. } if !self.provided.agents.contains_key(id) => {
                Some(format!("ssh agent `{id}` was not given: add `--ssh {id}`"))
            }
            RunMountKind::Secret { .. }
            | RunMountKind::Ssh { .. }
            | RunMountKind::Bind { .. }
            | RunMountKind::Cache { .. }
            | RunMountKind::Host(_)
            | RunMountKind::Tmpfs { .. } => None,
        });
        lack.collect()
    }

    fn likely_cause(&self, code: u8, lines: &[String]) -> Option<String> {
        let operation = self.operation;
        let path = operation.env.iter().find(|(name, _)| name == "PATH");
        let search = path.map_or("", |(_, value)| value.as_str());
        let search_in = ProgramSearch { root: self.root, cwd: &operation.cwd, search };
        let look = |name: &str| exec_diagnosis::diagnose(search_in, name);
        likely_cause(&FailedCommand {
            code,
            lines,
            argv: &operation.argv,
            has_run_ca: self.has_run_ca,
            network: operation.network,
            platform: &operation.platform,
            look: &look,
        })
    }

    /// Returns advice for a program, usually a shell, that is not in the image.
    fn missing_program_hint(&self) -> String {
        let program = self.operation.argv.first().map_or("", String::as_str);
        let is_shell = self.operation.argv.get(1).is_some_and(|flag| flag == "-c");
        if !is_shell {
            return format!(
                "the image has no `{program}`: install it in an earlier step, or check its \
                 spelling and PATH"
            );
        }
        format!(
            "a RUN is a command for the shell `{program}`, and the image has none (like `scratch` and \
             distroless images): run it in a stage with a base image that has one, and copy the result with \
             COPY --from"
        )
    }
}

/// Returns advice for programs that compare the inode numbers of a hard link's two names. The
/// kernel finds the origin of a copied file for the machine's root only (`ovl_can_decode_fh` in
/// fs/overlayfs/util.c). For other users the new name has the inode number of the copy.
fn hard_link_hint(lines: &[String]) -> Option<String> {
    let is_refused = lines.iter().any(|line| line.contains("hardlink different from source"));
    is_refused.then(|| {
        "a hard link that a step makes to a file of a lower layer has another inode number if an \
         ordinary user builds: use `git clone --no-hardlinks`, or build as root"
            .to_owned()
    })
}

/// Names a package that lets the kernel run programs of another platform
/// (<https://docs.kernel.org/admin-guide/binfmt-misc.html>).
fn platform_hint(platform: &str) -> Option<String> {
    let own = Platform::host().to_string();
    (platform != own).then(|| {
        format!(
            "the step is for {platform}, and no emulator is registered here that runs its programs on \
             {own}: install one on the host with `apt-get install qemu-user-static binfmt-support` \
             (Debian, Ubuntu), or build on a {platform} machine"
        )
    })
}
