//! The mounts of a RUN: their contents are prepared, and their mount points made, before it runs.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{FileType, Gid, MemfdFlags, Mode, OFlags, Uid, memfd_create};

use crate::diag::{Diagnostic, codes};
use crate::pathio::{Context as _, PathError, ids};
use crate::plan::{
    CopyFrom, MountAccess, RunMount, RunMountKind, RunOperation, Volume, VolumeAccess,
};
use crate::sandbox::{self, FileAccess, FileId, Isolation, Mount, MountSource, Rootfs};
use crate::store::{LowerDirectory, WorkDirectory};
use crate::tree::TreePath;

use crate::executor::active_step::ActiveStep;
use crate::executor::error::unshared;
use crate::executor::inputs::ssh_agent::Agents;
use crate::executor::state::BuildState;
use crate::executor::state::root_directories::RootKind;
use crate::executor::{BuildError, chain};

use super::cache_mount::StepCaches;
use super::context_directories::ContextDirectory;
use super::mask::Mask;
use super::mount_point::{self, IN_ROOT, MountPoints, owner_set};
use super::source::{FILE_NAME, MountInputs, SelectedFiles};

/// The mounts of a step, and what must live as long as it runs.
#[derive(Debug)]
pub(in crate::executor) struct StepMounts {
    /// Mounts for the sandbox, in order.
    pub(in crate::executor) mounts: Vec<Mount>,
    /// Variables of the command that are not part of the key.
    pub(in crate::executor) env: Vec<(String, String)>,
    /// Values that are masked in the output.
    pub(in crate::executor) mask: Mask,
    caches: StepCaches,
    agents: Agents,
    /// Targets of the mounts so far.
    mounted: Vec<(String, MountedFiles)>,
    /// Created by the first mount that needs it.
    work: Option<WorkDirectory>,
    context: Vec<ContextDirectory>,
    /// Copies of mounted files.
    copies: Vec<WorkDirectory>,
    /// Files of this step alone whose attributes are emulated.
    pub(in crate::executor) emulated: Vec<FileId>,
}

/// The files that a mount shows, in which later mount points can be made.
#[derive(Debug)]
enum MountedFiles {
    /// A directory below `root`.
    Directory { root: Arc<OwnedFd>, path: TreePath },
    /// A file system that the sandbox makes. It makes mount points there, too.
    Sandbox,
}

/// Targets of file systems that the sandbox mounts itself.
const OF_SANDBOX: [&str; 3] = ["/dev", "/proc", "/sys"];

/// The arguments of every function that prepares a mount.
#[derive(Clone, Copy)]
struct MountArguments<'a> {
    state: &'a BuildState<'a>,
    mount: &'a RunMount,
    selected: Option<&'a SelectedFiles>,
    rootfs: &'a Rootfs,
}

type Result<T> = std::result::Result<T, BuildError>;

impl StepMounts {
    /// Prepares all mounts of `operation`, with mount points in `root`; waits for caches that
    /// others use.
    pub(in crate::executor) fn prepare(
        state: &BuildState<'_>,
        active: &ActiveStep,
        operation: &RunOperation,
        inputs: &MountInputs,
        rootfs: &Rootfs,
        points: &mut MountPoints,
    ) -> Result<Self> {
        let mut step = Self {
            mounts: Vec::new(),
            env: Vec::new(),
            mask: Mask::default(),
            caches: StepCaches::take(state, active, operation, inputs)?,
            agents: Agents::default(),
            mounted: OF_SANDBOX.map(|path| (path.to_owned(), MountedFiles::Sandbox)).into(),
            work: None,
            context: Vec::new(),
            copies: Vec::new(),
            emulated: Vec::new(),
        };
        for (at, mount) in operation.mounts.iter().enumerate() {
            let selected = inputs.get(at);
            step.add(at, MountArguments { state, mount, selected, rootfs }, points)?;
        }
        Ok(step)
    }

