//! A root file system with busybox, and directories to run commands in.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rbuild::sandbox::{
    DEFAULT_SHM_BYTES, Exit, Mount, MountNamespace, Network, Output, Rootfs, RunSpec, SandboxError,
    Streams, User,
};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

/// A base directory with busybox, and an empty upper directory over it.
pub(crate) struct Fixture {
    directory: TempDir,
}

impl Fixture {
    /// Creates the directories, without `/proc`, `/sys` and `/dev`.
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let base = directory.path().join("base");
        for name in ["base/bin", "base/etc", "base/tmp", "base/root", "upper", "work", "empty"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        fs::copy("/bin/busybox", base.join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        Self { directory }
    }

    /// Returns a path below the fixture's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Mounts the base under the upper directory.
    pub(crate) fn overlay(&self) -> Rootfs {
        let [base, upper, work] = ["base", "upper", "work"].map(|name| open(&self.path(name)));
        Rootfs::overlay(&[base.as_fd()], upper.as_fd(), work.as_fd()).unwrap()
    }
}

const APPLETS: &str = "sh ls cat echo true false id pwd hostname env sleep mkdir rm mv touch ln ps \
                       kill mount umount ip stat find test head tail wc sort readlink mknod \
                       chroot unshare grep sed dd setsid chmod chown tr ping";

/// Script that tries to climb, by `..` and out of a chroot, to a file `$MARK` of the host or to
/// another root. Prints only `tried` if that is not possible. Needs busybox.
pub(crate) const WAYS_UP: &str = "\
up() { for i in 1 2 3 4 5 6 7 8; do cd -P ..; done; }
/bin/busybox ls -d /../$MARK ./$MARK
cd /bin; up; /bin/busybox ls -d ./$MARK
/bin/busybox ls / > /tmp/root; /bin/busybox ls . | /bin/busybox cmp - /tmp/root || echo elsewhere
exec 3< /
/bin/busybox chroot /proc /self/fd/3/bin/busybox sh -c '
  cd -P /self/fd/3; for i in 1 2 3 4 5 6 7 8; do cd -P ..; done
  /self/fd/3/bin/busybox ls -d ./$MARK
  /self/fd/3/bin/busybox ls . | /self/fd/3/bin/busybox cmp - /self/fd/3/tmp/root || echo elsewhere
  exec /self/fd/3/bin/busybox chroot . /bin/busybox ls -d $MARK
'
echo tried";

/// Opens a file or directory as callers do.
pub(crate) fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Opens a file or directory as a shared descriptor.
pub(crate) fn share(path: &Path) -> Arc<OwnedFd> {
    Arc::new(open(path))
}

/// Returns the spec of `sh -c script` as root.
pub(crate) fn shell(script: &str) -> RunSpec {
    command(&["/bin/sh", "-c", script])
}

/// Returns the spec of `argv` as root, with a small environment.
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
        capabilities: rbuild::sandbox::CapabilityChanges::NONE,
        shm_bytes: DEFAULT_SHM_BYTES,
        limits: Vec::new(),
        cgroups: Vec::new(),
        streams: Streams::Output,
        mount_namespace: MountNamespace::Own,
    }
}

/// Result of a command.
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

/// An ordinary user with subordinate ids, created if there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TestUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Returns the user that `RBUILD_TEST_USER` names. If it names none, root uses a new one.
pub(crate) fn test_user() -> Result<TestUser, String> {
    static USER: OnceLock<Result<TestUser, String>> = OnceLock::new();
    USER.get_or_init(|| {
        let named = std::env::var("RBUILD_TEST_USER").ok();
        let name = named.clone().unwrap_or_else(|| "rbuild-test".to_owned());
        if named.is_none() && number("-u", &name).is_none() {
            let _ = Command::new("useradd").args(["--create-home", &name]).status();
        }
        let missing = || format!("there is no user {name}");
        let user = TestUser {
            uid: number("-u", &name).ok_or_else(missing)?,
            gid: number("-g", &name).ok_or_else(missing)?,
        };
        let has = |file| fs::read_to_string(file).unwrap_or_default().contains(&format!("{name}:"));
        if has("/etc/subuid") && has("/etc/subgid") {
            return Ok(user);
        }
        Err(format!("the user {name} has no subordinate ids"))
    })
    .clone()
}

fn number(option: &str, user: &str) -> Option<u32> {
    let output = Command::new("id").args([option, user]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Reports that something a test needs is missing. Fails if `RBUILD_REQUIRE` is set.
pub(crate) fn skip(what: &str) {
    assert!(std::env::var_os("RBUILD_REQUIRE").is_none(), "required, but missing: {what}");
    eprintln!("SKIP: {what}");
}

/// Returns whether the kernel accepts detached mounts as parts of an overlay: since Linux 6.15.
pub(crate) fn has_overlays_in_memory() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// Returns whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns a command that runs only the test `name` of this test program, as `user` if there is
/// one.
pub(crate) fn this_program(name: &str, user: Option<TestUser>) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match user {
        Some(TestUser { uid, gid }) => {
            let mut command = Command::new("setpriv");
            command
                .args([format!("--reuid={uid}"), format!("--regid={gid}")])
                .args(["--clear-groups", "--inh-caps=-all"])
                .arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).current_dir("/");
    command
}
