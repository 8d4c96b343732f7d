//! A root file system of busybox, and folders to run commands in.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild::sandbox::{
    DEFAULT_SHM_BYTES, Exit, Mount, Network, Output, Rootfs, RunSpec, SandboxError, User,
};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

/// A base folder with busybox, and an empty upper folder over it.
pub(crate) struct Fixture {
    folder: TempDir,
}

impl Fixture {
    /// Makes the folders; `/proc`, `/sys` and `/dev` are not among them.
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let base = folder.path().join("base");
        for name in ["base/bin", "base/etc", "base/tmp", "base/root", "upper", "work", "empty"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::copy("/bin/busybox", base.join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        Self { folder }
    }

    /// A path below the folder of all.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Mounts the base under the upper folder.
    pub(crate) fn overlay(&self) -> Rootfs {
        let [base, upper, work] = ["base", "upper", "work"].map(|name| open(&self.path(name)));
        Rootfs::overlay(&[base.as_fd()], upper.as_fd(), work.as_fd()).unwrap()
    }
}

const APPLETS: &str = "sh ls cat echo true false id pwd hostname env sleep mkdir rm mv touch ln ps \
                       kill mount umount ip stat find test head tail wc sort readlink mknod \
                       chroot unshare grep sed dd setsid chmod chown ulimit tty";

/// Opens a file or folder as callers do.
pub(crate) fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// The same, shared.
pub(crate) fn share(path: &Path) -> Arc<OwnedFd> {
    Arc::new(open(path))
}

/// `sh -c script` as root.
pub(crate) fn shell(script: &str) -> RunSpec {
    command(&["/bin/sh", "-c", script])
}

/// `argv` as root with a small environment.
pub(crate) fn command(argv: &[&str]) -> RunSpec {
    RunSpec {
        argv: argv.iter().map(Into::into).collect(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        user: User::root(),
        hostname: "sandbox".to_owned(),
        network: Network::Host,
        mounts: Vec::<Mount>::new(),
        insecure: false,
        shm_bytes: DEFAULT_SHM_BYTES,
    }
}

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `spec` in `rootfs` and collects its output.
pub(crate) fn run_in(rootfs: &Rootfs, spec: &RunSpec) -> Result<Done, SandboxError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = rbuild::sandbox::run(rootfs, spec, None, &mut |output, bytes| match output {
        Output::Stdout => stdout.extend_from_slice(bytes),
        Output::Stderr => stderr.extend_from_slice(bytes),
    })?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok(Done { exit, stdout: text(stdout), stderr: text(stderr) })
}
