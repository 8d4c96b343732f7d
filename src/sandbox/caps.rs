//! Capabilities of rbuild and of its steps (capabilities(7)).

use std::io;

use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// Docker's default capabilities: the mask `a80425fb` in `CapEff` of `/proc/self/status` in a
/// container.
pub(super) const DOCKER_DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Returns whether this process may mount and create namespaces.
pub(super) fn has_sys_admin() -> bool {
    thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Returns the names of the capabilities of `wanted` that this process lacks, as in `CAP_CHOWN,
/// CAP_MKNOD`; `None` if it has all.
pub(super) fn missing(wanted: CapabilitySet) -> Option<String> {
    let own = thread::capabilities(None).ok()?.effective;
    let names = wanted.difference(own).iter_names().map(|(name, _)| format!("CAP_{name}"));
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Returns the error of setting a step's capabilities. `EPERM` means that rbuild itself lacks some;
/// the text names them.
pub(super) fn explain_error(errno: Errno, wanted: CapabilitySet) -> io::Error {
    match missing(wanted).filter(|_| errno == Errno::PERM) {
        None => errno.into(),
        Some(names) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "rbuild itself lacks {names}: start its container with them (`--cap-add`), or run \
                 rbuild as an ordinary user"
            ),
        ),
    }
}

/// Returns whether this process may give steps higher limits than its own (`CAP_SYS_RESOURCE`,
/// setrlimit(2)).
#[must_use]
pub fn may_raise_limits() -> bool {
    let has = |sets: thread::CapabilitySets| sets.effective.contains(CapabilitySet::SYS_RESOURCE);
    // The kernel checks the capability in the initial user namespace.
    !super::in_user_namespace() && thread::capabilities(None).is_ok_and(has)
}

/// Removes all but `keep` from the bounding set (prctl(2), `PR_CAPBSET_DROP`). Allocates nothing.
pub(super) fn limit_bounding_set(keep: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The first number unknown to this kernel; no higher one is known.
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sets the effective and permitted sets to `keep`, and empties the inheritable set and with it the
/// ambient set. Allocates nothing.
pub(super) fn set_exactly(keep: CapabilitySet) -> rustix::io::Result<()> {
    let inheritable = CapabilitySet::empty();
    thread::set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_default_is_the_mask_of_a_docker_container() {
        assert_eq!(DOCKER_DEFAULT.bits(), 0xa804_25fb);
    }
}
