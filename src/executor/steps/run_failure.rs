//! A RUN that ended badly, as an error.

use std::os::fd::BorrowedFd;

use crate::diag::Span;
use crate::oci::Platform;
use crate::plan::{RunMountKind, RunOperation};
use crate::sandbox::{Exit, SandboxError};

use crate::executor::active_step::ActiveStep;
use crate::executor::{BuildError, Lent};

use super::exec_diagnosis::{self, Places};
use super::failure_hints::{FailedRun, likely_cause, of_signal};

/// A RUN that ended badly, and where.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor) struct FailedStep<'a> {
    pub(in crate::executor) span: Span,
    pub(in crate::executor) step: &'a ActiveStep,
    pub(in crate::executor) operation: &'a RunOperation,
    /// What it saw, but for what was mounted.
    pub(in crate::executor) root: BorrowedFd<'a>,
    /// Secrets and agents of the build.
    pub(in crate::executor) lent: &'a Lent,
}

impl FailedStep<'_> {
    /// How the command ended, in an error that says what may help.
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
                (how, self.cause(code, &last_lines))
            }
            Ok(Exit::Signal(9)) => ("signal: 9 (killed)".to_owned(), of_signal(9)),
            Ok(Exit::Signal(signal)) => {
                let how = format!("signal: {signal}, exit code: {}", 128 + signal);
                (how, of_signal(signal))
            }
            Err(error @ SandboxError::NotFound { .. }) => {
                let how = format!("exit code: 127: {error}: no such file or directory");
                (how, Some(self.without_program()))
            }
            Err(error @ SandboxError::InterpreterNotFound { .. }) => {
                let how = format!("exit code: 127: {error}: no such file or directory");
                (how, self.cause(127, &last_lines))
            }
            Err(
                error @ (SandboxError::PermissionDenied { .. }
                | SandboxError::MagicLink { .. }
                | SandboxError::WrongFormat { .. }),
            ) => {
                let is_foreign = matches!(error, SandboxError::WrongFormat { .. });
                let foreign = is_foreign.then(|| foreign(&operation.platform)).flatten();
                let help = foreign.or_else(|| self.cause(126, &last_lines));
                (format!("exit code: 126: {error}"), help)
            }
            Err(source) => return BuildError::Sandbox { span, source },
        };
        let mut helps = self.not_given();
        helps.extend(of_hard_links(&last_lines));
        helps.extend(help);
        let step = self.step.short_name();
        BuildError::Run { span, step, command, how, last_lines, helps }
    }

    /// Names the secrets and agents that the step mounts and can do without, and that were not given.
    fn not_given(&self) -> Vec<String> {
        let mounts = self.operation.mounts.iter();
        let lack = mounts.filter_map(|mount| match &mount.kind {
            RunMountKind::Secret { id, .. } if !self.lent.secrets.contains_key(id) => {
                Some(format!("secret `{id}` was not given: add `--secret id={id},src=FILE`"))
            }
            RunMountKind::Ssh { id, .. } if !self.lent.agents.contains_key(id) => {
                Some(format!("ssh agent `{id}` was not given: add `--ssh {id}`"))
            }
            RunMountKind::Secret { .. }
            | RunMountKind::Ssh { .. }
            | RunMountKind::Bind { .. }
            | RunMountKind::Cache { .. }
            | RunMountKind::Tmpfs { .. } => None,
        });
        lack.collect()
    }

    fn cause(&self, code: u8, lines: &[String]) -> Option<String> {
        let operation = self.operation;
        let path = operation.env.iter().find(|(name, _)| name == "PATH");
        let search = path.map_or("", |(_, value)| value.as_str());
        let places = Places { root: self.root, cwd: &operation.cwd, search };
        let look = |name: &str| exec_diagnosis::look(places, name);
        likely_cause(&FailedRun {
            code,
            lines,
            argv: &operation.argv,
            network: operation.network,
            platform: &operation.platform,
            look: &look,
        })
    }

    /// What to do where the program, mostly a shell, is not in the image.
    fn without_program(&self) -> String {
        let program = self.operation.argv.first().map_or("", String::as_str);
        let is_shell = self.operation.argv.get(1).is_some_and(|flag| flag == "-c");
        if !is_shell {
            return format!(
                "the image has no `{program}`: install it in an earlier step, or look at its \
                 spelling and at PATH"
            );
        }
        format!(
            "a RUN is a command for the shell `{program}`, and the image has none (`scratch` and \
             distroless images are without): do this in a stage with a base image that has one, \
             and take the result over with COPY --from"
        )
    }
}

/// Returns help for programs that compare the inode numbers of a hard link's two names. The kernel finds
/// the origin of a copied file for the machine's root only (`ovl_can_decode_fh`); for others the new
/// name has the number of the copy.
fn of_hard_links(lines: &[String]) -> Option<String> {
    let is_refused = lines.iter().any(|line| line.contains("hardlink different from source"));
    is_refused.then(|| {
        "a hard link that a step makes to a file of a lower layer has another inode number if an \
         ordinary user builds: use `git clone --no-hardlinks`, or build as root"
            .to_owned()
    })
}

/// What lets the kernel run programs of another platform (binfmt_misc, Documentation/admin-guide).
fn foreign(platform: &str) -> Option<String> {
    let own = Platform::host().to_string();
    (platform != own).then(|| {
        format!(
            "the step is for {platform}, and nothing is registered here that runs its programs on \
             {own}: `apt-get install qemu-user-static binfmt-support` on the host does that (Debian, \
             Ubuntu), and so does building on a {platform} machine"
        )
    })
}