    fn add(&mut self, at: usize, with: MountArguments<'_>, points: &mut MountPoints) -> Result<()> {
        let RunMount { target, read_only, .. } = with.mount;
        let made = match &with.mount.kind {
            RunMountKind::Host(volume) => Some(self.host(with, volume)?),
            RunMountKind::Bind { .. } => Some(self.bind(with)?),
            RunMountKind::Cache { .. } => Some(self.cache(at, with)?),
            RunMountKind::Tmpfs { bytes } => {
                let bytes = Some(*bytes).filter(|bytes| *bytes > 0);
                Some((MountSource::Tmpfs { bytes, mode: 0o1777 }, true, MountedFiles::Sandbox))
            }
            RunMountKind::Secret { .. } => self.secret(with)?,
            RunMountKind::Ssh { .. } => self.ssh(with)?,
        };
        let Some((source, is_directory, place)) = made else { return Ok(()) };
        self.mount_point(target, is_directory, with.rootfs.as_fd(), points).map_err(|error| {
            let message = format!("cannot make the mount point {target}: {}", chain(&error));
            let leads_out = error.kind() == std::io::ErrorKind::CrossesDevices;
            let help = "a link leads out of the mount above it: name a target without links";
            let diagnostic = Diagnostic::error(codes::RUN_FAILED, with.mount.span, message)
                .label(with.mount.span, "this mount")
                .maybe_help(leads_out.then(|| help.to_owned()));
            BuildError::from(diagnostic)
        })?;
        let (target, read_only) = (PathBuf::from(target), *read_only);
        self.mounts.push(Mount { target, source, read_only });
        self.mounted.push((with.mount.target.clone(), place));
        Ok(())
    }

    /// Makes the mount point. One in the image's own files is removed after the step.
    fn mount_point(
        &self,
        target: &str,
        is_directory: bool,
        root: BorrowedFd<'_>,
        points: &mut MountPoints,
    ) -> std::result::Result<(), PathError> {
        let below =
            |directory: &str| Some(target.strip_prefix(directory)?.strip_prefix('/')?.as_bytes());
        let mut mounted = self.mounted.iter().rev();
        match mounted.find_map(|(directory, files)| below(directory).map(|rest| (rest, files))) {
            None => points.ensure(root, target.as_bytes(), is_directory),
            Some((_, MountedFiles::Sandbox)) => Ok(()),
            Some((rest, MountedFiles::Directory { root, path })) => {
                let path = [path.as_bytes(), b"/", rest].concat();
                mount_point::ensure_in_mount(root.as_fd(), &path, is_directory)
            }
        }
    }

    /// Returns a directory for this step, which is removed when the step has ended.
    fn work(&mut self, state: &BuildState<'_>) -> Result<&WorkDirectory> {
        if self.work.is_none() {
            self.work = Some(state.services.store.work_directory()?);
        }
        Ok(self.work.as_ref().expect("it was made above"))
    }

    /// Mounts an overlay over the files, or a copy of them: what the step writes is discarded, and
    /// later mount points can be made.
    fn bind(&mut self, with: MountArguments<'_>) -> Result<(MountSource, bool, MountedFiles)> {
        let selected = with.selected.expect("every bind mount was looked up");
        if with.state.root_kind() != RootKind::Overlay {
            return self.copied(with, selected);
        }
        let (lowers, path) = self.lowers(with, selected)?;
        let n = self.mounts.len();
        let work = self.work(with.state)?;
        let directory = |name: &str| work.directory(&format!("{n}-{name}"));
        let (upper, scratch) = (directory("upper")?, directory("work")?);
        let empty = lowers.is_empty().then(|| directory("empty")).transpose()?;
        let fds = lowers.iter().map(|lower| lower.as_fd()).chain(empty.iter().map(OwnedFd::as_fd));
        let fds: Vec<BorrowedFd<'_>> = fds.collect();
        if let Some(access) = selected.directory_access().filter(|_| path.is_root()) {
            set_access(with.rootfs, upper.as_fd(), "", access).context("prepare", work.path())?;
        }
        let span = with.mount.span;
        let overlay = Rootfs::overlay(&fds, upper.as_fd(), scratch.as_fd())
            .map_err(|source| BuildError::Sandbox { span, source })?;
        let mount = Arc::new(overlay.into_mount());
        let source =
            MountSource::Inside { mount: Arc::clone(&mount), path: path.as_path().to_owned() };
        Ok((source, selected.is_directory(), MountedFiles::Directory { root: mount, path }))
    }

    /// Mounts a file or directory of the host, or an overlay over a directory of it.
    fn host(
        &mut self,
        with: MountArguments<'_>,
        volume: &Volume,
    ) -> Result<(MountSource, bool, MountedFiles)> {
        let source = volume.source.as_path();
        let opened = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let opened = opened.context("mount the volume", source)?;
        let about = rustix::fs::fstat(&opened).context("mount the volume", source)?;
        let is_directory = FileType::from_raw_mode(about.st_mode) == FileType::Directory;
        if volume.access != VolumeAccess::Discarding {
            let directory = Arc::new(opened);
            let files = match is_directory {
                true => {
                    MountedFiles::Directory { root: Arc::clone(&directory), path: TreePath::root() }
                }
                false => MountedFiles::Sandbox,
            };
            return Ok((MountSource::Path { directory }, is_directory, files));
        }
        if !is_directory || with.state.root_kind() != RootKind::Overlay {
            let why = "an overlay (`:O`) needs a directory, and a store that can hold overlays";
            let error = std::io::Error::new(std::io::ErrorKind::Unsupported, why);
            return Err(PathError::new("mount the volume", source, error).into());
        }
        let n = self.mounts.len();
        let work = self.work(with.state)?;
        let upper = work.directory(&format!("{n}-upper"))?;
        let scratch = work.directory(&format!("{n}-work"))?;
        let span = with.mount.span;
        let overlay = Rootfs::overlay(&[opened.as_fd()], upper.as_fd(), scratch.as_fd())
            .map_err(|source| BuildError::Sandbox { span, source })?;
        let (mount, path) = (Arc::new(overlay.into_mount()), TreePath::root());
        let source =
            MountSource::Inside { mount: Arc::clone(&mount), path: path.as_path().to_owned() };
        Ok((source, true, MountedFiles::Directory { root: mount, path }))
    }

