//! Compiles rules to classic BPF, the language of seccomp filters (seccomp(2)).
//!
//! A filter reads 32-bit words of `struct seccomp_data`: the number at 0, the architecture at 4,
//! and from 16 on six arguments of 64 bits. It only jumps forward. Conditional jumps reach 255
//! instructions, so longer ones need an unconditional jump (Documentation/networking/filter.rst of
//! Linux).

use libc::sock_filter;

use super::table::{Arch, Table, Verdict};

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// Offset of the low half of the first argument, on little-endian machines.
const FIRST_LOW: u32 = 16;
const FIRST_HIGH: u32 = 20;

const ALLOW: u32 = 0x7fff_0000;
const FAIL_EPERM: u32 = 0x0005_0000 | 1;
const FAIL_ENOSYS: u32 = 0x0005_0000 | 38;
const KILL: u32 = 0x8000_0000;

/// The flags of clone(2) that create namespaces: `NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`,
/// `NEWUSER`, `NEWPID`, `NEWNET`.
const NAMESPACES: u32 = 0x7E02_0000;
/// `AF_VSOCK`, sockets to the hypervisor (vsock(7)).
const VSOCK: u32 = 40;
/// The allowed arguments of personality(2): `PER_LINUX`, `PER_LINUX32`, `UNAME26` with either, and
/// the query of the current one.
const PERSONAS: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];
/// Set in the numbers of x32 calls, which otherwise are those of x86-64 (syscall(2)).
const X32_BIT: u32 = 0x4000_0000;

/// Returns the filter for the machine's architectures; a call of any other architecture kills the
/// process.
pub(super) fn program(architectures: &[(Arch, Table)]) -> Vec<sock_filter> {
    let mut program = vec![instruction(LOAD, ARCHITECTURE)];
    for (arch, table) in architectures {
        let body = body(*arch, table);
        // Equal: over the jump and into the body. Otherwise: the jump, over the body.
        program.push(sock_filter { jt: 1, ..instruction(JUMP_IF_EQUAL, arch.audit()) });
        program.push(instruction(JUMP, len(&body)));
        program.extend(body);
    }
    program.push(instruction(RETURN, KILL));
    program
}

/// `AF_UNIX` (unix(7)).
const UNIX: u32 = 1;
const FAIL_EAFNOSUPPORT: u32 = 0x0005_0000 | 97;

/// Returns a filter that refuses socket(2) for all but local sockets.
pub(super) fn no_network() -> Vec<sock_filter> {
    let socket = u32::try_from(libc::SYS_socket).expect("numbers of calls are small");
    vec![
        instruction(LOAD, NUMBER),
        sock_filter { jf: 3, ..instruction(JUMP_IF_EQUAL, socket) },
        instruction(LOAD, FIRST_LOW),
        sock_filter { jt: 1, ..instruction(JUMP_IF_EQUAL, UNIX) },
        instruction(RETURN, FAIL_EAFNOSUPPORT),
        instruction(RETURN, ALLOW),
    ]
}

fn body(arch: Arch, table: &Table) -> Vec<sock_filter> {
    let mut body = vec![instruction(LOAD, NUMBER)];
    if arch == Arch::X86_64 {
        body.push(instruction(AND, !X32_BIT));
    }
    body.extend(search(&ranges(table)));
    body
}

/// The calls from `from` up to the next range have the same verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct VerdictRange {
    from: u32,
    verdict: Verdict,
}

/// Returns the table as ranges that cover all numbers; adjacent ranges differ in their verdict.
fn ranges(table: &Table) -> Vec<VerdictRange> {
    let mut all = Vec::new();
    let mut next = 0;
    for (number, verdict) in &table.entries {
        all.extend(gap(next, *number, table.newest));
        all.push(VerdictRange { from: *number, verdict: *verdict });
        next = number.saturating_add(1);
    }
    all.extend(gap(next, u32::MAX, table.newest));
    all.dedup_by_key(|range| range.verdict);
    all
}

/// Returns ranges for the numbers from `next` up to `end` that no entry names: denied up to
/// `newest`, unknown above it.
fn gap(next: u32, end: u32, newest: u32) -> impl Iterator<Item = VerdictRange> {
    let after = newest.saturating_add(1).max(next);
    let denied = VerdictRange { from: next, verdict: Verdict::Deny };
    let unknown = VerdictRange { from: after, verdict: Verdict::Unknown };
    let known = (next < end && next <= newest).then_some(denied);
    known.into_iter().chain((after < end).then_some(unknown))
}

/// Returns the code of a binary search over `ranges`, with the call's number in the accumulator.
fn search(ranges: &[VerdictRange]) -> Vec<sock_filter> {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (Some(_), Some(middle)) = (low.first(), high.first()) else {
        let only = high.first().map_or(Verdict::Deny, |range| range.verdict);
        return leaf(only);
    };
    let (low, high) = (search(low), search(high));
    let mut code = Vec::with_capacity(low.len() + high.len() + 2);
    match u8::try_from(low.len()) {
        Ok(over_low) => {
            code.push(sock_filter { jt: over_low, ..instruction(JUMP_IF_AT_LEAST, middle.from) });
        }
        Err(_) => {
            code.push(sock_filter { jf: 1, ..instruction(JUMP_IF_AT_LEAST, middle.from) });
            code.push(instruction(JUMP, len(&low)));
        }
    }
    code.extend(low);
    code.extend(high);
    code
}

