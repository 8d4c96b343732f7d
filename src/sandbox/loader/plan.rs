//! The answer to the loader's call, as plain data: memory to write, and a result.

use std::ffi::CStr;

use rustix::io::Errno;

use super::elf::{PROGRAM_HEADER_BYTES, Program};
use super::placement::{self, Biases, DATA_BYTES, Random};
use super::script::{self, Operation};
use super::stack::{self, InitialStack};
use crate::sandbox::sys::loader::{DATA_ADDRESS, OPTION, SCRIPT_BYTES};

/// The address of the strings: the second part of the loader's data.
const STRINGS: u64 = DATA_ADDRESS + SCRIPT_BYTES;
const STRINGS_BYTES: u64 = DATA_BYTES - SCRIPT_BYTES;

/// Maximum length of a process's name without its null byte (`TASK_COMM_LEN`, prctl(2)).
const MAX_NAME_BYTES: usize = 15;

/// The operation of prctl(2) that the loader calls, for the filter that traps it.
pub(in crate::sandbox) const LOADER_OPTION: u32 = OPTION;

/// Everything that decides how a program starts.
#[derive(Debug, Clone, Copy)]
pub(in crate::sandbox) struct Start<'a> {
    pub(in crate::sandbox) program: Mapped<'a>,
    /// The program that `program` names in `PT_INTERP`, if it does.
    pub(in crate::sandbox) interpreter: Option<Mapped<'a>>,
    /// The path as execve(2) got it, even for a script (`AT_EXECFN`). The part after the last
    /// slash becomes the process's name.
    pub(in crate::sandbox) filename: &'a CStr,
    /// Replacement of the first argument: for a script, its interpreter, the argument in its `#!`
    /// line, and the path of the script. Empty if the arguments are unchanged.
    pub(in crate::sandbox) first_arguments: &'a [&'a CStr],
    pub(in crate::sandbox) ids: Ids,
    pub(in crate::sandbox) random: Random,
}

/// A program, and the number that its file has in the process that executes the loader. The loader
/// closes it.
#[derive(Debug, Clone, Copy)]
pub(in crate::sandbox) struct Mapped<'a> {
    pub(in crate::sandbox) program: &'a Program,
    pub(in crate::sandbox) descriptor: u32,
}

/// The ids that the process sees, for the auxiliary vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) struct Ids {
    pub(in crate::sandbox) user: u32,
    pub(in crate::sandbox) effective_user: u32,
    pub(in crate::sandbox) group: u32,
    pub(in crate::sandbox) effective_group: u32,
    /// True if the dynamic linker ignores variables such as `LD_PRELOAD` (`AT_SECURE`, ld.so(8)).
    pub(in crate::sandbox) secure: bool,
}

/// The answer to the loader's call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Loading {
    /// Addresses in the process, and what to write there before the answer.
    pub(in crate::sandbox) writes: Vec<(u64, Vec<u8>)>,
    /// The result of the call.
    pub(in crate::sandbox) result: i64,
}

/// Returns the initial stack pointer from the arguments of the loader's call; `None` if another
/// program made the call.
pub(in crate::sandbox) fn stack_pointer(arguments: [u64; 6]) -> Option<u64> {
    let [_option, pointer, script, bytes, ..] = arguments;
    (script == DATA_ADDRESS && bytes == SCRIPT_BYTES).then_some(pointer)
}

