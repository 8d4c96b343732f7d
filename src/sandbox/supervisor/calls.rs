//! The system calls that a supervisor answers, and the filter that sends them to it.

use libc::{c_long, sock_filter};

use super::{Answer, Rules, Supervisor};
use crate::sandbox::loader::LOADER_OPTION;
use crate::sandbox::sys::notify::Notification;
use crate::sandbox::sys::send;

/// The rules under which a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// If paths are translated, or lead to mounts.
    Paths,
    /// If paths are translated.
    Translated,
    /// If owners are emulated.
    Owners,
    /// Under any rules.
    Always,
}

impl When {
    const fn holds(self, rules: Rules) -> bool {
        match self {
            Self::Paths => rules.translates_paths || rules.has_mounts,
            Self::Translated => rules.translates_paths,
            Self::Owners => rules.emulates_owners,
            Self::Always => true,
        }
    }
}

/// The arguments with which a call is answered; with others the kernel executes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Any,
    /// The low half of this argument is this number.
    Is(u32, u32),
    /// This argument is not 0.
    NonZero(u32),
    /// The call is not the one by which the command's process sends the listener to the supervisor.
    Elsewhere,
}

type Handler = fn(&mut Supervisor, &Notification) -> Answer;

/// One kind of call.
pub(super) struct Call {
    number: c_long,
    when: When,
    condition: Condition,
    handler: Handler,
}

const fn call(number: c_long, when: When, handler: Handler) -> Call {
    Call { number, when, condition: Condition::Any, handler }
}

const fn call_if(number: c_long, when: When, condition: Condition, handler: Handler) -> Call {
    Call { number, when, condition, handler }
}

