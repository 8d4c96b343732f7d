//! `/dev`, `/proc`, `/sys` and the mounts of a step where nothing can be mounted.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::attributes::{Attributes, FileId};
use super::devices::{DEVICES, LINKS};
use super::error::SandboxError;
use super::ops::{MASKED, READ_ONLY};
use super::spec::{Mount, MountSource, Network, RunSpec};
use super::supervisor::{NewMount, Rules};
use super::sys::landlock;
use crate::pathio;

/// The directories that each step has, and where they come from outside.
const HOST_DIRECTORIES: [(&str, &str); 2] = [("/proc", "/proc"), ("/sys", "/sys")];

/// Files of one step outside its root: its `/dev`, its tmpfs mounts, and the loader of programs.
#[derive(Debug)]
pub(super) struct StepScratch {
    path: PathBuf,
    directory: OwnedFd,
    /// Sockets that are hard links in the root while the command runs, with their names there.
    sockets: Vec<(OwnedFd, OsString)>,
}

impl StepScratch {
    /// Creates the files beside the root of the step.
    pub(super) fn new(
        root: BorrowedFd<'_>,
        spec: &RunSpec,
        rules: Rules,
    ) -> std::result::Result<Self, SandboxError> {
        let failed = |errno| SandboxError::setup("prepare /dev of the command", errno);
        let mut scratch = Self::create(root).map_err(failed)?;
        scratch.fill(spec, rules).map_err(failed)?;
        if !rules.translates_paths {
            scratch
                .link_sockets(root, spec)
                .map_err(|errno| SandboxError::setup("put a socket into the root", errno))?;
        }
        Ok(scratch)
    }

