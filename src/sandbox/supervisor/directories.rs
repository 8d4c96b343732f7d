//! Calls that read links, and that change and report directories of the process.

use rustix::fs::FileType;
use rustix::io::Errno;

use super::identity::ProcessState;
use super::lookup::{is_magic_link, process_of};
use super::mounts::path_of;
use super::permissions::EXECUTE;
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Stop, Supervisor, number_argument};
use crate::sandbox::sys::notify::Notification;

impl Supervisor {
    pub(super) fn readlink(&mut self, call: &Notification) -> Answer {
        let [path, buffer, size, ..] = call.args;
        self.read_link(call, AT_FDCWD, path, (buffer, size))
    }

    pub(super) fn readlinkat(&mut self, call: &Notification) -> Answer {
        let [directory, path, buffer, size, ..] = call.args;
        self.read_link(call, number_argument(directory), path, (buffer, size))
    }

    fn read_link(
        &mut self,
        call: &Notification,
        directory: i32,
        path: u64,
        (buffer, size): (u64, u64),
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let link = if path.is_empty() {
            let found = self.find_descriptor(target, directory)?;
            rustix::fs::readlinkat(&found.file, c"", Vec::new())?.into_bytes()
        } else {
            self.link_at(target, directory, &path)?
        };
        let len = link.len().min(usize::try_from(size).unwrap_or(0));
        if len == 0 {
            return Err(Errno::INVAL.into());
        }
        target.write(buffer, link.get(..len).unwrap_or_default())?;
        Ok(Reply::Value(i64::try_from(len).unwrap_or(0)))
    }

    fn link_at(
        &self,
        target: Target,
        directory: i32,
        path: &[u8],
    ) -> std::result::Result<Vec<u8>, Stop> {
        let name = self.name_any(target, directory, path)?;
        let mount = name.mount.and_then(|at| self.mounts.get(at));
        if !mount.is_some_and(|at| at.is_proc) {
            let found = self.locate(target, directory, path, false)?;
            if found.file_type() != FileType::Symlink {
                return Err(Errno::INVAL.into());
            }
            return Ok(rustix::fs::readlinkat(&found.file, c"", Vec::new())?.into_bytes());
        }
        let bytes = name.name.as_bytes();
        if bytes == b"self" && path_of(&name.directory)?.ends_with(b"/proc") {
            return Ok(target.thread_group().to_string().into_bytes());
        }
        let is_magic = is_magic_link(&name.directory, bytes);
        if is_magic && bytes == b"exe" && self.rules.translates_paths {
            let process = process_of(&name.directory).unwrap_or(target);
            return Ok(self.state(process).program.clone());
        }
        if is_magic && bytes == b"root" {
            return Ok(b"/".to_vec());
        }
        let read = || rustix::fs::readlinkat(&name.directory, &name.name, Vec::new());
        let link = target.with_access(read)?.into_bytes();
        if is_magic && link.first() == Some(&b'/') {
            return Ok(self.inside_path(&link).unwrap_or(link));
        }
        Ok(link)
    }

    pub(super) fn getcwd(&mut self, call: &Notification) -> Answer {
        let [buffer, size, ..] = call.args;
        let target = Target::new(call.pid)?;
        let outside = target.link("cwd")?;
        let directory = target.working_directory()?;
        if !self.acts_in(self.mount_of(&directory)) {
            return Err(Stop::Proceed);
        }
        if rustix::fs::fstat(&directory)?.st_nlink == 0 {
            return Err(Errno::NOENT.into());
        }
        let path = self.inside_path(&outside);
        let mut path = path.and_then(|path| self.state(target).seen(&path)).ok_or(Errno::NOENT)?;
        path.push(0);
        let len = u64::try_from(path.len()).unwrap_or(u64::MAX);
        if len > size {
            return Err(Errno::RANGE.into());
        }
        target.write(buffer, &path)?;
        Ok(Reply::Value(len.cast_signed()))
    }

    pub(super) fn chdir(&mut self, call: &Notification) -> Answer {
        let [path, ..] = call.args;
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let found = self.locate(target, AT_FDCWD, &path, true)?;
        if found.file_type() != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        self.check(&found, &self.state(target), EXECUTE)?;
        self.enter(call, target, &found)
    }

    pub(super) fn chroot(&mut self, call: &Notification) -> Answer {
        let [path, ..] = call.args;
        let target = Target::new(call.pid)?;
        let path = self.path(target, path)?;
        let found = self.locate(target, AT_FDCWD, &path, true)?;
        if found.file_type() != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        let state = self.state(target);
        if !state.is_privileged() {
            return Err(Errno::PERM.into());
        }
        let mut root = self.inside_path(&path_of(&found.file)?).ok_or(Errno::NOENT)?;
        if root == b"/" {
            root.clear();
        }
        self.set_state(target, ProcessState { root, ..ProcessState::clone(&state) })?;
        if self.rules.translates_paths { Ok(Reply::Value(0)) } else { Err(Stop::Proceed) }
    }
}