fn leaf(verdict: Verdict) -> Vec<sock_filter> {
    let returns = |value| instruction(RETURN, value);
    match verdict {
        Verdict::Allow => vec![returns(ALLOW)],
        Verdict::Deny => vec![returns(FAIL_EPERM)],
        Verdict::Unknown => vec![returns(FAIL_ENOSYS)],
        Verdict::NoNewNamespace => vec![
            instruction(LOAD, FIRST_LOW),
            instruction(AND, NAMESPACES),
            sock_filter { jf: 1, ..instruction(JUMP_IF_EQUAL, 0) },
            returns(ALLOW),
            returns(FAIL_EPERM),
        ],
        // socket(2) takes an `int`, so the kernel itself only reads the low half.
        Verdict::NotVsock => vec![
            instruction(LOAD, FIRST_LOW),
            sock_filter { jt: 1, ..instruction(JUMP_IF_EQUAL, VSOCK) },
            returns(ALLOW),
            returns(FAIL_EPERM),
        ],
        Verdict::KnownPersona => persona(),
    }
}

fn persona() -> Vec<sock_filter> {
    let mut code = vec![
        instruction(LOAD, FIRST_HIGH),
        sock_filter { jt: 1, ..instruction(JUMP_IF_EQUAL, 0) },
        instruction(RETURN, FAIL_EPERM),
        instruction(LOAD, FIRST_LOW),
    ];
    for persona in PERSONAS {
        code.push(sock_filter { jf: 1, ..instruction(JUMP_IF_EQUAL, persona) });
        code.push(instruction(RETURN, ALLOW));
    }
    code.push(instruction(RETURN, FAIL_EPERM));
    code
}

const fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn len(code: &[sock_filter]) -> u32 {
    u32::try_from(code.len()).expect("a filter has fewer than 4096 instructions")
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    /// Interprets `program` for one call, as the kernel does.
    fn run(program: &[sock_filter], arch: u32, number: u32, first: u64) -> u32 {
        let mut accumulator = 0;
        let mut at = 0;
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LOAD => {
                    accumulator = match k {
                        NUMBER => number,
                        ARCHITECTURE => arch,
                        FIRST_LOW => u32::try_from(first & 0xffff_ffff).unwrap(),
                        FIRST_HIGH => u32::try_from(first >> 32).unwrap(),
                        _ => panic!("load from {k}"),
                    };
                }
                AND => accumulator &= k,
                JUMP => at += usize::try_from(k).unwrap(),
                JUMP_IF_EQUAL => at += usize::from(if accumulator == k { jt } else { jf }),
                JUMP_IF_AT_LEAST => at += usize::from(if accumulator >= k { jt } else { jf }),
                RETURN => return k,
                _ => panic!("instruction {code:x}"),
            }
        }
    }

    fn check(pair: [Arch; 2]) {
        let program = program(&pair.map(|arch| (arch, table::of(arch))));
        assert!(program.len() < 4096, "{}", program.len());
        for arch in pair {
            let table = table::of(arch);
            for number in (0..1100).chain([983_041, 983_043, 0x3fff_ffff]) {
                let entry = table.entries.iter().find(|entry| entry.0 == number);
                let want = match entry.map(|entry| entry.1) {
                    Some(Verdict::Unknown) => FAIL_ENOSYS,
                    Some(_) => ALLOW,
                    None if number > 467 => FAIL_ENOSYS,
                    None => FAIL_EPERM,
                };
                assert_eq!(run(&program, arch.audit(), number, 0), want, "{arch:?} {number}");
            }
        }
        assert_eq!(run(&program, 0xdead, 0, 0), KILL);
    }

    #[test]
    fn every_number_gets_the_verdict_of_the_table() {
        check([Arch::X86_64, Arch::I386]);
        check([Arch::Aarch64, Arch::Arm]);
    }

    #[test]
    fn arguments_decide_over_clone_socket_and_personality() {
        let program = program(&[(Arch::X86_64, table::of(Arch::X86_64))]);
        let call = |number, first| run(&program, Arch::X86_64.audit(), number, first);
        let (clone, socket, personality) = (56, 41, 135);
        assert_eq!(call(clone, 0x0001_1200), ALLOW);
        assert_eq!(call(clone, 0x1000_0000), FAIL_EPERM);
        assert_eq!(call(clone, 0x4000_0011), FAIL_EPERM);
        assert_eq!(call(socket, 1), ALLOW);
        assert_eq!(call(socket, 40), FAIL_EPERM);
        assert_eq!(call(personality, 0x2_0008), ALLOW);
        assert_eq!(call(personality, 0xffff_ffff), ALLOW);
        assert_eq!(call(personality, 0x1_0000_0000), FAIL_EPERM);
        assert_eq!(call(personality, 0x004_0000), FAIL_EPERM);
    }

    #[test]
    fn x32_calls_are_judged_by_the_numbers_of_x86_64() {
        let program = program(&[(Arch::X86_64, table::of(Arch::X86_64))]);
        let call = |number| run(&program, Arch::X86_64.audit(), X32_BIT | number, 0);
        assert_eq!(call(1), ALLOW);
        assert_eq!(call(165), FAIL_EPERM);
        assert_eq!(call(520), ALLOW);
        assert_eq!(call(528), FAIL_ENOSYS);
    }
}
