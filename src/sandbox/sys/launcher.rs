//! The machine code of the launcher: the program that a step's child executes before the step's own
//! command. [`launcher`](super::super::launcher) explains why it exists.
//!
//! It is position-independent, has no data of its own and uses no stack but that of exec. Directly
//! after it in memory are the paths to try, each ending with a null byte, and one more null byte.
//! It treats them like execvp(3), with its own arguments and environment:
//!
//! 1. Descriptor 3, the status pipe, gets close-on-exec; without that descriptor it exits with 126.
//!    So a `#!` line or an ELF interpreter that names `/proc/self/exe` ends the step at once.
//! 2. It makes itself undumpable, so that its `/proc` entries belong to root.
//! 3. It executes one path after the other. A path that does not exist, or that may not be
//!    executed, leads to the next one; all other errors end the search.
//! 4. When nothing could be executed it writes three words to the status pipe: all ones, the error,
//!    and 1 if the program exists; then it exits with 1.

use std::arch::global_asm;
use std::slice;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .rodata.rbuild_launcher, \"a\", @progbits",
    ".hidden rbuild_launcher_start",
    ".hidden rbuild_launcher_end",
    ".globl rbuild_launcher_start",
    ".globl rbuild_launcher_end",
    "rbuild_launcher_start:",
    // fcntl(3, F_SETFD, FD_CLOEXEC)
    "mov eax, 72",
    "mov edi, 3",
    "mov esi, 2",
    "mov edx, 1",
    "syscall",
    "test eax, eax",
    "jnz 80f",
    // prctl(PR_SET_DUMPABLE, 0)
    "mov eax, 157",
    "mov edi, 4",
    "xor esi, esi",
    "syscall",
    // The kernel puts argc, argv and envp on the stack (System V ABI, "Process Initialization").
    "mov rbx, [rsp]",
    "lea r12, [rsp + 8]",
    "lea r13, [r12 + rbx*8 + 8]",
    "lea r14, [rip + rbuild_launcher_end]",
    // r15: the error to report, ENOENT at first; ebp: whether the program exists.
    "mov r15d, 2",
    "xor ebp, ebp",
    "20:",
    "cmp byte ptr [r14], 0",
    "je 70f",
    // execve(r14, argv, envp)
    "mov eax, 59",
    "mov rdi, r14",
    "mov rsi, r12",
    "mov rdx, r13",
    "syscall",
    "neg eax",
    "cmp eax, 13", // EACCES
    "je 40f",
    "cmp eax, 2", // ENOENT
    "je 30f",
    "cmp eax, 20", // ENOTDIR
    "je 30f",
    "mov r15d, eax",
    "mov ebp, 1",
    "jmp 70f",
    // access(r14, F_OK): a program that exists lacks its interpreter.
    "30:",
    "mov r9d, eax",
    "mov eax, 21",
    "mov rdi, r14",
    "xor esi, esi",
    "syscall",
    "test eax, eax",
    "jnz 50f",
    "mov r15d, r9d",
    "mov ebp, 1",
    "jmp 70f",
    "40:",
    "mov r15d, eax",
    "mov ebp, 1",
    // To the byte after the null byte.
    "50:",
    "cmp byte ptr [r14], 0",
    "lea r14, [r14 + 1]",
    "jne 50b",
    "jmp 20b",
    // write(3, report, 12)
    "70:",
    "sub rsp, 16",
    "mov dword ptr [rsp], -1",
    "mov dword ptr [rsp + 4], r15d",
    "mov dword ptr [rsp + 8], ebp",
    "mov eax, 1",
    "mov edi, 3",
    "mov rsi, rsp",
    "mov edx, 12",
    "syscall",
    "mov edi, 1",
    "jmp 90f",
    "80:",
    "mov edi, 126",
    // exit_group(edi)
    "90:",
    "mov eax, 231",
    "syscall",
    "ud2",
    "rbuild_launcher_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .rodata.rbuild_launcher, \"a\", @progbits",
    ".hidden rbuild_launcher_start",
    ".hidden rbuild_launcher_end",
    ".globl rbuild_launcher_start",
    ".globl rbuild_launcher_end",
    ".p2align 2",
    "rbuild_launcher_start:",
    // fcntl(3, F_SETFD, FD_CLOEXEC)
    "mov x8, #25",
    "mov x0, #3",
    "mov x1, #2",
    "mov x2, #1",
    "svc #0",
    "cbnz w0, 80f",
    // prctl(PR_SET_DUMPABLE, 0)
    "mov x8, #167",
    "mov x0, #4",
    "mov x1, #0",
    "svc #0",
    // The kernel puts argc, argv and envp on the stack (System V ABI, "Process Initialization").
    "ldr x19, [sp]",
    "add x20, sp, #8",
    "add x21, x20, x19, lsl #3",
    "add x21, x21, #8",
    "adr x22, rbuild_launcher_end",
    // w23: the error to report, ENOENT at first; w24: whether the program exists.
    "mov w23, #2",
    "mov w24, #0",
    "20:",
    "ldrb w9, [x22]",
    "cbz w9, 70f",
    // execve(x22, argv, envp)
    "mov x8, #221",
    "mov x0, x22",
    "mov x1, x20",
    "mov x2, x21",
    "svc #0",
    "neg w9, w0",
    "cmp w9, #13", // EACCES
    "b.eq 40f",
    "cmp w9, #2", // ENOENT
    "b.eq 30f",
    "cmp w9, #20", // ENOTDIR
    "b.eq 30f",
    "mov w23, w9",
    "mov w24, #1",
    "b 70f",
    // faccessat(AT_FDCWD, x22, F_OK): a program that exists lacks its interpreter.
    "30:",
    "mov w25, w9",
    "mov x8, #48",
    "mov x0, #-100",
    "mov x1, x22",
    "mov x2, #0",
    "svc #0",
    "cbnz w0, 50f",
    "mov w23, w25",
    "mov w24, #1",
    "b 70f",
    "40:",
    "mov w23, w9",
    "mov w24, #1",
    // To the byte after the null byte.
    "50:",
    "ldrb w9, [x22], #1",
    "cbnz w9, 50b",
    "b 20b",
    // write(3, report, 12)
    "70:",
    "sub sp, sp, #16",
    "mov w9, #-1",
    "str w9, [sp]",
    "str w23, [sp, #4]",
    "str w24, [sp, #8]",
    "mov x8, #64",
    "mov x0, #3",
    "mov x1, sp",
    "mov x2, #12",
    "svc #0",
    "mov x0, #1",
    "b 90f",
    "80:",
    "mov x0, #126",
    // exit_group(x0)
    "90:",
    "mov x8, #94",
    "svc #0",
    "brk #0",
    // The paths after it need no alignment.
    "rbuild_launcher_end:",
    ".popsection",
);

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the launcher of `sandbox::sys::launcher` is not written for this architecture");

unsafe extern "C" {
    static rbuild_launcher_start: u8;
    static rbuild_launcher_end: u8;
}

/// Returns the launcher's instructions, as they are in its ELF file.
pub(in crate::sandbox) fn code() -> &'static [u8] {
    let start = &raw const rbuild_launcher_start;
    let end = &raw const rbuild_launcher_end;
    let len = end.addr().saturating_sub(start.addr());
    // SAFETY: the two symbols delimit one block of the assembly above, in a section that is read
    // and never written, and that lives as long as the program.
    unsafe { slice::from_raw_parts(start, len) }
}
