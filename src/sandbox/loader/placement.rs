//! The addresses at which programs are mapped.
//!
//! The loader cannot choose another address when one is in use, so the ranges here are those in
//! which the kernel maps nothing by itself. They also are among the ranges in which the sanitizers
//! of clang and GCC expect programs: a program with ThreadSanitizer ends when it finds a mapping
//! elsewhere (`tsan_platform.h`).

use std::ops::Range;

use super::elf::{ADDRESS_SPACE_END, PAGE, Program};
use super::stack::{AT_SYSINFO_EHDR, InitialStack};
use crate::sandbox::sys::loader::DATA_ADDRESS;

/// The address of position-independent programs without randomization: that of the kernel
/// (`ELF_ET_DYN_BASE`), which debuggers show.
const PROGRAM: u64 = 0x5555_5555_4000;
/// The kernel's default on x86-64, `vm.mmap_rnd_bits`.
const PROGRAM_RANDOM_BITS: u32 = 28;

/// The address of dynamic linkers: below all addresses that mmap(2) chooses while
/// `vm.mmap_rnd_bits` has its default.
const INTERPRETER: u64 = 0x7e80_0000_0000;
const INTERPRETER_RANDOM_BITS: u32 = 26;

/// The loader's address. Its code and data are below the heap, which is above all programs.
pub(super) const LOADER: u64 = 0x5660_0000_0000;
pub(super) const LOADER_END: u64 = DATA_ADDRESS + DATA_BYTES;
/// Size of the loader's writable segment.
pub(super) const DATA_BYTES: u64 = 0x1_0000;

/// Free address space after the loader for a heap (brk(2)), and below the stack.
const HEAP_BYTES: u64 = 1 << 32;
const STACK_BYTES: u64 = 1 << 32;
/// Address space around the vDSO for pages that the kernel maps with it (vdso(7)).
const VDSO_BYTES: u64 = 1 << 20;

/// Random bits for the addresses; zeros for a process without randomization (personality(2),
/// `ADDR_NO_RANDOMIZE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) struct Random {
    pub(in crate::sandbox) program: u64,
    pub(in crate::sandbox) interpreter: u64,
}

/// The differences between addresses in memory and those in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Biases {
    pub(super) program: u64,
    pub(super) interpreter: Option<u64>,
}

/// Returns addresses that collide neither with each other nor with what a process has that executes
/// the loader; `None` if there are none.
pub(super) fn biases(
    program: &Program,
    interpreter: Option<&Program>,
    random: Random,
    stack: &InitialStack,
) -> Option<Biases> {
    let vdso = stack.auxiliary(AT_SYSINFO_EHDR).unwrap_or(ADDRESS_SPACE_END);
    let mut taken = vec![
        LOADER..LOADER_END.saturating_add(HEAP_BYTES),
        vdso.saturating_sub(VDSO_BYTES)..vdso.saturating_add(VDSO_BYTES),
        stack.pointer().saturating_sub(STACK_BYTES)..ADDRESS_SPACE_END,
    ];
    let wanted = PROGRAM.saturating_add(offset(random.program, PROGRAM_RANDOM_BITS));
    let program_bias = bias(program, wanted, &taken)?;
    taken.push(shifted(&program.span(), program_bias)?);
    let wanted = INTERPRETER.saturating_add(offset(random.interpreter, INTERPRETER_RANDOM_BITS));
    let interpreter = match interpreter {
        Some(interpreter) => Some(bias(interpreter, wanted, &taken)?),
        None => None,
    };
    Some(Biases { program: program_bias, interpreter })
}

/// Returns a random number of pages, in bytes.
fn offset(random: u64, bits: u32) -> u64 {
    let mask = 1_u64.checked_shl(bits).unwrap_or(0).saturating_sub(1);
    (random & mask).saturating_mul(PAGE)
}

/// Returns the highest bias that puts the program's start at `wanted` or below, outside `taken`.
fn bias(program: &Program, wanted: u64, taken: &[Range<u64>]) -> Option<u64> {
    if !program.position_independent() {
        return Some(0);
    }
    let span = program.span();
    let aligned = |bias: u64| bias & !program.alignment().saturating_sub(1);
    let mut bias = aligned(wanted.checked_sub(span.start)?);
    loop {
        let memory = shifted(&span, bias)?;
        let collision =
            taken.iter().find(|taken| taken.start < memory.end && memory.start < taken.end);
        let Some(collision) = collision else {
            return Some(bias);
        };
        // The new bias is lower, so the loop ends.
        bias = aligned(collision.start.checked_sub(span.end)?);
    }
}

fn shifted(span: &Range<u64>, bias: u64) -> Option<Range<u64>> {
    Some(span.start.checked_add(bias)?..span.end.checked_add(bias)?)
}
