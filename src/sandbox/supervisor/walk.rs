//! A lookup that goes from directory to directory, as path_resolution(7) describes: for mounts, `..`, links
//! of `/proc`, and permissions of emulated users.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, Result};

use super::Supervisor;
use super::identity::ProcessState;
use super::lookup::{Found, Name, is_magic_link};
use super::mounts::id_of;
use super::target::Target;
use crate::sandbox::attributes::FileId;

/// Maximum number of links that a lookup follows (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: u32 = 40;
/// The inode number of the root of a proc file system (`PROC_ROOT_INO`).
const PROC_ROOT_INODE: u64 = 1;

/// The treatment of the last component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    NoFollow,
    /// It is not looked up.
    Parent,
}

/// The result of a walk.
pub(super) enum Walked {
    Found(Found),
    Name(Name),
}

/// The state of a walk.
pub(super) struct Walk<'a> {
    supervisor: &'a Supervisor,
    target: Target,
    state: &'a ProcessState,
    current: OwnedFd,
    /// The mount that `current` is in.
    mount: Option<usize>,
    /// True if a magic link led to `current`.
    is_magic: bool,
    /// The directory that `..` does not leave.
    root: FileId,
    /// The components to come.
    queue: VecDeque<Vec<u8>>,
    wants_directory: bool,
    n_links: u32,
}

impl<'a> Walk<'a> {
    /// Prepares the lookup of a path, which starts at a directory of the process if it is relative.
    pub(super) fn start(
        supervisor: &'a Supervisor,
        target: Target,
        state: &'a ProcessState,
        (directory, path): (i32, &[u8]),
    ) -> Result<Self> {
        let own_root = open_root(supervisor, state)?;
        let root = id_of(&own_root)?;
        let (current, mount) = match (path.first(), directory) {
            (Some(b'/'), _) => (own_root, None),
            (_, number) => {
                let start = supervisor.start(target, number)?;
                (rustix::io::fcntl_dupfd_cloexec(&start.directory, 3)?, start.mount)
            }
        };
        Ok(Self {
            supervisor,
            target,
            state,
            current,
            mount,
            is_magic: false,
            root,
            queue: components(path),
            wants_directory: path.last() == Some(&b'/'),
            n_links: 0,
        })
    }

    /// Looks up one component after the other.
    pub(super) fn run(mut self, last: Last) -> Result<Walked> {
        while let Some(name) = self.queue.pop_front() {
            let (supervisor, state) = (self.supervisor, self.state);
            supervisor.check_search(&self.current, self.mount, state)?;
            if name == b".." {
                (self.current, self.mount) =
                    supervisor.parent_of(self.current, self.mount, self.root)?;
                continue;
            }
            if self.queue.is_empty() && last == Last::Parent {
                return self.into_name(name);
            }
            if let Some(mount) = supervisor.covering(&self.current, &name) {
                self.enter_mount(mount)?;
            } else if let Some(link) = self.enter(&name, last)? {
                return Ok(Walked::Found(link));
            }
        }
        if last == Last::Parent {
            return self.into_name(Vec::new());
        }
        let stat = rustix::fs::fstat(&self.current)?;
        if self.wants_directory && !is_directory(&stat) {
            return Err(Errno::NOTDIR);
        }
        let Self { current: file, mount, is_magic, .. } = self;
        Ok(Walked::Found(Found { file, stat, mount, is_magic }))
    }

    fn into_name(self, name: Vec<u8>) -> Result<Walked> {
        let name = CString::new(name).map_err(|_error| Errno::INVAL)?;
        let Self { current: directory, mount, wants_directory, .. } = self;
        Ok(Walked::Name(Name { directory, name, mount, wants_directory }))
    }