/// All calls, the most frequent first: the filter compares one number after the other.
const CALLS: &[Call] = &[
    call(libc::SYS_openat, When::Always, Supervisor::openat),
    call(libc::SYS_newfstatat, When::Always, Supervisor::newfstatat),
    call(libc::SYS_statx, When::Always, Supervisor::statx),
    call(libc::SYS_fstat, When::Owners, Supervisor::fstat),
    call(libc::SYS_faccessat, When::Always, Supervisor::faccessat),
    call(libc::SYS_faccessat2, When::Always, Supervisor::faccessat2),
    call(libc::SYS_readlinkat, When::Paths, Supervisor::readlinkat),
    call(libc::SYS_execve, When::Always, Supervisor::execve),
    call(libc::SYS_execveat, When::Always, Supervisor::execveat),
    call_if(
        libc::SYS_prctl,
        When::Translated,
        Condition::Is(0, LOADER_OPTION),
        Supervisor::load_program,
    ),
    call(libc::SYS_openat2, When::Always, Supervisor::openat2),
    call(libc::SYS_mkdirat, When::Always, Supervisor::mkdirat),
    call(libc::SYS_mknodat, When::Always, Supervisor::mknodat),
    call(libc::SYS_symlinkat, When::Always, Supervisor::symlinkat),
    call(libc::SYS_linkat, When::Always, Supervisor::linkat),
    call(libc::SYS_unlinkat, When::Always, Supervisor::unlinkat),
    call(libc::SYS_renameat, When::Always, Supervisor::renameat),
    call(libc::SYS_renameat2, When::Always, Supervisor::renameat2),
    call(libc::SYS_fchmodat, When::Always, Supervisor::fchmodat),
    call(FCHMODAT2, When::Always, Supervisor::fchmodat2),
    call(libc::SYS_fchmod, When::Owners, Supervisor::fchmod),
    call(libc::SYS_fchownat, When::Always, Supervisor::fchownat),
    call(libc::SYS_fchown, When::Owners, Supervisor::fchown),
    call_if(libc::SYS_utimensat, When::Paths, Condition::NonZero(1), Supervisor::utimensat),
    call(libc::SYS_truncate, When::Paths, Supervisor::truncate),
    call(libc::SYS_statfs, When::Paths, Supervisor::statfs),
    call(libc::SYS_chdir, When::Paths, Supervisor::chdir),
    call(libc::SYS_getcwd, When::Paths, Supervisor::getcwd),
    call(libc::SYS_chroot, When::Owners, Supervisor::chroot),
    call(libc::SYS_setxattr, When::Always, Supervisor::setxattr),
    call(libc::SYS_lsetxattr, When::Always, Supervisor::lsetxattr),
    call(libc::SYS_fsetxattr, When::Owners, Supervisor::fsetxattr),
    call(libc::SYS_getxattr, When::Always, Supervisor::getxattr),
    call(libc::SYS_lgetxattr, When::Always, Supervisor::lgetxattr),
    call(libc::SYS_fgetxattr, When::Owners, Supervisor::fgetxattr),
    call(libc::SYS_listxattr, When::Always, Supervisor::listxattr),
    call(libc::SYS_llistxattr, When::Always, Supervisor::llistxattr),
    call(libc::SYS_flistxattr, When::Owners, Supervisor::flistxattr),
    call(libc::SYS_removexattr, When::Always, Supervisor::removexattr),
    call(libc::SYS_lremovexattr, When::Always, Supervisor::lremovexattr),
    call(libc::SYS_fremovexattr, When::Owners, Supervisor::fremovexattr),
    call(libc::SYS_getuid, When::Owners, Supervisor::getuid),
    call(libc::SYS_geteuid, When::Owners, Supervisor::geteuid),
    call(libc::SYS_getgid, When::Owners, Supervisor::getgid),
    call(libc::SYS_getegid, When::Owners, Supervisor::getegid),
    call(libc::SYS_getresuid, When::Owners, Supervisor::getresuid),
    call(libc::SYS_getresgid, When::Owners, Supervisor::getresgid),
    call(libc::SYS_getgroups, When::Owners, Supervisor::getgroups),
    call(libc::SYS_setuid, When::Owners, Supervisor::setuid),
    call(libc::SYS_setgid, When::Owners, Supervisor::setgid),
    call(libc::SYS_setreuid, When::Owners, Supervisor::setreuid),
    call(libc::SYS_setregid, When::Owners, Supervisor::setregid),
    call(libc::SYS_setresuid, When::Owners, Supervisor::setresuid),
    call(libc::SYS_setresgid, When::Owners, Supervisor::setresgid),
    call(libc::SYS_setfsuid, When::Owners, Supervisor::setfsuid),
    call(libc::SYS_setfsgid, When::Owners, Supervisor::setfsgid),
    call(libc::SYS_setgroups, When::Owners, Supervisor::setgroups),
    call(libc::SYS_umask, When::Owners, Supervisor::umask),
    call(libc::SYS_capget, When::Owners, Supervisor::capget),
    call(libc::SYS_capset, When::Owners, Supervisor::capset),
    call(libc::SYS_bind, When::Paths, Supervisor::bind),
    call(libc::SYS_connect, When::Paths, Supervisor::connect),
    call_if(libc::SYS_sendto, When::Paths, Condition::NonZero(4), Supervisor::sendto),
    call_if(libc::SYS_sendmsg, When::Paths, Condition::Elsewhere, Supervisor::sendmsg),
    call(libc::SYS_sendmmsg, When::Paths, Supervisor::sendmmsg),
    call(libc::SYS_inotify_add_watch, When::Translated, Supervisor::inotify_add_watch),
];

/// Calls that exist only on x86-64; newer architectures have the `*at` forms alone.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[Call] = &[
    call(libc::SYS_open, When::Always, Supervisor::open),
    call(libc::SYS_stat, When::Always, Supervisor::stat),
    call(libc::SYS_lstat, When::Always, Supervisor::lstat),
    call(libc::SYS_access, When::Always, Supervisor::access),
    call(libc::SYS_readlink, When::Paths, Supervisor::readlink),
    call(libc::SYS_creat, When::Always, Supervisor::creat),
    call(libc::SYS_mkdir, When::Always, Supervisor::mkdir),
    call(libc::SYS_mknod, When::Always, Supervisor::mknod),
    call(libc::SYS_symlink, When::Always, Supervisor::symlink),
    call(libc::SYS_link, When::Always, Supervisor::link),
    call(libc::SYS_unlink, When::Always, Supervisor::unlink),
    call(libc::SYS_rmdir, When::Always, Supervisor::rmdir),
    call(libc::SYS_rename, When::Always, Supervisor::rename),
    call(libc::SYS_chmod, When::Always, Supervisor::chmod),
    call(libc::SYS_chown, When::Always, Supervisor::chown),
    call(libc::SYS_lchown, When::Always, Supervisor::lchown),
    call(libc::SYS_utime, When::Paths, Supervisor::utime),
    call(libc::SYS_utimes, When::Paths, Supervisor::utimes),
    call(libc::SYS_futimesat, When::Paths, Supervisor::futimesat),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[Call] = &[];

