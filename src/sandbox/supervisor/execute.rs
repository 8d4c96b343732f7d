//! Programs that a step starts.
//!
//! If paths are translated, the kernel cannot start a program: it would look up the dynamic linker in its
//! own root. The process executes the loader instead, which then asks for the program; see
//! [`loader`].

use std::collections::hash_map::RandomState;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::identity::ProcessState;
use super::lookup::Found;
use super::mounts::path_of;
use super::redirect::Redirection;
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Supervisor, flag_argument, number_argument};
use crate::sandbox::loader::{
    self, Executable, Ids, InitialStack, Mapped, Program, Random, Shebang, Start,
};
use crate::sandbox::sys::memory;
use crate::sandbox::sys::notify::{self, Notification};

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;
/// Maximum number of scripts that name each other as interpreters (execve(2)).
const MAX_SCRIPTS: u32 = 5;

/// A program that a process is about to load.
#[derive(Debug)]
pub(super) struct PendingProgram {
    program: OpenProgram,
    interpreter: Option<OpenProgram>,
    filename: CString,
    /// The arguments that replace the first one, for a script.
    first_arguments: Vec<CString>,
    /// The state of the process once the program runs.
    state: ProcessState,
    is_secure: bool,
}

#[derive(Debug)]
struct OpenProgram {
    program: Program,
    file: OwnedFd,
}

/// The arguments of execve(2).
struct Arguments<'a> {
    path: &'a [u8],
    argv: u64,
    env: u64,
}

impl Supervisor {
    pub(super) fn execve(&mut self, call: &Notification) -> Answer {
        let [path, argv, env, ..] = call.args;
        self.execute(call, (AT_FDCWD, path), (argv, env), AtFlags::empty())
    }

    pub(super) fn execveat(&mut self, call: &Notification) -> Answer {
        let [directory, path, argv, env, flags, _] = call.args;
        let place = (number_argument(directory), path);
        self.execute(call, place, (argv, env), flag_argument(flags))
    }

    fn execute(
        &mut self,
        call: &Notification,
        place: (i32, u64),
        (argv, env): (u64, u64),
        flags: AtFlags,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let follows = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let found = self.object(target, place, flags, follows)?;
        if found.file_type() == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
        if self.rules.emulates_owners {
            self.check_executable(target, &found)?;
        }
        if self.rules.translates_paths {
            let path = self.path(target, place.1)?;
            let path = if path.is_empty() { path_of(&found.file)? } else { path };
            return self.load(call, target, &found, &Arguments { path: &path, argv, env });
        }
        if self.rules.emulates_owners {
            let state = self.state(target);
            let (new, is_secure) = self.state_after(&state, &found);
            if is_secure {
                self.set_state(target, new)?;
            }
            return Err(super::Stop::Proceed);
        }
        self.execute_descriptor(call, &found, (argv, env))
    }

