//! The seccomp filter of a step: docker's default rules for system calls
//! (<https://docs.docker.com/engine/security/seccomp/>).
//!
//! The same rules judge calls by the numbers of the machine's 32-bit architecture, so 32-bit
//! programs work; on x86-64 also x32 calls.

mod bpf;
mod table;

use std::sync::OnceLock;

use table::Arch;

/// The architectures whose programs this machine can execute.
const NATIVE: [Arch; 2] = if cfg!(target_arch = "aarch64") {
    [Arch::Aarch64, Arch::Arm]
} else {
    [Arch::X86_64, Arch::I386]
};

/// Returns the compiled rules, the same for every step of this process.
pub(super) fn docker_default() -> &'static [libc::sock_filter] {
    static PROGRAM: OnceLock<Vec<libc::sock_filter>> = OnceLock::new();
    PROGRAM.get_or_init(|| bpf::program(&NATIVE.map(|arch| (arch, table::of(arch)))))
}

/// Returns a filter without which a step would have the machine's network: no sockets but local ones.
pub(super) fn no_network() -> Vec<libc::sock_filter> {
    bpf::no_network()
}
