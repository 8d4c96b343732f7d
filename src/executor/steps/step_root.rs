//! The rootfs of a RUN with its mounts: prepared, used by the command, and kept for a debug session
//! if it failed.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::diag::{Diagnostic, Span, codes};
use crate::pathio::{self, Context as _, PathError, ids};
use crate::plan::RunSettings;
use crate::plan::{InlineFile, Network, RunOperation, Ulimit};
use crate::sandbox::{
    self, AttachOptions, CapabilityChanges, Exit, Isolation, KeptMounts, Limit, Mount,
    MountNamespace, MountSource, Output, PrivateNetwork, Resource, Rootfs, RunSpec, SandboxError,
    StepCgroup, Streams, User,
};
use crate::store::WorkDirectory;
use crate::tree::{Accounts, ResolvedUser};

use crate::executor::BuildError;
use crate::executor::active_step::ActiveStep;
use crate::executor::copy::sources::read_accounts;
use crate::executor::mounts::mask::Mask;
use crate::executor::mounts::mount_point::{self, MountPoints};
use crate::executor::mounts::run_trust::{self, RunTrust};
use crate::executor::mounts::source::MountInputs;
use crate::executor::mounts::step_mounts::StepMounts;
use crate::executor::mounts::trusted_files::{self, TrustedFiles};
use crate::executor::state::BuildState;

use super::step_files::StepFiles;

type Result<T> = std::result::Result<T, BuildError>;

/// The rootfs of a RUN: the files of its layers, and its mounts.
#[derive(Debug)]
pub(in crate::executor) struct StepRoot {
    rootfs: Rootfs,
    spec: RunSpec,
    points: MountPoints,
    own: StepMounts,
    files: StepFiles,
    /// Files of the image that list more trusted certificates during the step.
    trusted: Option<TrustedFiles>,
    /// The network that the step joins.
    private_network: Option<Arc<PrivateNetwork>>,
    /// The control group of its command.
    cgroup: Option<StepCgroup>,
    /// Mount namespace of the first command that ran in it.
    kept: OnceLock<Arc<KeptMounts>>,
}

/// A command of a debug session.
#[derive(Debug)]
pub(in crate::executor) struct SessionCommand {
    pub(in crate::executor) argv: Vec<OsString>,
    /// Variables in addition to those of the step.
    pub(in crate::executor) env: Vec<(OsString, OsString)>,
    /// Mounts in addition to those of the step.
    pub(in crate::executor) mounts: Vec<Mount>,
    pub(in crate::executor) streams: Streams,
}

impl StepRoot {
    /// Prepares the root and everything that the step mounts.
    pub(in crate::executor) fn prepare(
        state: &BuildState<'_>,
        step: &ActiveStep,
        span: Span,
        operation: &RunOperation,
        inputs: &MountInputs,
        mut files: StepFiles,
    ) -> Result<Self> {
        let rootfs = files.rootfs(operation.insecure, span)?;
        let user = resolve_user(rootfs.as_fd(), &operation.user, span)?;
        mount_point::make_directories(rootfs.as_fd(), &operation.cwd, &|directory, name| {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            let set = rootfs.set_owner(directory, name, (user.uid, user.gid));
            set.map_err(|errno| ids::explained(errno, uid, gid))
        })?;
        files.note_changes();
        let mut points = MountPoints::default();
        let mut mounts = mounts(state, files.work(), operation, rootfs.as_fd(), &mut points)?;
        let own = StepMounts::prepare(state, step, operation, inputs, &rootfs, &mut points)?;
        mounts.extend(own.mounts.iter().cloned());
        let mut provided = own.env.clone();
        let trust = state.options.run_trust.as_ref();
        let trusted = trust.map(|trust| {
            let home = user.home.as_deref().unwrap_or("/");
            let trusted = TrustedFiles::extend(rootfs.as_fd(), trust, &operation.env)?;
            mounts.push(trust_mount(files.work(), trust, &trusted)?);
            let is_set = |name: &str| {
                let given = operation.env.iter().chain(&provided);
                given.into_iter().any(|(known, _)| known == name)
            };
            let has_wgetrc = trusted_files::has_file(rootfs.as_fd(), &format!("{home}/.wgetrc"));
            let variables = run_trust::variables(|name| {
                is_set(name) || (name == run_trust::WGETRC && has_wgetrc)
            });
            provided.extend(variables);
            Ok::<_, BuildError>(trusted)
        });
        let trusted = trusted.transpose()?;
        let is_sure = own.mounts.is_empty() && !operation.insecure && trusted.is_none();
        files.ignore_mount_points(&rootfs, is_sure);
        let mut spec = spec(operation, &user, &provided, mounts);
        let private_network = use_network(state, operation, &mut spec, span)?;
        let cgroup = use_cgroup(state, &mut spec, span)?;
        let is_kept =
            state.options.keep_failed && sandbox::isolation() == Some(Isolation::Namespace);
        if is_kept {
            spec.mount_namespace = MountNamespace::Kept;
        }
        let kept = OnceLock::new();
        Ok(Self { rootfs, spec, points, own, files, trusted, private_network, cgroup, kept })
    }