    fn create(root: BorrowedFd<'_>) -> Result<Self> {
        let root_path = rustix::fs::readlinkat(CWD, own_path(root), Vec::new())?;
        let parent = Path::new(OsStr::from_bytes(root_path.as_bytes())).parent();
        let parent = parent.ok_or(Errno::NOENT)?;
        let temporary = tempfile::Builder::new().prefix("step-").tempdir_in(parent);
        let path = temporary.map_err(|error| errno_of(&error))?.keep();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, directory, sockets: Vec::new() })
    }

    /// Puts sockets into the root itself: connect(2) looks them up there, and no supervisor can connect
    /// in the place of another process.
    fn link_sockets(&mut self, root: BorrowedFd<'_>, spec: &RunSpec) -> Result<()> {
        for (index, mount) in spec.mounts.iter().enumerate() {
            let source = self.source(index, mount)?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode);
            let name = mount.target.file_name();
            let (FileType::Socket, Some(name), Some(parent)) = (kind, name, mount.target.parent())
            else {
                continue;
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let parent = rustix::fs::openat2(root, parent, flags, Mode::empty(), within)?;
            let replaced = rustix::fs::unlinkat(&parent, name, AtFlags::empty());
            replaced.or_else(|errno| if errno == Errno::NOENT { Ok(()) } else { Err(errno) })?;
            let own = own_path(source.as_fd());
            rustix::fs::linkat(CWD, own, &parent, name, AtFlags::SYMLINK_FOLLOW)?;
            self.sockets.push((parent, name.to_owned()));
        }
        Ok(())
    }

    fn fill(&self, spec: &RunSpec, rules: Rules) -> Result<()> {
        let all = Mode::from_raw_mode(0o755);
        for name in ["dev", "dev/shm", "dev/mqueue", "dev/pts"] {
            self.make_directory(name, all)?;
        }
        rustix::fs::chmodat(
            &self.directory,
            "dev/shm",
            Mode::from_raw_mode(0o1777),
            AtFlags::empty(),
        )?;
        for device in DEVICES {
            self.make_file(&format!("dev/{}", device.name), b"", Mode::from_raw_mode(0o666))?;
        }
        for (name, to) in LINKS {
            rustix::fs::symlinkat(to, &self.directory, format!("dev/{name}"))?;
        }
        self.make_directory("blank-directory", all)?;
        self.make_file("blank-file", b"", Mode::from_raw_mode(0o444))?;
        for (index, mount) in spec.mounts.iter().enumerate() {
            if let MountSource::Tmpfs { mode, .. } = mount.source {
                let name = format!("tmpfs-{index}");
                self.make_directory(&name, all)?;
                let mode = Mode::from_raw_mode(mode);
                rustix::fs::chmodat(&self.directory, &name, mode, AtFlags::empty())?;
            }
        }
        if rules.translates_paths {
            let mode = Mode::from_raw_mode(0o555);
            self.make_file("loader", &super::loader::image()?, mode)?;
        }
        Ok(())
    }

    fn make_directory(&self, name: &str, mode: Mode) -> Result<()> {
        rustix::fs::mkdirat(&self.directory, name, mode)
    }

    fn make_file(&self, name: &str, content: &[u8], mode: Mode) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o600))?;
        let mut rest = content;
        while !rest.is_empty() {
            let len = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
            rest = rest.get(len..).unwrap_or_default();
        }
        rustix::fs::fchmod(&file, mode)
    }

    /// Returns the path of the loader.
    pub(super) fn loader_path(&self) -> Vec<u8> {
        self.path.join("loader").as_os_str().as_bytes().to_vec()
    }

    /// Returns the mounts of the step, outer ones first.
    pub(super) fn mounts(
        &self,
        root: BorrowedFd<'_>,
        spec: &RunSpec,
    ) -> std::result::Result<Vec<NewMount>, SandboxError> {
        let mut mounts = self
            .standard_mounts(root)
            .map_err(|errno| SandboxError::setup("open /proc, /sys and /dev", errno))?;
        let in_root = |mount: &Mount| {
            let name = mount.target.file_name();
            self.sockets.iter().any(|(_, socket)| Some(socket.as_os_str()) == name)
        };
        for (index, mount) in spec.mounts.iter().enumerate().filter(|(_, mount)| !in_root(mount)) {
            let what = || format!("open the source of the mount {}", mount.target.display());
            let source = self.source(index, mount);
            mounts.push(NewMount {
                target: mount.target.as_os_str().as_bytes().to_vec(),
                source: source.map_err(|errno| SandboxError::setup(what(), errno))?,
                read_only: mount.read_only,
                is_proc: false,
                is_standard: false,
            });
        }
        Ok(mounts)
    }

    /// Opens the working directory of the command, which may be in a mount.
    pub(super) fn open_directory(&self, root: BorrowedFd<'_>, spec: &RunSpec) -> Result<OwnedFd> {
        let mut mounts = self
            .standard_mounts(root)?
            .into_iter()
            .map(|mount| (PathBuf::from(OsStr::from_bytes(&mount.target)), mount.source))
            .collect::<Vec<_>>();
        for (index, mount) in spec.mounts.iter().enumerate() {
            mounts.push((mount.target.clone(), self.source(index, mount)?));
        }
        let innermost = mounts
            .iter()
            .filter_map(|(target, source)| Some((source, spec.cwd.strip_prefix(target).ok()?)))
            .next_back();
        let (from, path) =
            innermost.map_or((root, spec.cwd.as_path()), |(source, rest)| (source.as_fd(), rest));
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(from, path, flags, Mode::empty(), within)
    }

    fn standard_mounts(&self, root: BorrowedFd<'_>) -> Result<Vec<NewMount>> {
        let mut mounts = Vec::new();
        for (target, host) in HOST_DIRECTORIES {
            ensure_directory(root, target)?;
            let (read_only, is_proc) = (target == "/sys", target == "/proc");
            // A container may have no /sys.
            if let Ok(source) = open_path(CWD, host) {
                mounts.push(standard(target, source, read_only, is_proc));
            }
        }
        for path in READ_ONLY {
            // Not every kernel has all of them.
            if let Ok(source) = open_path(CWD, path) {
                mounts.push(standard(path, source, true, true));
            }
        }
        for path in MASKED {
            if let Ok(stat) = rustix::fs::stat(path) {
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                let blank = if is_directory { "blank-directory" } else { "blank-file" };
                mounts.push(standard(path, open_path(self.directory.as_fd(), blank)?, true, false));
            }
        }
        ensure_directory(root, "/dev")?;
        mounts.push(standard("/dev", open_path(self.directory.as_fd(), "dev")?, false, false));
        for device in DEVICES {
            let path = format!("/dev/{}", device.name);
            // A container may lack some of them, and so may its steps.
            if let Ok(source) = open_path(CWD, &path) {
                mounts.push(standard(&path, source, false, false));
            }
        }
        // Without a devpts, programs cannot open terminals.
        if let Ok(terminals) = open_path(CWD, "/dev/pts") {
            mounts.push(standard("/dev/pts", terminals, false, false));
        }
        Ok(mounts)
    }

    fn source(&self, index: usize, mount: &Mount) -> Result<OwnedFd> {
        match &mount.source {
            MountSource::Path { directory } => rustix::io::fcntl_dupfd_cloexec(directory, 3),
            MountSource::Whole { mount } => rustix::io::fcntl_dupfd_cloexec(mount, 3),
            MountSource::Memory { file, .. } => rustix::io::fcntl_dupfd_cloexec(file, 3),
            MountSource::Inside { mount, path } => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(mount, path, flags, Mode::empty(), within)
            }
            MountSource::Tmpfs { .. } => {
                open_path(self.directory.as_fd(), &format!("tmpfs-{index}"))
            }
        }
    }

    /// Returns the attributes of mounted files that their own file systems do not have.
    pub(super) fn attributes(
        &self,
        spec: &RunSpec,
    ) -> std::result::Result<Vec<(FileId, Attributes)>, SandboxError> {
        let mut all = Vec::new();
        for mount in &spec.mounts {
            let MountSource::Memory { file, uid, gid, mode } = &mount.source else { continue };
            let stat = rustix::fs::fstat(file)
                .map_err(|errno| SandboxError::setup("read a file in memory", errno))?;
            let mut attributes = Attributes::on_disk(&stat);
            (attributes.uid, attributes.gid) = (*uid, *gid);
            attributes.mode = (stat.st_mode & !0o7777) | mode;
            all.push((FileId::of(&stat), attributes));
        }
        Ok(all)
    }

    /// Returns the rules that keep the step's processes in the root and the mounts, where the kernel
    /// has Landlock.
    pub(super) fn fence(
        &self,
        root: BorrowedFd<'_>,
        spec: &RunSpec,
    ) -> std::result::Result<Option<OwnedFd>, SandboxError> {
        let failed = |errno| SandboxError::setup("fence the command off with Landlock", errno);
        // No rule can name a file in memory, and the supervisor opens that one.
        let named =
            |(_, mount): &(usize, &Mount)| !matches!(mount.source, MountSource::Memory { .. });
        let mounts = spec.mounts.iter().enumerate().filter(named);
        let sources = mounts.map(|(index, mount)| self.source(index, mount));
        let sources = sources.collect::<Result<Vec<_>>>().map_err(failed)?;
        let on_disk = |file: &&OwnedFd| {
            let kind = rustix::fs::fstat(file).map(|stat| FileType::from_raw_mode(stat.st_mode));
            kind.is_ok_and(|kind| matches!(kind, FileType::Directory | FileType::RegularFile))
        };
        let sources = sources.iter().filter(on_disk).map(OwnedFd::as_fd);
        let open: Vec<BorrowedFd<'_>> =
            [root, self.directory.as_fd()].into_iter().chain(sources).collect();
        match landlock::fence(&open, matches!(spec.network, Network::Host) && !spec.insecure) {
            Ok(rules) => Ok(Some(rules)),
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Removes the files.
    pub(super) fn remove(&self) {
        for (directory, name) in &self.sockets {
            // The command may have removed it.
            let _gone = rustix::fs::unlinkat(directory, name, AtFlags::empty());
        }
        // The rest is removed with the directory that contains it.
        let _gone = pathio::remove_dir_all(&self.path);
    }
}

impl Drop for StepScratch {
    fn drop(&mut self) {
        self.remove();
    }
}

fn standard(target: &str, source: OwnedFd, read_only: bool, is_proc: bool) -> NewMount {
    NewMount { target: target.as_bytes().to_vec(), source, read_only, is_proc, is_standard: true }
}

fn open_path(directory: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    rustix::fs::openat(directory, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Creates a directory in the root unless something is there.
fn ensure_directory(root: BorrowedFd<'_>, path: &str) -> Result<()> {
    let name = path.trim_start_matches('/');
    match rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn own_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