    /// Continues at the object of a mount.
    fn enter_mount(&mut self, mount: usize) -> Result<()> {
        let covering = self.supervisor.mounts.get(mount).ok_or(Errno::IO)?;
        self.current = rustix::io::fcntl_dupfd_cloexec(&covering.source, 3)?;
        (self.mount, self.is_magic) = (Some(mount), false);
        self.check_directory(&rustix::fs::fstat(&self.current)?)
    }

    /// Continues at `name` in the current directory. Returns a link that ends the walk.
    fn enter(&mut self, name: &[u8], last: Last) -> Result<Option<Found>> {
        let mount = self.mount.and_then(|at| self.supervisor.mounts.get(at));
        let is_in_proc = mount.is_some_and(|mount| mount.is_proc);
        if is_in_proc && id_of(&self.current)?.inode == PROC_ROOT_INODE {
            if let Some(own) = own_entry(self.target, name) {
                self.put_back(own);
                return Ok(None);
            }
            check_proc_entry(self.target, name)?;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(&self.current, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&next)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            (self.current, self.is_magic) = (next, false);
            return self.check_directory(&stat).map(|()| None);
        }
        if self.queue.is_empty() && last == Last::NoFollow && !self.wants_directory {
            let mount = self.mount;
            return Ok(Some(Found { file: next, stat, mount, is_magic: false }));
        }
        self.n_links = self.n_links.saturating_add(1);
        if self.n_links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        if is_in_proc && is_magic_link(&self.current, name) {
            self.current = self.supervisor.follow_magic(self.target, &self.current, name)?;
            (self.mount, self.is_magic) = (self.supervisor.mount_of(&self.current), true);
            return Ok(None);
        }
        self.follow(&next).map(|()| None)
    }

    /// Continues at the target of a link.
    fn follow(&mut self, link: &OwnedFd) -> Result<()> {
        let path = rustix::fs::readlinkat(link, c"", Vec::new())?.into_bytes();
        if path.first() == Some(&b'/') {
            (self.current, self.mount) = (open_root(self.supervisor, self.state)?, None);
        }
        if self.queue.is_empty() && path.last() == Some(&b'/') {
            self.wants_directory = true;
        }
        self.put_back(components(&path));
        Ok(())
    }

    fn put_back(
        &mut self,
        parts: impl IntoIterator<Item = Vec<u8>, IntoIter: DoubleEndedIterator>,
    ) {
        for part in parts.into_iter().rev() {
            self.queue.push_front(part);
        }
    }

    /// Checks that components can follow.
    fn check_directory(&self, stat: &Stat) -> Result<()> {
        if self.queue.is_empty() || is_directory(stat) { Ok(()) } else { Err(Errno::NOTDIR) }
    }
}

/// Opens the root of a process.
fn open_root(supervisor: &Supervisor, state: &ProcessState) -> Result<OwnedFd> {
    if state.root.is_empty() {
        return rustix::io::fcntl_dupfd_cloexec(&supervisor.root, 3);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = state.root.as_slice();
    rustix::fs::openat2(&supervisor.root, path, flags, Mode::empty(), within)
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Splits a path into its components. `.` has no effect.
fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

/// Replaces `self` and `thread-self` of `/proc`, which would lead to the supervisor (proc(5)).
fn own_entry(target: Target, name: &[u8]) -> Option<Vec<Vec<u8>>> {
    let thread = target.pid.as_raw_nonzero().to_string().into_bytes();
    match name {
        b"self" => Some(vec![target.thread_group().to_string().into_bytes()]),
        b"thread-self" => Some(vec![thread.clone(), b"task".to_vec(), thread]),
        _ => None,
    }
}

/// Checks that a step may see `name` in the root of `/proc`: not the directory of a process outside. The
/// kernel would check the rights of the supervisor, which is a thread of rbuild.
fn check_proc_entry(target: Target, name: &[u8]) -> Result<()> {
    let number = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    match number {
        Some(number) if !target.shares_step_with(Target::new(number)?) => Err(Errno::NOENT),
        Some(_) | None => Ok(()),
    }
}