/// fchmodat2(2), Linux 6.6; the same number on all architectures.
const FCHMODAT2: c_long = 452;

fn all() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().chain(OLD_CALLS)
}

/// Returns what answers the call with this number.
pub(super) fn handler(number: i32) -> Option<Handler> {
    all().find(|call| call.number == c_long::from(number)).map(|call| call.handler)
}

const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const INSTRUCTION_POINTER: u32 = 8;
const ARGUMENTS: u32 = 16;

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const FAIL_ENOSYS: u32 = 0x0005_0000 | 38;
/// Set in the numbers of x32 calls (syscall(2)).
const X32_BIT: u32 = 0x4000_0000;

/// The architecture whose calls are answered (`AUDIT_ARCH_*`).
pub(super) const NATIVE: u32 =
    if cfg!(target_arch = "aarch64") { 0xC000_00B7 } else { 0xC000_003E };

/// Returns the filter for a step with these rules.
pub(in crate::sandbox) fn filter(rules: Rules) -> Vec<sock_filter> {
    // Calls of 32-bit programs cannot be translated: none gets around the supervisor.
    let other = if rules.translates_paths { FAIL_ENOSYS } else { ALLOW };
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE),
        sock_filter { jt: 1, ..instruction(JUMP_IF_EQUAL, NATIVE) },
        instruction(RETURN, other),
        instruction(LOAD, NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        program.push(sock_filter { jf: 1, ..instruction(JUMP_IF_AT_LEAST, X32_BIT) });
        program.push(instruction(RETURN, other));
    }
    let io_uring = u32::try_from(libc::SYS_io_uring_setup).unwrap_or(u32::MAX);
    program.push(sock_filter { jf: 1, ..instruction(JUMP_IF_EQUAL, io_uring) });
    program.push(instruction(RETURN, FAIL_ENOSYS));
    for call in all().filter(|call| call.when.holds(rules)) {
        let answer = answer(call.condition);
        let number = u32::try_from(call.number).unwrap_or(u32::MAX);
        let over = u8::try_from(answer.len()).unwrap_or(u8::MAX);
        program.push(sock_filter { jf: over, ..instruction(JUMP_IF_EQUAL, number) });
        program.extend(answer);
    }
    program.push(instruction(RETURN, ALLOW));
    program
}

fn answer(condition: Condition) -> Vec<sock_filter> {
    let argument =
        |index: u32| instruction(LOAD, index.saturating_mul(8).saturating_add(ARGUMENTS));
    let high =
        |index: u32| instruction(LOAD, index.saturating_mul(8).saturating_add(ARGUMENTS + 4));
    let (notify, allow) = (instruction(RETURN, NOTIFY), instruction(RETURN, ALLOW));
    match condition {
        Condition::Any => vec![notify],
        Condition::Is(index, value) => vec![
            argument(index),
            sock_filter { jf: 1, ..instruction(JUMP_IF_EQUAL, value) },
            notify,
            allow,
        ],
        Condition::Elsewhere => {
            let address = send::return_address();
            let low = u32::try_from(address & 0xffff_ffff).unwrap_or(0);
            let high = u32::try_from(address >> 32).unwrap_or(0);
            vec![
                instruction(LOAD, INSTRUCTION_POINTER),
                sock_filter { jf: 2, ..instruction(JUMP_IF_EQUAL, low) },
                instruction(LOAD, INSTRUCTION_POINTER + 4),
                sock_filter { jt: 1, ..instruction(JUMP_IF_EQUAL, high) },
                notify,
                allow,
            ]
        }
        Condition::NonZero(index) => vec![
            argument(index),
            sock_filter { jf: 2, ..instruction(JUMP_IF_EQUAL, 0) },
            high(index),
            sock_filter { jt: 1, ..instruction(JUMP_IF_EQUAL, 0) },
            notify,
            allow,
        ],
    }
}

const fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}
