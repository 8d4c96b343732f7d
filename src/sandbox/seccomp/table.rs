//! Reads the list of allowed system calls.

/// The rules, as data: name, then a number for each architecture, then a condition.
const CALLS: &str = include_str!("calls.tbl");

/// An architecture with a column in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    /// 64-bit x86; x32 shares its numbers.
    X86_64,
    /// 32-bit x86.
    I386,
    /// 64-bit arm.
    Aarch64,
    /// 32-bit arm.
    Arm,
}

impl Arch {
    /// Where its numbers stand, counted from the name's column.
    const fn column(self) -> usize {
        match self {
            Self::X86_64 => 1,
            Self::I386 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }

    /// The architecture's name to the kernel (`AUDIT_ARCH_*` of `linux/audit.h`).
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xC000_00B7,
            Self::Arm => 0x4000_0028,
        }
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Allow,
    /// It fails with EPERM.
    Deny,
    /// It fails with ENOSYS, as if the kernel did not know it.
    Unknown,
    /// Made when no namespace flag is set.
    NoNewNamespace,
    /// Made for any family but `AF_VSOCK`, which leads to the hypervisor.
    NotVsock,
    /// Made for the personalities that ordinary programs use.
    KnownPersona,
}

/// A call that the table names: its number, and what happens to it.
pub(super) type Entry = (u32, Verdict);

/// The table for one architecture.
#[derive(Debug)]
pub(super) struct Table {
    /// Sorted by number.
    pub(super) entries: Vec<Entry>,
    /// Later calls than this are unknown rather than denied.
    pub(super) newest: u32,
}

/// The table for `arch`.
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
        // A slip of the pen must not open anything; a test finds it.
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
    fn no_number_stands_twice_in_a_column() {
        for arch in ALL {
            let table = of(arch);
            assert_eq!(table.newest, 467);
            assert!(table.entries.len() > 250, "{arch:?}");
            for pair in table.entries.windows(2) {
                assert!(pair[0].0 < pair[1].0, "{arch:?}: {}", pair[1].0);
            }
        }
    }

    /// The C library knows the numbers of the architecture that this is compiled for.
    #[test]
    fn the_numbers_are_those_of_the_c_library() {
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
