//! The machine code of the loader: the program that a step's process executes in place of the real
//! one. [`loader`](super::super::loader) explains why it exists.
//!
//! It uses no stack but that of exec, and one writable segment at [`DATA_ADDRESS`]:
//!
//! 1. It calls prctl(2) with [`OPTION`], the initial stack pointer, [`DATA_ADDRESS`] and
//!    [`SCRIPT_BYTES`]. The supervisor writes a script there and returns a positive number.
//!    Otherwise the loader exits with 126.
//! 2. It executes the script: operations of eight words of 64 bits, the first word is the kind. An
//!    operation that fails, or of another kind, ends it with 127.
//!
//! | kind | words 1 to 7 |
//! |---|---|
//! | [`SYSTEM_CALL`] | number, six arguments |
//! | [`ATTEMPT`] | likewise, but the result is ignored |
//! | [`ZERO`] | address, number of bytes to fill with zeros |
//! | [`JUMP`] | stack pointer, address; all other registers are zero, as after exec |

#[cfg(target_arch = "x86_64")]
use std::arch::global_asm;
#[cfg(target_arch = "x86_64")]
use std::slice;

/// The loader's operation of prctl(2), which no kernel knows. It is a call that the filters of
/// containers allow with any arguments.
pub(in crate::sandbox) const OPTION: u32 = 0x7262_6c64;

/// The address of the loader's writable segment. It begins with the script.
pub(in crate::sandbox) const DATA_ADDRESS: u64 = 0x5660_0001_0000;
/// Maximum size of the script.
pub(in crate::sandbox) const SCRIPT_BYTES: u64 = 0x8000;

/// Kinds of operations.
pub(in crate::sandbox) const SYSTEM_CALL: u64 = 1;
pub(in crate::sandbox) const ATTEMPT: u64 = 2;
pub(in crate::sandbox) const ZERO: u64 = 3;
pub(in crate::sandbox) const JUMP: u64 = 4;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .rodata.rbuild_loader, \"a\", @progbits",
    ".hidden rbuild_loader_start",
    ".hidden rbuild_loader_end",
    ".globl rbuild_loader_start",
    ".globl rbuild_loader_end",
    "rbuild_loader_start:",
    // prctl(OPTION, stack pointer, script, size); rbx: the next operation.
    "movabs rbx, {data}",
    "mov eax, 157",
    "mov edi, {option}",
    "mov rsi, rsp",
    "mov rdx, rbx",
    "mov r10d, {script_bytes}",
    "syscall",
    "mov edi, 126",
    "test rax, rax",
    "jle 90f",
    "20:",
    "mov rax, [rbx]",
    "cmp rax, {zero}",
    "je 40f",
    "cmp rax, {jump}",
    "je 50f",
    "dec rax",
    "cmp rax, {attempt} - 1",
    "ja 80f",
    // SYSTEM_CALL and ATTEMPT
    "mov rax, [rbx + 8]",
    "mov rdi, [rbx + 16]",
    "mov rsi, [rbx + 24]",
    "mov rdx, [rbx + 32]",
    "mov r10, [rbx + 40]",
    "mov r8, [rbx + 48]",
    "mov r9, [rbx + 56]",
    "syscall",
    // Results from -4095 to -1 are errors.
    "cmp rax, -4095",
    "jb 30f",
    "cmp qword ptr [rbx], {attempt}",
    "jne 80f",
    "30:",
    "add rbx, 64",
    "jmp 20b",
    "40:",
    "xor eax, eax",
    "mov rdi, [rbx + 8]",
    "mov rcx, [rbx + 16]",
    "cld",
    "rep stosb",
    "jmp 30b",
    // JUMP. The address and the flags after exec (only IF) are below the new stack pointer until
    // the last two instructions, so that no register holds them.
    "50:",
    "mov rsp, [rbx + 8]",
    "push [rbx + 16]",
    "push 0x202",
    "xor eax, eax",
    "xor ebx, ebx",
    "xor ecx, ecx",
    "xor edx, edx",
    "xor esi, esi",
    "xor edi, edi",
    "xor ebp, ebp",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d",
    "xor r11d, r11d",
    "xor r12d, r12d",
    "xor r13d, r13d",
    "xor r14d, r14d",
    "xor r15d, r15d",
    "popfq",
    "ret",
    "80:",
    "mov edi, 127",
    // exit_group(edi)
    "90:",
    "mov eax, 231",
    "syscall",
    "ud2",
    "rbuild_loader_end:",
    ".popsection",
    data = const DATA_ADDRESS,
    option = const OPTION,
    script_bytes = const SCRIPT_BYTES,
    zero = const ZERO,
    jump = const JUMP,
    attempt = const ATTEMPT,
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static rbuild_loader_start: u8;
    static rbuild_loader_end: u8;
}

/// Returns the loader's instructions, as they are in its ELF file.
#[cfg(target_arch = "x86_64")]
pub(in crate::sandbox) fn code() -> &'static [u8] {
    let start = &raw const rbuild_loader_start;
    let end = &raw const rbuild_loader_end;
    let len = end.addr().saturating_sub(start.addr());
    // SAFETY: the two symbols delimit one block of the assembly above, in a section that is read
    // and never written, and that lives as long as the program.
    unsafe { slice::from_raw_parts(start, len) }
}

/// Returns nothing: the loader exists for x86-64 only.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::sandbox) fn code() -> &'static [u8] {
    &[]
}
