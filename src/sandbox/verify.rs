//! The last check before exec: a child whose sandbox is incomplete does not execute its command.
//!
//! Every part was set up by an operation of its own. This module asks the kernel for the result. So
//! a later change of the list, its order or one operation cannot weaken the sandbox unnoticed.
//! Allocates nothing.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::{Errno, Result};
use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitySet;

use super::sys::{descriptors, identity};

/// The state in which the child must be just before exec.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
    /// `None` if the set is not limited.
    pub(super) bounding_set: Option<CapabilitySet>,
    /// `None` for the capabilities of rbuild.
    pub(super) capabilities: Option<CapabilitySet>,
    /// True if a seccomp filter must be in force.
    pub(super) filtered: bool,
    /// True if the child has kept a third descriptor; see [`descriptors::keep_only`].
    pub(super) has_extra: bool,
}

/// A part of the sandbox that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SandboxPart {
    /// `/` is the step's root, and no mount covers it.
    Root,
    /// The working directory is below `/`.
    WorkingDirectory,
    /// Only the streams, the status pipe and the launcher are open.
    Descriptors,
    /// The child is process 1, alone in its namespace: no other can trace it or read its memory.
    Processes,
    /// The user id, the group id and the supplementary groups.
    Identity,
    /// The bounding, permitted, effective and inheritable sets (capabilities(7)).
    Capabilities,
    /// The seccomp filter is in force, or absent for insecure steps.
    Filter,
}

impl SandboxPart {
    const ALL: [Self; 7] = [
        Self::Root,
        Self::WorkingDirectory,
        Self::Descriptors,
        Self::Processes,
        Self::Identity,
        Self::Capabilities,
        Self::Filter,
    ];

    /// Returns the number that stands for it in a report.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Root => 1,
            Self::WorkingDirectory => 2,
            Self::Descriptors => 3,
            Self::Processes => 4,
            Self::Identity => 5,
            Self::Capabilities => 6,
            Self::Filter => 7,
        }
    }

    /// Returns the part with the number from a report.
    pub(super) fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.number() == number)
    }

    /// Returns its name in error messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Root => "the root directory",
            Self::WorkingDirectory => "the working directory",
            Self::Descriptors => "the open descriptors",
            Self::Processes => "the process namespace",
            Self::Identity => "the user and its groups",
            Self::Capabilities => "the capabilities",
            Self::Filter => "the system call filter",
        }
    }
}

/// Returns the id of the mount that `path`, relative to `directory`, is on (statx(2),
/// `STATX_MNT_ID`); `None` before Linux 5.8.
pub(super) fn mount_id(directory: BorrowedFd<'_>, path: &std::ffi::CStr) -> Option<u64> {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    let about = rustix::fs::statx(directory, path, flags, StatxFlags::MNT_ID).ok()?;
    let known = StatxFlags::from_bits_retain(about.stx_mask).contains(StatxFlags::MNT_ID);
    known.then_some(about.stx_mnt_id)
}

/// Returns the first part that differs from `expected`; `root` is the id of the rootfs's mount.
pub(super) fn first_mismatch(
    expected: &Expected,
    root: Option<u64>,
    launcher: BorrowedFd<'_>,
) -> Option<SandboxPart> {
    SandboxPart::ALL.into_iter().find(|part| {
        let holds = match part {
            SandboxPart::Root => Ok(root_is(root)),
            SandboxPart::WorkingDirectory => working_directory_is_inside(),
            SandboxPart::Descriptors => {
                Ok(!descriptors::any_open_from_first_closed(expected.has_extra)
                    && descriptors::closed_by_exec(launcher))
            }
            SandboxPart::Processes => Ok(rustix::process::getpid().is_init()),
            SandboxPart::Identity => identity::is(expected.uid, expected.gid, &expected.groups),
            SandboxPart::Capabilities => capabilities_are(expected),
            SandboxPart::Filter => identity::is_filtered().map(|is| is == expected.filtered),
        };
        holds != Ok(true)
    })
}

fn root_is(root: Option<u64>) -> bool {
    root.is_some() && [c"/", c"/.."].into_iter().all(|path| mount_id(CWD, path) == root)
}

/// Returns whether `/` contains the working directory. If it does not, the kernel prefixes the path
/// with `(unreachable)` (getcwd(2), Linux 2.6.36).
fn working_directory_is_inside() -> Result<bool> {
    let mut path = [0; identity::MAX_PATH_BYTES];
    Ok(identity::working_directory(&mut path)?.first() == Some(&b'/'))
}

fn capabilities_are(expected: &Expected) -> Result<bool> {
    let sets = rustix::thread::capabilities(None)?;
    if let Some(capabilities) = expected.capabilities {
        let are = sets.effective == capabilities
            && sets.permitted == capabilities
            && sets.inheritable.is_empty();
        if !are {
            return Ok(false);
        }
    }
    match expected.bounding_set {
        Some(bounding_set) => is_bounded_by(bounding_set),
        None => Ok(true),
    }
}

