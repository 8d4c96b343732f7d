//! RUN: one command in a rootfs made of the layers so far.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::diag::{Diagnostic, Span, codes};
use crate::pathio::{self, Context as _, PathError};
use crate::plan::{InlineFile, Network, RunOperation, Ulimit};
use crate::sandbox::{
    self, Exit, Limit, Mount, MountSource, Output, Resource, Rootfs, RunSpec, SandboxError, User,
};
use crate::store::{LayerOptions, LowerFolder, WorkFolder};
use crate::tree::{Accounts, ResolvedUser, TreePath};

use super::driver::Run;
use super::mask::{Mask, MaskedStream};
use super::mount_source::Inputs;
use super::mountpoint::{self, IN_ROOT, MountPoints};
use super::mounts::StepMounts;
use super::run_failure::FailedStep;
use super::shared::{Shared, StepRun};
use super::{BuildError, Event, Stream};

/// Lines of a failed command that are shown again at the end.
const LAST_LINES: usize = 20;
/// /etc/passwd and /etc/group of an image are no longer than this.
const MAX_ACCOUNTS_BYTES: u64 = 16 << 20;
/// The host's /etc/resolv.conf is no longer than this.
const MAX_RESOLV_BYTES: u64 = 1 << 20;

type Result<T> = std::result::Result<T, BuildError>;

/// What a RUN left: the upper folder and all that it lies in.
#[derive(Debug)]
pub(super) struct RunDone {
    pub(super) work: WorkFolder,
    pub(super) upper: LowerFolder,
}

/// Runs the command on top of `lowers`; gives the upper folder that it wrote to.
pub(super) fn run(
    shared: &Run<'_>,
    step: &StepRun,
    span: Span,
    operation: &RunOperation,
    inputs: &Inputs,
    lowers: &[LowerFolder],
) -> Result<RunDone> {
    let work = shared.services.store.work_folder()?;
    let upper = Arc::new(work.folder("fs")?);
    let scratch = work.folder("work")?;
    let sandbox_error = |source| BuildError::Sandbox { span, source };
    let mut lower_fds: Vec<BorrowedFd<'_>> = lowers.iter().map(|lower| lower.as_fd()).collect();
    let empty;
    if lower_fds.is_empty() {
        empty = work.folder("empty")?;
        lower_fds.push(empty.as_fd());
    }
    let rootfs =
        Rootfs::overlay(&lower_fds, upper.as_fd(), scratch.as_fd()).map_err(sandbox_error)?;
    let user = resolve_user(rootfs.as_fd(), &operation.user, span)?;
    mountpoint::make_folders(rootfs.as_fd(), &operation.cwd, (user.uid, user.gid))?;
    let mut points = MountPoints::default();
    let mut mounts = mounts(shared, &work, operation, rootfs.as_fd(), &mut points)?;
    let own = StepMounts::prepare(shared, step, operation, inputs, rootfs.as_fd(), &mut points)?;
    mounts.extend(own.mounts.iter().cloned());
    let mut spec = spec(operation, &user, &own.env, mounts);
    // What it makes is in the key's terms the same: a step may always find the network down.
    if shared.services.registry.is_offline() {
        spec.network = sandbox::Network::None;
    }
    let (exit, tail) = attend(shared, step, &rootfs, &spec, &own.mask);
    drop(spec);
    drop(own);
    points.remove(rootfs.as_fd());
    if shared.services.stop.is_thrown() && !matches!(exit, Ok(Exit::Code(0))) {
        return Err(shared.stopped());
    }
    match exit {
        Ok(Exit::Code(0)) => Ok(RunDone { work, upper }),
        exit => {
            Err(FailedStep { span, operation, root: rootfs.as_fd() }.error(exit, tail.into_lines()))
        }
    }
}

