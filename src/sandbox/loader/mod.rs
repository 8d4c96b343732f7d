//! Starts programs in a process whose root directory only a supervisor of its system calls knows.
//!
//! execve(2) resolves paths on its own: the kernel would look up the dynamic linker that a program
//! names (`PT_INTERP`) in the root of the host. So the process executes the *loader* instead, a
//! program of a few hundred bytes, with the arguments and the environment of the real execve(2).
//! The loader asks the supervisor for a list of operations that map the program and its dynamic
//! linker, as the kernel would, and jumps. For one execve(2):
//!
//! 1. `elf` and `shebang`: [`Executable::read`] reads the file; the supervisor resolves and reads
//!    the interpreter that it names.
//! 2. [`image`]: the loader's file, which the process executes.
//! 3. `sys::loader`: the loader's code, which calls prctl(2) with [`LOADER_OPTION`].
//! 4. `stack`: [`InitialStack::read`] reads the stack that the kernel made for the loader.
//! 5. `plan`: [`plan()`] chooses addresses (`placement`), lists the operations (`script`) and changes
//!    the auxiliary vector. Its result is data, which the supervisor writes into the process.
//!
//! Differences from execve(2): `/proc/PID/exe`, `/proc/PID/auxv` and the addresses in
//! `/proc/PID/stat` are the loader's, `/proc/PID/cmdline` has the arguments of execve(2) also for
//! a script, and the program's file can be written to while it runs.

mod elf;
mod placement;
mod plan;
mod script;
mod shebang;
mod stack;
#[cfg(test)]
mod tests;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod trial;

use std::os::fd::BorrowedFd;

pub(super) use elf::{Program, ProgramError};
pub(super) use placement::Random;
pub(super) use plan::{Ids, LOADER_OPTION, Mapped, Start, plan, stack_pointer};
use rustix::io::Errno;
pub(super) use shebang::Shebang;
pub(super) use stack::InitialStack;

use super::elf_image::{self, Segment};
use super::sys::loader;

/// Returns the loader as an ELF file: headers and code, and memory for the script and strings.
///
/// # Errors
/// `NOSYS` on other architectures than x86-64.
pub(super) fn image() -> Result<Vec<u8>, Errno> {
    let code = loader::code();
    if code.is_empty() {
        return Err(Errno::NOSYS);
    }
    let headers = u64::from(elf_image::headers_bytes(3));
    let len = u64::try_from(code.len()).map_or(u64::MAX, |len| len.saturating_add(headers));
    let text = Segment {
        kind: elf_image::LOAD,
        flags: elf_image::READ_EXECUTE,
        offset: 0,
        address: placement::LOADER,
        file_bytes: len,
        memory_bytes: len,
        alignment: elf::PAGE,
    };
    let data = Segment {
        flags: elf_image::READ_WRITE,
        address: loader::DATA_ADDRESS,
        file_bytes: 0,
        memory_bytes: placement::DATA_BYTES,
        ..text
    };
    let entry = placement::LOADER.saturating_add(headers);
    let mut image = elf_image::headers(entry, &[text, data, Segment::STACK]);
    image.extend_from_slice(code);
    Ok(image)
}

/// A file that execve(2) accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Executable {
    /// An ELF program, which the loader can start.
    Program(Program),
    /// A script: its interpreter is to be executed in its place, which may be a script too, up to
    /// five times (execve(2), "Interpreter scripts").
    Script(Shebang),
}

impl Executable {
    /// Reads a program or the first line of a script from its file.
    ///
    /// # Errors
    /// Every [`ProgramError`]; [`ProgramError::errno`] is what execve(2) fails with.
    pub(super) fn read(file: BorrowedFd<'_>) -> Result<Self, ProgramError> {
        let mut head = [0; shebang::HEAD_BYTES];
        let read: elf::ReadAt<'_> = &|offset, bytes| rustix::io::pread(file, bytes, offset);
        let len = elf::read_full(read, 0, &mut head)?;
        let head = head.get(..len).unwrap_or_default();
        if head.starts_with(b"#!") {
            return Shebang::parse(head).map(Self::Script).ok_or(ProgramError::UnknownFormat);
        }
        Program::read(file).map(Self::Program)
    }
}