    /// Returns the values to mask in its output.
    pub(in crate::executor) const fn mask(&self) -> &Mask {
        &self.own.mask
    }

    /// Returns the limit on memory, if a process of the step was killed because of it.
    pub(in crate::executor) fn exceeded_memory(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(StepCgroup::exceeded_memory)
    }

    /// Returns the root, for lookups of paths.
    pub(in crate::executor) fn as_fd(&self) -> BorrowedFd<'_> {
        self.rootfs.as_fd()
    }

    /// Returns a variable of the step.
    pub(in crate::executor) fn variable(&self, name: &str) -> Option<String> {
        let found = self.spec.env.iter().rev().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.to_str().map(str::to_owned))
    }

    /// Returns whether a debug session can join the mounts of the command.
    pub(in crate::executor) fn is_kept(&self) -> bool {
        self.kept.get().is_some()
    }

    /// Runs the step's command.
    pub(in crate::executor) fn run(
        &self,
        attending: AttachOptions<'_>,
        on_output: &mut dyn FnMut(Output, &[u8]),
    ) -> std::result::Result<Exit, SandboxError> {
        self.run_spec(&self.spec, attending, on_output)
    }

    /// Runs a command of a debug session, in the mounts of the step's command if that has run.
    pub(in crate::executor) fn run_in_session(
        &self,
        command: SessionCommand,
        attending: AttachOptions<'_>,
        on_output: &mut dyn FnMut(Output, &[u8]),
    ) -> std::result::Result<Exit, SandboxError> {
        let SessionCommand { argv, env, mounts, streams } = command;
        let mut spec = RunSpec { argv, streams, ..self.spec.clone() };
        spec.env.retain(|(name, _)| !env.iter().any(|(other, _)| other == name));
        spec.env.extend(env);
        match self.kept.get() {
            Some(kept) => {
                (spec.mount_namespace, spec.mounts) =
                    (MountNamespace::Join(Arc::clone(kept)), mounts);
            }
            None => {
                spec.mount_namespace = MountNamespace::Kept;
                spec.mounts.extend(mounts);
            }
        }
        self.run_spec(&spec, attending, on_output)
    }

    fn run_spec(
        &self,
        spec: &RunSpec,
        attending: AttachOptions<'_>,
        on_output: &mut dyn FnMut(Output, &[u8]),
    ) -> std::result::Result<Exit, SandboxError> {
        let attending = AttachOptions { memory: self.files.memory_limit(), ..attending };
        let ran = sandbox::run_attached(&self.rootfs, spec, attending, on_output);
        if let Some(kept) = ran.kept {
            // It is set once: later commands join these mounts and make none.
            let _new = self.kept.set(Arc::new(kept));
        }
        ran.exit
    }

    /// Returns the files as the command left them, without mounts and mount points.
    pub(in crate::executor) fn done(self) -> Result<StepFiles> {
        let Self { rootfs, spec, points, own, mut files, trusted, private_network, cgroup, kept } =
            self;
        files.note_changes();
        rootfs.forget(&own.emulated);
        drop((kept, spec, own, private_network, cgroup));
        points.remove()?;
        files.end(rootfs);
        if let Some(trusted) = trusted {
            trusted.clean(files.changes())?;
        }
        Ok(files)
    }
}

/// Gives the command its network; returns a private one.
fn use_network(
    state: &BuildState<'_>,
    operation: &RunOperation,
    spec: &mut RunSpec,
    span: Span,
) -> Result<Option<Arc<PrivateNetwork>>> {
    // Offline or not, the key is the same: the network of a step may be down at any time.
    if state.services.registry.is_offline() {
        spec.network = sandbox::Network::None;
        return Ok(None);
    }
    if operation.network != Network::Private {
        return Ok(None);
    }
    let network = state.private_network().map_err(|source| BuildError::Sandbox { span, source })?;
    spec.network = sandbox::Network::Private(network.namespace());
    Ok(Some(network))
}

/// Gives the command a control group of its own, if it has limits.
fn use_cgroup(
    state: &BuildState<'_>,
    spec: &mut RunSpec,
    span: Span,
) -> Result<Option<StepCgroup>> {
    let Some(limits) = &state.options.resources else { return Ok(None) };
    let group = StepCgroup::new(limits).map_err(|source| BuildError::Sandbox { span, source })?;
    spec.cgroups = group.entries();
    Ok(Some(group))
}

fn spec(
    operation: &RunOperation,
    user: &ResolvedUser,
    provided: &[(String, String)],
    mounts: Vec<Mount>,
) -> RunSpec {
    let is_in = |list: &[(String, String)], name: &str| list.iter().any(|(known, _)| known == name);
    // A variable of a mount overrides a proxy argument, and that overrides one of the image. An
    // empty HOME counts as unset.
    let is_hidden = |name: &str, value: &str| {
        is_in(&operation.proxy, name) || (name == "HOME" && value.is_empty())
    };
    let own = operation.env.iter().filter(|(name, value)| !is_hidden(name, value));
    let mut env: Vec<(OsString, OsString)> = own
        .chain(&operation.proxy)
        .filter(|(name, _)| !is_in(provided, name))
        .chain(provided)
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
            // The caller replaces it by a private one.
            Network::Host | Network::Private => sandbox::Network::Host,
            Network::None => sandbox::Network::None,
        },
        mounts,
        insecure: operation.insecure,
        capabilities: capabilities(&operation.settings),
        shm_bytes: operation.settings.shm_bytes.unwrap_or(sandbox::DEFAULT_SHM_BYTES),
        cgroups: Vec::new(),
        limits: limits(&operation.settings.ulimits),
        streams: Streams::Output,
        mount_namespace: MountNamespace::Own,
    }
}

