//! A step that does nothing, to find out whether this process can run steps.

use std::os::fd::BorrowedFd;

use super::attributes::EmulatedFiles;
use super::error::SandboxError;
use super::file_time::FileTime;
use super::isolation::{self, Isolation};
use super::rootfs::Rootfs;
use super::run::run;
use super::spec::{DEFAULT_SHM_BYTES, MountNamespace, Network, RunSpec, Streams, User};

/// A program that does not exist. The last thing that a sandbox does is to execute the program, so the
/// error for its absence proves that all of the setup succeeded.
const MISSING_PROGRAM: &str = "/rbuild-trial";

/// Tries to run a step as a build would: on an overlay of `lower` and `upper`, or in the directory
/// `upper` where no overlay can be mounted. All three are empty directories of the store.
///
/// # Errors
/// The error that every step gets here.
pub fn try_step(
    lower: BorrowedFd<'_>,
    upper: BorrowedFd<'_>,
    work: BorrowedFd<'_>,
) -> Result<(), SandboxError> {
    if let Some(refusal) = isolation::refusal() {
        return Err(refusal);
    }
    let rootfs = rootfs(lower, upper, work)?;
    let spec = RunSpec {
        argv: vec![MISSING_PROGRAM.into()],
        env: Vec::new(),
        cwd: "/".into(),
        user: User::root(),
        hostname: "rbuild".to_owned(),
        network: Network::Host,
        mounts: Vec::new(),
        insecure: false,
        capabilities: crate::sandbox::CapabilityChanges::NONE,
        shm_bytes: DEFAULT_SHM_BYTES,
        limits: Vec::new(),
        cgroups: Vec::new(),
        streams: Streams::Output,
        mount_namespace: MountNamespace::Own,
    };
    match run(&rootfs, &spec, None, &mut |_output, _bytes| {}) {
        Ok(_) | Err(SandboxError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn rootfs(
    lower: BorrowedFd<'_>,
    upper: BorrowedFd<'_>,
    work: BorrowedFd<'_>,
) -> Result<Rootfs, SandboxError> {
    let mounts = |isolation: Isolation| isolation.may_mount() && !isolation.emulates_owners();
    if isolation::isolation().is_some_and(mounts)
        && let Ok(rootfs) = Rootfs::overlay(&[lower], upper, work)
    {
        return Ok(rootfs);
    }
    Rootfs::in_place(upper, EmulatedFiles::default(), FileTime::now())
}