/// Runs the command and shows its output, without the values of secrets.
fn attend(
    shared: &Run<'_>,
    step: &StepRun,
    rootfs: &Rootfs,
    spec: &RunSpec,
    mask: &Mask,
) -> (std::result::Result<Exit, SandboxError>, Tail) {
    let mut tail = Tail::default();
    let mut show = |stream, bytes: Vec<u8>| {
        if !bytes.is_empty() {
            tail.push(&bytes);
            shared.event(Event::Output { step: step.id, stream, bytes });
        }
    };
    let (mut out, mut err) = (MaskedStream::default(), MaskedStream::default());
    let stop = shared.services.stop.as_fd();
    let exit = sandbox::run(rootfs, spec, Some(stop), &mut |output, bytes| match output {
        Output::Stdout => show(Stream::Stdout, mask.pass(&mut out, bytes).into_owned()),
        Output::Stderr => show(Stream::Stderr, mask.pass(&mut err, bytes).into_owned()),
    });
    show(Stream::Stdout, mask.end(&out));
    show(Stream::Stderr, mask.end(&err));
    (exit, tail)
}

fn spec(
    operation: &RunOperation,
    user: &ResolvedUser,
    lent: &[(String, String)],
    mounts: Vec<Mount>,
) -> RunSpec {
    let is_in = |list: &[(String, String)], name: &str| list.iter().any(|(known, _)| known == name);
    // A variable that a mount sets wins over a proxy argument, and this over one of the image.
    // An empty HOME is none.
    let is_hidden = |name: &str, value: &str| {
        is_in(&operation.proxy, name) || (name == "HOME" && value.is_empty())
    };
    let own = operation.env.iter().filter(|(name, value)| !is_hidden(name, value));
    let mut env: Vec<(OsString, OsString)> = own
        .chain(&operation.proxy)
        .filter(|(name, _)| !is_in(lent, name))
        .chain(lent)
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    if !env.iter().any(|(name, _)| name == "HOME") {
        let home = user.home.clone().unwrap_or_else(|| "/".to_owned());
        env.push(("HOME".into(), home.into()));
    }
    RunSpec {
        argv: operation.argv.iter().map(OsString::from).collect(),
        env,
        cwd: PathBuf::from(&operation.cwd),
        user: User { uid: user.uid, gid: user.gid, groups: user.groups.clone() },
        hostname: operation.hostname.clone(),
        network: match operation.network {
            Network::Host => sandbox::Network::Host,
            Network::None => sandbox::Network::None,
        },
        mounts,
        insecure: operation.insecure,
        shm_bytes: operation.settings.shm_bytes.unwrap_or(sandbox::DEFAULT_SHM_BYTES),
        limits: operation.settings.ulimits.iter().filter_map(limit).collect(),
    }
}

/// A limit in the sandbox's terms; names were checked when they were typed.
fn limit(limit: &Ulimit) -> Option<Limit> {
    let number = |value: u64| Some(value).filter(|value| *value != u64::MAX);
    let resource = resource(&limit.name)?;
    Some(Limit { resource, soft: number(limit.soft), hard: number(limit.hard) })
}

/// The resource that `--ulimit` calls so.
#[must_use]
pub fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Who USER means, by the rootfs's own accounts.
fn resolve_user(root: BorrowedFd<'_>, user: &str, span: Span) -> Result<ResolvedUser> {
    let read = |path: &str| -> std::result::Result<Vec<u8>, PathError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut bytes = Vec::new();
        match rustix::fs::openat2(root, path, flags, Mode::empty(), IN_ROOT) {
            Ok(file) => {
                let file = File::from(file).take(MAX_ACCOUNTS_BYTES);
                { file }.read_to_end(&mut bytes).context("read", path.as_ref())?;
            }
            Err(_absent) => {}
        }
        Ok(bytes)
    };
    let accounts = Accounts::parse(&read("etc/passwd")?, &read("etc/group")?);
    accounts.user(user).map_err(|error| {
        let message = format!("cannot run as USER {user}: {error}");
        let help = "make the user in an earlier RUN (`RUN useradd NAME`; on Alpine and busybox \
                    `adduser -D NAME`), or give a number";
        Diagnostic::error(codes::BAD_USER, span, message).help(help).into()
    })
}