/// Converts capabilities; their names were checked with the command line.
fn capabilities(settings: &RunSettings) -> CapabilityChanges {
    let changes = CapabilityChanges::of_names(&settings.add_caps, &settings.drop_caps);
    changes.unwrap_or(CapabilityChanges::NONE)
}

/// Soft and hard limit on open files: systemd's defaults for services, docker among them
/// (systemd.exec(5), `DefaultLimitNOFILE`). The caller's limit would make a step depend on the
/// shell that starts the build.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

fn limits(ulimits: &[Ulimit]) -> Vec<Limit> {
    let mut limits: Vec<Limit> = ulimits.iter().filter_map(limit).collect();
    if !limits.iter().any(|limit| limit.resource == Resource::Nofile) {
        let (soft, hard) = OPEN_FILES;
        // Only root may raise the hard limit.
        let most = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(hard);
        let (soft, hard) = (Some(soft.min(most)), Some(hard.min(most)));
        limits.push(Limit { resource: Resource::Nofile, soft, hard });
    }
    limits
}

/// Converts a limit; its name was checked with the command line.
fn limit(limit: &Ulimit) -> Option<Limit> {
    let number = |value: u64| Some(value).filter(|value| *value != u64::MAX);
    let resource = resource(&limit.name)?;
    Some(Limit { resource, soft: number(limit.soft), hard: number(limit.hard) })
}

/// Returns the resource with this name in `--ulimit` (getrlimit(2)).
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

/// Resolves USER with the accounts of the rootfs.
fn resolve_user(root: BorrowedFd<'_>, user: &str, span: Span) -> Result<ResolvedUser> {
    let read = |path: &str| -> std::result::Result<Vec<u8>, PathError> {
        let error = |error| PathError::new("read the image's", Path::new("/").join(path), error);
        match mount_point::open_regular(root, path.as_ref()) {
            Ok(file) => file.map_or(Ok(Vec::new()), read_accounts).map_err(error),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
            Err(errno) => Err(error(errno.into())),
        }
    };
    let accounts = Accounts::parse(&read("etc/passwd")?, &read("etc/group")?);
    accounts.user(user).map_err(|error| {
        let message = format!("cannot run as USER {user}: {error}");
        let help = "create the user in an earlier RUN (`RUN useradd NAME`; on Alpine and busybox \
                    `adduser -D NAME`), or give a number";
        Diagnostic::error(codes::BAD_USER, span, message).help(help).into()
    })
}

/// Returns the mounts of every step: name resolution, and the scripts of heredocs.
fn mounts(
    state: &BuildState<'_>,
    work: &WorkDirectory,
    operation: &RunOperation,
    root: BorrowedFd<'_>,
    points: &mut MountPoints,
) -> Result<Vec<Mount>> {
    let hosts = hosts_file(&operation.hostname, &operation.settings.hosts);
    let resolv = operation.settings.dns.resolv_conf(&state.resolv_conf(operation.network));
    let mut mounts = Vec::new();
    for (name, target, content) in
        [("hosts", "/etc/hosts", hosts.as_bytes()), ("resolv", "/etc/resolv.conf", &*resolv)]
    {
        points.ensure(root, target.as_bytes(), false)?;
        let path = work.path().join(name);
        pathio::write(&path, content)?;
        mounts.push(file_mount(&path, target, false)?);
    }
    if let Some(InlineFile { target, .. }) = operation.files.first() {
        let directory = PathBuf::from(target).parent().map(PathBuf::from).unwrap_or_default();
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
        mounts.push(file_mount(&scripts, &directory.to_string_lossy(), true)?);
    }
    Ok(mounts)
}

/// Returns the mount with the files that variables of the step name.
fn trust_mount(work: &WorkDirectory, trust: &RunTrust, files: &TrustedFiles) -> Result<Mount> {
    let path = work.path().join("ca");
    trust.write(&path, files.own_bundle())?;
    file_mount(&path, run_trust::DIRECTORY, true)
}

fn file_mount(path: &Path, target: &str, read_only: bool) -> Result<Mount> {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context("open", path)?;
    let source = MountSource::Path { directory: Arc::new(file) };
    Ok(Mount { target: PathBuf::from(target), source, read_only })
}

fn hosts_file(hostname: &str, more: &[(String, String)]) -> String {
    let more: String = more.iter().map(|(name, address)| format!("{address}\t{name}\n")).collect();
    format!(
        "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n{more}"
    )
}