/// Plans the start of a program in a process whose loader waits with `stack`.
///
/// # Errors
/// `NOMEM` if the program does not fit into the address space, `TOOBIG` if the strings do not fit
/// into the loader's memory. The stack pointer is not checked to be mapped.
pub(in crate::sandbox) fn plan(start: &Start<'_>, stack: &InitialStack) -> Result<Loading, Errno> {
    let interpreter = start.interpreter.map(|interpreter| interpreter.program);
    let biases = placement::biases(start.program.program, interpreter, start.random, stack);
    let biases = biases.ok_or(Errno::NOMEM)?;
    let mut strings = Strings::default();
    let name = strings.push(name(start.filename))?;
    let filename = strings.push(start.filename.to_bytes())?;
    let first_arguments: Result<Vec<u64>, Errno> =
        start.first_arguments.iter().map(|argument| strings.push(argument.to_bytes())).collect();
    let values = auxiliary(start, biases, filename)?;
    let mut changed = stack.clone().with_auxiliary(&values);
    let (at, words) = if start.first_arguments.is_empty() {
        changed.auxiliary_vector()
    } else {
        changed = changed.with_first_argument(&first_arguments?)?;
        (changed.pointer(), changed.words())
    };
    let operations = operations(start, biases, name, changed.pointer())?;
    let script = encoded(&operations)?;
    let words = words.into_iter().flat_map(u64::to_le_bytes).collect();
    let result = i64::try_from(operations.len()).map_err(|_error| Errno::TOOBIG)?;
    let writes = vec![(DATA_ADDRESS, script), (STRINGS, strings.bytes), (at, words)];
    Ok(Loading { writes, result })
}

fn operations(
    start: &Start<'_>,
    biases: Biases,
    name: u64,
    stack: u64,
) -> Result<Vec<Operation>, Errno> {
    let program = start.program;
    let mut operations = script::map(program.program, program.descriptor, biases.program);
    let mut first = (program.program, biases.program);
    if let Some((interpreter, bias)) = start.interpreter.zip(biases.interpreter) {
        operations.extend(script::map(interpreter.program, interpreter.descriptor, bias));
        first = (interpreter.program, bias);
    }
    if program.program.executable_stack() {
        operations.push(script::make_stack_executable(stack));
    }
    operations.push(script::set_name(name));
    let address = first.0.entry().checked_add(first.1).ok_or(Errno::NOEXEC)?;
    operations.push(Operation::Jump { stack, address });
    Ok(operations)
}

fn encoded(operations: &[Operation]) -> Result<Vec<u8>, Errno> {
    let mut script = Vec::new();
    for operation in operations {
        operation.write(&mut script);
    }
    let maximum = usize::try_from(SCRIPT_BYTES).map_err(|_error| Errno::TOOBIG)?;
    if script.len() > maximum { Err(Errno::TOOBIG) } else { Ok(script) }
}

/// Returns the entries that describe the program in place of the loader, as the kernel's
/// `create_elf_tables` sets them.
fn auxiliary(start: &Start<'_>, biases: Biases, filename: u64) -> Result<[(u64, u64); 11], Errno> {
    let program = start.program.program;
    let biased = |address: u64| address.checked_add(biases.program).ok_or(Errno::NOEXEC);
    let ids = start.ids;
    Ok([
        (stack::AT_PHDR, biased(program.headers_address())?),
        (stack::AT_PHENT, u64::from(PROGRAM_HEADER_BYTES)),
        (stack::AT_PHNUM, u64::from(program.n_headers())),
        (stack::AT_BASE, biases.interpreter.unwrap_or(0)),
        (stack::AT_ENTRY, biased(program.entry())?),
        (stack::AT_UID, u64::from(ids.user)),
        (stack::AT_EUID, u64::from(ids.effective_user)),
        (stack::AT_GID, u64::from(ids.group)),
        (stack::AT_EGID, u64::from(ids.effective_group)),
        (stack::AT_SECURE, u64::from(ids.secure)),
        (stack::AT_EXECFN, filename),
    ])
}

/// Returns the name that the kernel gives to a process that executes `filename`.
fn name(filename: &CStr) -> &[u8] {
    let base = filename.to_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    base.get(..MAX_NAME_BYTES).unwrap_or(base)
}

/// Strings in the loader's memory.
#[derive(Debug, Default)]
struct Strings {
    bytes: Vec<u8>,
}

impl Strings {
    /// Appends a string with a null byte; returns its address.
    fn push(&mut self, string: &[u8]) -> Result<u64, Errno> {
        let offset = u64::try_from(self.bytes.len()).map_err(|_error| Errno::TOOBIG)?;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        let fits = u64::try_from(self.bytes.len()).is_ok_and(|len| len <= STRINGS_BYTES);
        if fits { Ok(STRINGS.saturating_add(offset)) } else { Err(Errno::TOOBIG) }
    }
}