fn is_bounded_by(bounding_set: CapabilitySet) -> Result<bool> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) if !bounding_set.contains(one) => return Ok(false),
            Ok(_) => {}
            // The first number unknown to this kernel; no higher one is known.
            Err(Errno::INVAL) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make their own files and threads")]

    use std::os::fd::AsFd as _;

    use rustix::fs::{Mode, OFlags};

    use super::super::caps;
    use super::super::error::SandboxError;
    use super::super::ops::SetupOp;
    use super::super::rootfs::Rootfs;
    use super::super::run::{Setup, start_and_attach};
    use super::super::spec::{Exit, MountNamespace, Network, RunSpec, Streams, User};
    use super::super::streams::AttachOptions;
    use super::super::sys::fork;
    use super::*;

    fn may_mount() -> bool {
        let may = caps::has_sys_admin();
        assert!(
            may || std::env::var_os("RBUILD_REQUIRE").is_none(),
            "required: the right to mount"
        );
        may
    }

    fn spec() -> RunSpec {
        RunSpec {
            argv: vec!["/bin/busybox".into(), "true".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: User::root(),
            hostname: "sandbox".to_owned(),
            network: Network::Host,
            mounts: Vec::new(),
            insecure: false,
            capabilities: crate::sandbox::CapabilityChanges::NONE,
            shm_bytes: 4096,
            limits: Vec::new(),
            cgroups: Vec::new(),
            streams: Streams::Output,
            mount_namespace: MountNamespace::Own,
        }
    }

    /// Runs `true` after `change` was made to the setup.
    fn run(
        spec: &RunSpec,
        change: impl FnOnce(&mut Setup<'_>),
    ) -> std::result::Result<Exit, SandboxError> {
        let directory = tempfile::tempdir().unwrap();
        for name in ["bin", "proc", "sys", "dev"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", directory.path().join("bin/busybox")).unwrap();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        let root = Rootfs::bind(root.as_fd()).unwrap();
        let mut setup = Setup::of(spec);
        change(&mut setup);
        start_and_attach(&root, &setup, AttachOptions::default(), &mut |_, _| {}, &mut None)
    }

    #[track_caller]
    fn check(spec: &RunSpec, missing: impl Fn(&SetupOp) -> bool, part: SandboxPart) {
        let found = run(spec, |setup| {
            let all = setup.ops.len();
            setup.ops.retain(|op| !missing(op));
            assert!(setup.ops.len() < all, "the operation is in the list");
        });
        assert!(
            matches!(found, Err(SandboxError::NotIsolated { part: found }) if found == part.name()),
            "{found:?}"
        );
    }

    #[test]
    fn priv_complete_setup_passes() {
        if may_mount() {
            assert_eq!(run(&spec(), |_| {}).unwrap(), Exit::Code(0));
        }
    }

    #[test]
    fn priv_missing_operation_is_noticed() {
        if !may_mount() {
            return;
        }
        let root = spec();
        let user = RunSpec { user: User { uid: 7, gid: 8, groups: vec![9] }, ..spec() };
        check(&root, |op| matches!(op, SetupOp::PivotRoot { .. }), SandboxPart::Root);
        check(&root, |op| matches!(op, SetupOp::CloseDescriptors), SandboxPart::Descriptors);
        check(&user, |op| matches!(op, SetupOp::Become(_)), SandboxPart::Identity);
        check(&root, |op| matches!(op, SetupOp::Capabilities(_)), SandboxPart::Capabilities);
        check(&root, |op| matches!(op, SetupOp::BoundingSet(_)), SandboxPart::Capabilities);
        check(&user, |op| matches!(op, SetupOp::BoundingSet(_)), SandboxPart::Capabilities);
        check(&root, |op| matches!(op, SetupOp::Seccomp), SandboxPart::Filter);
    }

    #[test]
    fn priv_child_that_is_not_process_1_is_noticed() {
        if !may_mount() {
            return;
        }
        let found = run(&spec(), |setup| {
            setup.namespaces &= !u64::from(libc::CLONE_NEWPID.cast_unsigned());
            // Without the namespace the host's processes would show.
            setup.ops.retain(|op| !matches!(op, SetupOp::Filesystem { kind: "proc", .. }));
        });
        let processes = SandboxPart::Processes.name();
        assert!(
            matches!(found, Err(SandboxError::NotIsolated { part }) if part == processes),
            "{found:?}"
        );
    }

    #[test]
    fn priv_working_directory_outside_of_the_root_is_noticed() {
        if !may_mount() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        // The change of root is that thread's alone.
        let outside = std::thread::spawn(move || {
            assert_eq!(working_directory_is_inside(), Ok(true));
            fork::unshare_working_directory().unwrap();
            rustix::process::chroot(directory.path()).unwrap();
            working_directory_is_inside()
        });
        assert_eq!(outside.join().unwrap(), Ok(false));
    }
}