    /// Copies the files into a directory for this step.
    fn copied(
        &mut self,
        with: MountArguments<'_>,
        selected: &SelectedFiles,
    ) -> Result<(MountSource, bool, MountedFiles)> {
        let work = selected.copy_out(with.state, with.mount.span)?;
        let shown = work.path().join("fs");
        self.copies.push(work);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&shown, flags, Mode::empty()).context("open", &shown)?;
        if let Some(access) = selected.directory_access() {
            let file = set_access(with.rootfs, root.as_fd(), "", access);
            self.emulated.extend(file.context("prepare", &shown)?);
        }
        if sandbox::isolation().is_some_and(Isolation::emulates_owners) {
            for (path, access) in selected.special_accesses(with.state, with.mount.span)? {
                let path = path.as_bytes();
                let set = with.rootfs.set_access(root.as_fd(), path, access);
                self.emulated.extend(set.context("prepare", &shown)?);
            }
        }
        let name = if selected.is_directory() { "." } else { FILE_NAME };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(&root, name, flags, Mode::empty());
        let source = MountSource::Path { directory: Arc::new(source.context("open", &shown)?) };
        let files = MountedFiles::Directory {
            root: Arc::new(root),
            path: TreePath::clean(name.as_bytes()),
        };
        Ok((source, selected.is_directory(), files))
    }

    /// Returns the directories with the files, base first, and the path of the source in them.
    fn lowers(
        &mut self,
        with: MountArguments<'_>,
        selected: &SelectedFiles,
    ) -> Result<(Vec<LowerDirectory>, TreePath)> {
        let state = with.state;
        let stack = match selected.from() {
            CopyFrom::Context | CopyFrom::Named(_) => {
                let directory = {
                    let write = || selected.copy_out(state, with.mount.span);
                    state.context_directories.get_or_write(selected.digest(), write)?
                };
                let lower = Arc::clone(&directory.1);
                self.context.push(directory);
                let name = if selected.is_directory() { "" } else { FILE_NAME };
                return Ok((vec![lower], TreePath::clean(name.as_bytes())));
            }
            CopyFrom::Stage(number) => state.stage(*number).map_err(unshared)?.stack,
            CopyFrom::Image(request) => state.images.stack(request),
        };
        let directories = state.shown_directories(&stack, with.mount.span).map_err(unshared)?;
        Ok((directories, selected.path().clone()))
    }

    fn cache(
        &mut self,
        at: usize,
        with: MountArguments<'_>,
    ) -> Result<(MountSource, bool, MountedFiles)> {
        let directory = Arc::new(self.caches.directory(at, with.mount)?);
        if let RunMountKind::Cache { access, .. } = &with.mount.kind {
            with.rootfs
                .emulate_owner_below(directory.as_fd(), (access.uid, access.gid))
                .context("read the owners in", with.mount.target.as_ref())?;
        }
        let source = MountSource::Path { directory: Arc::clone(&directory) };
        Ok((source, true, MountedFiles::Directory { root: directory, path: TreePath::root() }))
    }

    fn secret(
        &mut self,
        with: MountArguments<'_>,
    ) -> Result<Option<(MountSource, bool, MountedFiles)>> {
        let RunMountKind::Secret { id, env, required, access } = &with.mount.kind else {
            return Ok(None);
        };
        let span = with.mount.span;
        let Some(value) = with.state.options.provided.secrets.get(id) else {
            if !*required {
                // The variable is set even so, to the empty string.
                self.env.extend(env.iter().map(|name| (name.clone(), String::new())));
                return Ok(None);
            }
            let message = format!("the secret `{id}` is required, but was not given");
            let error = Diagnostic::error(codes::MISSING_SECRET, span, message)
                .label(span, "needs it")
                .help(format!("add `--secret id={id},src=FILE` or `--secret id={id},env=NAME`"));
            return Err(error.into());
        };
        self.mask.add(value);
        if let Some(name) = env {
            self.env.push((name.clone(), String::from_utf8_lossy(value).into_owned()));
        }
        if with.mount.target.is_empty() {
            return Ok(None);
        }
        let setup = |source| BuildError::Sandbox { span, source };
        if !sandbox::isolation().is_some_and(Isolation::may_mount) {
            let file = secret_in_memory(value, *access)
                .context("write a secret for", with.mount.target.as_ref())?;
            let MountAccess { mode, uid, gid } = *access;
            let source = MountSource::Memory { file: Arc::new(file), uid, gid, mode };
            return Ok(Some((source, false, MountedFiles::Sandbox)));
        }
        let memory = sandbox::memory_directory().map_err(setup)?;
        let file = write_secret(with.rootfs, memory.as_fd(), value, *access);
        let file = file.context("write a secret for", with.mount.target.as_ref())?;
        self.emulated.extend(file);
        let source = MountSource::Inside { mount: Arc::new(memory), path: FILE_NAME.into() };
        Ok(Some((source, false, MountedFiles::Sandbox)))
    }

    fn ssh(
        &mut self,
        with: MountArguments<'_>,
    ) -> Result<Option<(MountSource, bool, MountedFiles)>> {
        let RunMountKind::Ssh { id, required, access } = &with.mount.kind else {
            return Ok(None);
        };
        let span = with.mount.span;
        let Some(source) = with.state.options.provided.agents.get(id) else {
            if !*required {
                return Ok(None);
            }
            let message = format!("the ssh agent `{id}` is required, but was not given");
            let error = Diagnostic::error(codes::MISSING_SECRET, span, message)
                .label(span, "needs it")
                .help(format!("add `--ssh {id}` for $SSH_AUTH_SOCK, or `--ssh {id}=KEYFILE`"));
            return Err(error.into());
        };
        let name = format!("agent-{}", self.mounts.len());
        let work = self.work(with.state)?;
        let (directory, shown) = (work.as_fd().try_clone_to_owned(), work.path().join(&name));
        let directory = directory.context("open", &shown)?;
        self.agents.listen(directory.as_fd(), &name, source).context("listen at", &shown)?;
        let file = set_access(with.rootfs, directory.as_fd(), &name, *access);
        let file = file.context("change the owner of", &shown)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = rustix::fs::openat(&directory, &name, flags, Mode::empty());
        let socket = socket.context("open", &shown)?;
        self.emulated.extend(file);
        if !self.env.iter().any(|(name, _)| name == "SSH_AUTH_SOCK") {
            self.env.push(("SSH_AUTH_SOCK".to_owned(), with.mount.target.clone()));
        }
        Ok(Some((MountSource::Path { directory: Arc::new(socket) }, false, MountedFiles::Sandbox)))
    }
}

