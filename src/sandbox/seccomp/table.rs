//! Parses the table of allowed system calls.

/// The rules as text: name, a number for each architecture, an optional condition.
const CALLS: &str = include_str!("calls.tbl");

/// An architecture with a column in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    /// 64-bit x86; x32 shares its numbers.
    X86_64,
    /// 32-bit x86 (`int 0x80`, syscall(2)).
    I386,
    /// 64-bit Arm (`svc #0`).
    Aarch64,
    /// 32-bit Arm, EABI (`swi 0x0`).
    Arm,
}

impl Arch {
    /// Returns the index of its column; the name is in column 0.
    const fn column(self) -> usize {
        match self {
            Self::X86_64 => 1,
            Self::I386 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }

    /// Returns the kernel's number for the architecture (`AUDIT_ARCH_*` of `linux/audit.h`).
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xC000_00B7,
            Self::Arm => 0x4000_0028,
        }
    }
}

/// The treatment of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Allowed without conditions.
    Allow,
    /// Fails with `EPERM`.
    Deny,
    /// Fails with `ENOSYS`, as if the kernel did not know the call, so programs fall back to an
    /// older one.
    Unknown,
    /// Allowed if no namespace flag is set (clone(2)).
    NoNewNamespace,
    /// Allowed for any address family but `AF_VSOCK`, which reaches the hypervisor (vsock(7)).
    NotVsock,
    /// Allowed for the personalities that ordinary programs use (personality(2)).
    KnownPersona,
}

/// The number of a call in the table, and its verdict.
pub(super) type Entry = (u32, Verdict);

/// The rules for one architecture.
#[derive(Debug)]
pub(super) struct Table {
    /// Calls with a verdict, sorted by number.
    pub(super) entries: Vec<Entry>,
    /// Calls with higher numbers are unknown rather than denied.
    pub(super) newest: u32,
}

/// Returns the rules for `arch`.
pub(super) fn of(arch: Arch) -> Table {
    let lines = CALLS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut table = Table { entries: Vec::new(), newest: 0 };
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        if line.starts_with("newest ") {
            table.newest = words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
            continue;
        }
        let number = words.nth(arch.column()).and_then(|word| word.parse::<u32>().ok());
        let condition = words.nth(Arch::Arm.column() - arch.column());
        let Some(number) = number else { continue };
        table.entries.push((number, verdict(condition)));
    }
    table.entries.sort_unstable_by_key(|(number, _)| *number);
    table
}

fn verdict(condition: Option<&str>) -> Verdict {
    match condition {
        None => Verdict::Allow,
        Some("no-new-namespace") => Verdict::NoNewNamespace,
        Some("no-such-call") => Verdict::Unknown,
        Some("not-vsock") => Verdict::NotVsock,
        Some("known-persona") => Verdict::KnownPersona,
        // A misspelt condition must not allow a call; a test finds it.
        Some(_) => Verdict::Deny,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Arch; 4] = [Arch::X86_64, Arch::I386, Arch::Aarch64, Arch::Arm];

    #[test]
    fn every_line_of_the_table_has_five_columns_and_a_known_condition() {
        for line in CALLS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with("newest ") {
                continue;
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            assert!(words.len() == 5 || words.len() == 6, "{line}");
            for number in &words[1..5] {
                assert!(*number == "-" || number.parse::<u32>().is_ok(), "{line}");
            }
            assert_ne!(verdict(words.get(5).copied()), Verdict::Deny, "{line}");
        }
    }

    #[test]
    fn no_number_occurs_twice_in_a_column() {
        for arch in ALL {
            let table = of(arch);
            assert_eq!(table.newest, 467);
            assert!(table.entries.len() > 250, "{arch:?}");
            for pair in table.entries.windows(2) {
                assert!(pair[0].0 < pair[1].0, "{arch:?}: {}", pair[1].0);
            }
        }
    }

    /// The C library defines the numbers of the target architecture.
    #[test]
    fn numbers_match_the_c_library() {
        let native = if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 };
        let table = of(native);
        let verdict_of = |number: libc::c_long| {
            let found = table.entries.iter().find(|(entry, _)| i64::from(*entry) == number);
            found.map(|(_, verdict)| *verdict)
        };
        assert_eq!(verdict_of(libc::SYS_execve), Some(Verdict::Allow));
        assert_eq!(verdict_of(libc::SYS_openat2), Some(Verdict::Allow));
        assert_eq!(verdict_of(libc::SYS_chroot), Some(Verdict::Allow));
        assert_eq!(verdict_of(libc::SYS_ptrace), Some(Verdict::Allow));
        assert_eq!(verdict_of(libc::SYS_clone), Some(Verdict::NoNewNamespace));
        assert_eq!(verdict_of(libc::SYS_clone3), Some(Verdict::Unknown));
        assert_eq!(verdict_of(libc::SYS_socket), Some(Verdict::NotVsock));
        assert_eq!(verdict_of(libc::SYS_personality), Some(Verdict::KnownPersona));
        for denied in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_open_by_handle_at,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_settimeofday,
            libc::SYS_reboot,
        ] {
            assert_eq!(verdict_of(denied), None, "{denied}");
        }
    }
}
