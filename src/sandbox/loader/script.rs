//! The loader's operations, and those that map a program as the kernel's `elf_load` does (Linux
//! 6.6).

use std::ops::Range;

use super::elf::{EXECUTE, PAGE, Program, READ, Segment, WRITE, page_end, page_start};
use crate::sandbox::sys::loader;

/// Numbers of system calls on x86-64 (`asm/unistd_64.h`).
const CLOSE: u64 = 3;
const MMAP: u64 = 9;
const MPROTECT: u64 = 10;
const MUNMAP: u64 = 11;
const PRCTL: u64 = 157;

/// `PROT_*` and `MAP_*` of mmap(2).
const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const PROT_GROWSDOWN: u64 = 0x0100_0000;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
/// The descriptor of a mapping without a file: -1.
const NO_FILE: u64 = u64::MAX;

/// `PR_SET_NAME` of prctl(2).
const SET_NAME: u64 = 15;

/// One operation of the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Makes a system call; an error ends the process.
    Call { number: u64, arguments: [u64; 6] },
    /// Makes a system call and ignores its result.
    Attempt { number: u64, arguments: [u64; 6] },
    /// Fills memory with zeros.
    Zero { address: u64, bytes: u64 },
    /// Starts the program.
    Jump { stack: u64, address: u64 },
}

impl Operation {
    /// Appends the operation as the loader reads it.
    pub(super) fn write(self, script: &mut Vec<u8>) {
        let (kind, words) = match self {
            Self::Call { number, arguments: [a, b, c, d, e, f] } => {
                (loader::SYSTEM_CALL, [number, a, b, c, d, e, f])
            }
            Self::Attempt { number, arguments: [a, b, c, d, e, f] } => {
                (loader::ATTEMPT, [number, a, b, c, d, e, f])
            }
            Self::Zero { address, bytes } => (loader::ZERO, [address, bytes, 0, 0, 0, 0, 0]),
            Self::Jump { stack, address } => (loader::JUMP, [stack, address, 0, 0, 0, 0, 0]),
        };
        script.extend_from_slice(&kind.to_le_bytes());
        for word in words {
            script.extend_from_slice(&word.to_le_bytes());
        }
    }
}

/// Returns the operations that map `program` at `bias` from a descriptor of the process, and close
/// the descriptor.
pub(super) fn map(program: &Program, descriptor: u32, bias: u64) -> Vec<Operation> {
    let span = program.span();
    let start = span.start.saturating_add(bias);
    let len = span.end.saturating_sub(span.start);
    // Fails if anything is mapped in the whole span, before a part of it is replaced.
    let reservation = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    let mut operations = vec![
        Operation::Call { number: MMAP, arguments: [start, len, 0, reservation, NO_FILE, 0] },
        // The kernel leaves gaps between segments unmapped.
        Operation::Call { number: MUNMAP, arguments: [start, len, 0, 0, 0, 0] },
    ];
    for segment in program.segments() {
        map_segment(&mut operations, segment, u64::from(descriptor), bias);
    }
    let close = [u64::from(descriptor), 0, 0, 0, 0, 0];
    operations.push(Operation::Attempt { number: CLOSE, arguments: close });
    operations
}

fn map_segment(operations: &mut Vec<Operation>, segment: &Segment, descriptor: u64, bias: u64) {
    let address = segment.address.saturating_add(bias);
    let file_end = address.saturating_add(segment.file_bytes);
    let start = page_start(address);
    let mut anonymous = start..page_end(segment.end().saturating_add(bias));
    if segment.file_bytes > 0 {
        anonymous.start = page_end(file_end);
        let len = anonymous.start.saturating_sub(start);
        let flags = MAP_PRIVATE | MAP_FIXED;
        let offset = page_start(segment.offset);
        let arguments = [start, len, protection(segment.flags), flags, descriptor, offset];
        operations.push(Operation::Call { number: MMAP, arguments });
        let tail = anonymous.start.saturating_sub(file_end);
        // The kernel tries this for all segments, and ignores that some are read-only.
        let writable = segment.flags & WRITE != 0;
        if segment.memory_bytes > segment.file_bytes && writable && tail > 0 {
            operations.push(Operation::Zero { address: file_end, bytes: tail });
        }
    }
    if segment.memory_bytes > segment.file_bytes {
        operations.extend(map_anonymous(&anonymous, segment.flags));
    }
}

/// Maps pages without a file. They are readable and writable whatever the segment's flags say, as
/// those of `vm_brk_flags` in the kernel.
fn map_anonymous(pages: &Range<u64>, flags: u32) -> Option<Operation> {
    let len = pages.end.checked_sub(pages.start).filter(|len| *len > 0)?;
    let protection = PROT_READ | PROT_WRITE | protection(flags & EXECUTE);
    let kind = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS;
    let arguments = [pages.start, len, protection, kind, NO_FILE, 0];
    Some(Operation::Call { number: MMAP, arguments })
}

/// Returns the `PROT_*` bits for the bits of `p_flags`.
fn protection(flags: u32) -> u64 {
    let pairs = [(READ, PROT_READ), (WRITE, PROT_WRITE), (EXECUTE, PROT_EXEC)];
    let set = pairs.into_iter().filter(|(flag, _)| flags & flag != 0);
    set.fold(0, |bits, (_, bit)| bits | bit)
}

/// Makes the stack executable below the page of `pointer`. A security module may forbid it.
pub(super) fn make_stack_executable(pointer: u64) -> Operation {
    let protection = PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN;
    let arguments = [page_start(pointer), PAGE, protection, 0, 0, 0];
    Operation::Attempt { number: MPROTECT, arguments }
}

/// Sets the process's name to the string at `address`.
pub(super) fn set_name(address: u64) -> Operation {
    Operation::Attempt { number: PRCTL, arguments: [SET_NAME, address, 0, 0, 0, 0] }
}