/// What is lent to every step: name resolution, and the scripts of heredocs.
fn mounts(
    shared: &Shared<'_>,
    work: &WorkFolder,
    operation: &RunOperation,
    root: BorrowedFd<'_>,
    points: &mut MountPoints,
) -> Result<Vec<Mount>> {
    let hosts = hosts_file(&operation.hostname, &operation.settings.hosts);
    let resolv = shared.resolv_conf();
    let mut mounts = Vec::new();
    for (name, target, content) in
        [("hosts", "/etc/hosts", hosts.as_bytes()), ("resolv", "/etc/resolv.conf", resolv)]
    {
        points.ensure(root, target.as_bytes(), false)?;
        let path = work.path().join(name);
        pathio::write(&path, content)?;
        mounts.push(file_mount(&path, target, false)?);
    }
    if let Some(InlineFile { target, .. }) = operation.files.first() {
        let folder = PathBuf::from(target).parent().map(PathBuf::from).unwrap_or_default();
        let scripts = work.path().join("scripts");
        pathio::create_dir_all(&scripts)?;
        for file in &operation.files {
            let name =
                PathBuf::from(&file.target).file_name().map(PathBuf::from).unwrap_or_default();
            let path = scripts.join(name);
            pathio::write(&path, file.content.as_bytes())?;
            rustix::fs::chmod(&path, Mode::from_raw_mode(0o755))
                .context("change the mode of", &path)?;
        }
        mounts.push(file_mount(&scripts, &folder.to_string_lossy(), true)?);
    }
    Ok(mounts)
}

fn file_mount(path: &std::path::Path, target: &str, read_only: bool) -> Result<Mount> {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context("open", path)?;
    let source = MountSource::Path { folder: Arc::new(file) };
    Ok(Mount { target: PathBuf::from(target), source, read_only })
}

fn hosts_file(hostname: &str, more: &[(String, String)]) -> String {
    let more: String = more.iter().map(|(name, address)| format!("{address}\t{name}\n")).collect();
    format!(
        "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n{more}"
    )
}

/// The host's name servers. Where systemd-resolved writes its own stub there, the stub works for
/// steps too: they share the host's network.
pub(super) fn read_resolv_conf() -> Vec<u8> {
    let path = std::path::Path::new("/etc/resolv.conf");
    pathio::read(path, MAX_RESOLV_BYTES).unwrap_or_default()
}

/// Makes the layer of what a RUN left.
pub(super) fn commit(
    shared: &Shared<'_>,
    done: &RunDone,
    lowers: &[LowerFolder],
    options: &LayerOptions,
) -> Result<crate::store::LayerDone> {
    let skip: [TreePath; 0] = [];
    let store = shared.services.store;
    Ok(store.layer_from_upper(&done.work, done.upper.as_fd(), lowers, &skip, options)?)
}

/// The last lines of an output, whatever its length.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

/// A line of output is kept up to this length.
const MAX_LINE_BYTES: usize = 4096;

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.open {
                self.lines.push_back(Vec::new());
                if self.lines.len() > LAST_LINES {
                    self.lines.pop_front();
                }
            }
            self.open = !piece.ends_with(b"\n");
            if let Some(line) = self.lines.back_mut() {
                let room = MAX_LINE_BYTES.saturating_sub(line.len());
                line.extend(piece.iter().take(room).filter(|byte| **byte != b'\n'));
            }
        }
    }

    fn into_lines(self) -> Vec<String> {
        self.lines.into_iter().map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_last_lines_across_chunks() {
        let mut tail = Tail::default();
        for n in 0..30 {
            tail.push(b"line");
            tail.push(format!(" {n}\n").as_bytes());
        }
        tail.push(b"end");
        let lines = tail.into_lines();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines.first().map(String::as_str), Some("line 11"));
        assert_eq!(lines.last().map(String::as_str), Some("end"));
    }
}