    /// Executes a file that no path of the process leads to.
    fn execute_descriptor(
        &mut self,
        call: &Notification,
        found: &Found,
        (argv, env): (u64, u64),
    ) -> Answer {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, found.own_path(), flags, Mode::empty())?;
        // The interpreter of a script opens `/dev/fd/N` (execveat(2)).
        let is_script = matches!(Executable::read(file.as_fd()), Ok(Executable::Script(_)));
        let number = notify::add_descriptor(
            self.listener.as_fd(),
            call.id,
            file.as_fd(),
            !is_script,
            false,
        )?;
        let descriptor = u64::try_from(number).map_err(|_error| Errno::BADF)?;
        let execveat = i32::try_from(libc::SYS_execveat).map_err(|_error| Errno::NOSYS)?;
        let empty_path = u64::from(AtFlags::EMPTY_PATH.bits());
        self.redirect(
            call,
            Redirection {
                data: vec![(vec![0], 1)],
                arguments: vec![(0, descriptor), (2, argv), (3, env), (4, empty_path)],
                number: Some(execveat),
            },
        )
    }

    /// Returns the state of a process after it has executed a file, and whether the file's set-id bits
    /// changed it.
    fn state_after(&self, state: &ProcessState, found: &Found) -> (ProcessState, bool) {
        let attributes = self.files.of(&found.stat);
        let mut new = state.clone();
        if attributes.mode & SET_USER_ID != 0 {
            new.uid.effective = attributes.uid;
        }
        if attributes.mode & SET_GROUP_ID != 0 && attributes.mode & GROUP_EXECUTE != 0 {
            new.gid.effective = attributes.gid;
        }
        for ids in [&mut new.uid, &mut new.gid] {
            (ids.saved, ids.filesystem) = (ids.effective, ids.effective);
        }
        let is_secure =
            new.uid.effective != state.uid.effective || new.gid.effective != state.gid.effective;
        (new, is_secure)
    }

    /// Makes the process execute the loader, which then asks for the program.
    fn load(
        &mut self,
        call: &Notification,
        target: Target,
        found: &Found,
        arguments: &Arguments<'_>,
    ) -> Answer {
        let pending = self.pending_program(target, found, arguments.path)?;
        self.pending.insert(target.thread_group(), pending);
        let mut loader = self.loader_path(call)?;
        loader.push(0);
        let execve = i32::try_from(libc::SYS_execve).map_err(|_error| Errno::NOSYS)?;
        self.redirect(
            call,
            Redirection {
                data: vec![(loader, 0)],
                arguments: vec![(1, arguments.argv), (2, arguments.env)],
                number: Some(execve),
            },
        )
    }

    /// Returns the path by which the process finds the loader.
    fn loader_path(&mut self, call: &Notification) -> Result<Vec<u8>> {
        if self.copies.is_none() {
            return Ok(self.loader.clone());
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, self.loader.as_slice(), flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        let copy = self.readable(&Found { file, stat, mount: None, is_magic: false })?;
        let number =
            notify::add_descriptor(self.listener.as_fd(), call.id, copy.as_fd(), true, false)?;
        Ok(format!("/proc/self/fd/{number}").into_bytes())
    }

    /// Opens a program to read and map it.
    fn readable(&mut self, found: &Found) -> Result<OwnedFd> {
        let file = open(found)?;
        match &mut self.copies {
            Some(copies) => copies.of(found, file),
            None => Ok(file),
        }
    }

    fn pending_program(
        &mut self,
        target: Target,
        found: &Found,
        path: &[u8],
    ) -> Result<PendingProgram> {
        let filename = CString::new(path).map_err(|_error| Errno::INVAL)?;
        let (mut state, is_secure) = self.state_after(&self.state(target), found);
        let (program, file, first_arguments) = self.resolve_scripts(target, found, &filename)?;
        let interpreter = match program.program.interpreter() {
            None => None,
            Some(path) => {
                let found = self.find(target, AT_FDCWD, path.to_bytes(), true)?;
                self.check_executable(target, &found)?;
                let file = self.readable(&found)?;
                let program = Program::read(file.as_fd()).map_err(loader_error)?;
                Some(OpenProgram { program, file })
            }
        };
        state.program = self.inside_path(&path_of(&file)?).unwrap_or_else(|| path.to_vec());
        Ok(PendingProgram { program, interpreter, filename, first_arguments, state, is_secure })
    }

    /// Follows `#!` lines to a program. Returns it, its file as it was found, and the arguments that
    /// replace the first one.
    fn resolve_scripts(
        &mut self,
        target: Target,
        found: &Found,
        filename: &CStr,
    ) -> Result<(OpenProgram, OwnedFd, Vec<CString>)> {
        let mut arguments = Vec::new();
        let mut file = self.readable(found)?;
        let mut named = rustix::io::fcntl_dupfd_cloexec(&found.file, 3)?;
        for _ in 0..=MAX_SCRIPTS {
            let script = match Executable::read(file.as_fd()).map_err(loader_error)? {
                Executable::Program(program) => {
                    return Ok((OpenProgram { program, file }, named, arguments));
                }
                Executable::Script(script) => script,
            };
            let Shebang { interpreter, argument } = script;
            let found = self.find(target, AT_FDCWD, &interpreter, true)?;
            self.check_executable(target, &found)?;
            if arguments.is_empty() {
                arguments.push(filename.to_owned());
            }
            let words = [Some(interpreter), argument].into_iter().flatten();
            let words = words.map(|word| CString::new(word).map_err(|_error| Errno::INVAL));
            let mut words = words.collect::<Result<Vec<_>>>()?;
            words.append(&mut arguments);
            arguments = words;
            file = self.readable(&found)?;
            named = found.file;
        }
        Err(Errno::LOOP)
    }

    /// Answers the loader: gives it the files of the program, and its script.
    pub(super) fn load_program(&mut self, call: &Notification) -> Answer {
        let target = Target::new(call.pid)?;
        let pointer = loader::stack_pointer(call.args).ok_or(Errno::INVAL)?;
        let pending = self.pending.remove(&call.pid).ok_or(Errno::INVAL)?;
        let PendingProgram { program, interpreter, filename, first_arguments, state, is_secure } =
            pending;
        let read = |address: u64, bytes: &mut [u8]| memory::read(target.pid, address, bytes);
        let stack = InitialStack::read(&read, pointer)?;
        let first_arguments: Vec<&CStr> = first_arguments.iter().map(CString::as_c_str).collect();
        let start = Start {
            program: self.give_program(call, &program)?,
            interpreter: match &interpreter {
                Some(interpreter) => Some(self.give_program(call, interpreter)?),
                None => None,
            },
            filename: &filename,
            first_arguments: &first_arguments,
            ids: Ids {
                user: state.uid.real,
                effective_user: state.uid.effective,
                group: state.gid.real,
                effective_group: state.gid.effective,
                secure: is_secure,
            },
            random: Random { program: random(), interpreter: random() },
        };
        let loading = loader::plan(&start, &stack)?;
        for (address, bytes) in &loading.writes {
            target.write(*address, bytes)?;
        }
        self.set_state(target, state)?;
        Ok(Reply::Value(loading.result))
    }

    fn give_program<'a>(&self, call: &Notification, open: &'a OpenProgram) -> Result<Mapped<'a>> {
        let listener = self.listener.as_fd();
        let number = notify::add_descriptor(listener, call.id, open.file.as_fd(), false, false)?;
        let descriptor = u32::try_from(number).map_err(|_error| Errno::BADF)?;
        Ok(Mapped { program: &open.program, descriptor })
    }
}

fn open(found: &Found) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, found.own_path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn loader_error(error: loader::ProgramError) -> Errno {
    error.errno()
}

/// Returns a number for the placement of a program; the standard library seeds it from the system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