impl Drop for StepMounts {
    fn drop(&mut self) {
        // Overlays hold descriptors of the directories, not the directories' names.
        self.mounts.clear();
        for work in self.work.iter().chain(&self.copies) {
            // The rest is removed with the work directory of the process.
            let _gone = crate::pathio::remove_tree(work.path());
        }
    }
}

/// Sets owner and mode; an empty name stands for the directory itself.
fn set_access(
    rootfs: &Rootfs,
    directory: BorrowedFd<'_>,
    name: &str,
    access: MountAccess,
) -> std::io::Result<Option<FileId>> {
    let MountAccess { uid, gid, mode } = access;
    let name = if name.is_empty() { "." } else { name };
    let set = rootfs.set_access(directory, name.as_bytes(), FileAccess { uid, gid, mode });
    set.map_err(|errno| ids::explained(errno, Uid::from_raw(uid), Gid::from_raw(gid)))
}

/// Returns a file in memory. Its owner is emulated where it cannot be set.
fn secret_in_memory(value: &[u8], access: MountAccess) -> std::io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("secret", MemfdFlags::CLOEXEC)?);
    std::io::Write::write_all(&mut file, value)?;
    let (uid, gid) = (Uid::from_raw(access.uid), Gid::from_raw(access.gid));
    owner_set(rustix::fs::fchown(&file, Some(uid), Some(gid)))?;
    if !sandbox::isolation().is_some_and(Isolation::emulates_owners) {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(access.mode))?;
    }
    Ok(file.into())
}

fn write_secret(
    rootfs: &Rootfs,
    directory: BorrowedFd<'_>,
    value: &[u8],
    access: MountAccess,
) -> std::io::Result<Option<FileId>> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(directory, FILE_NAME, flags, Mode::RUSR | Mode::WUSR, IN_ROOT)?;
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, value)?;
    set_access(rootfs, directory, FILE_NAME, access)
}
