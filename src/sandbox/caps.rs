//! Capabilities.

use std::io;

use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// What docker gives to a container: the mask `a80425fb`.
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

/// Whether this process may mount and make namespaces.
pub(super) fn has_sys_admin() -> bool {
    thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// The names of those that this process lacks of `wanted`, as in `CAP_CHOWN, CAP_MKNOD`; nothing if it
/// has all.
pub(super) fn lacking(wanted: CapabilitySet) -> Option<String> {
    let own = thread::capabilities(None).ok()?.effective;
    let names = wanted.difference(own).iter_names().map(|(name, _)| format!("CAP_{name}"));
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Says why a step's capabilities could not be set: it gets none that this process lacks.
pub(super) fn explained(errno: Errno, wanted: CapabilitySet) -> io::Error {
    match lacking(wanted).filter(|_| errno == Errno::PERM) {
        None => errno.into(),
        Some(names) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "rbuild itself lacks {names}; give the container that it is in what is missing \
                 (`--cap-add`), or run it as an ordinary user"
            ),
        ),
    }
}

/// Whether this process may give steps more than its own limits allow.
#[must_use]
pub fn may_raise_limits() -> bool {
    let has = |sets: thread::CapabilitySets| sets.effective.contains(CapabilitySet::SYS_RESOURCE);
    // The kernel asks the initial user namespace.
    !super::in_user_namespace() && thread::capabilities(None).is_ok_and(has)
}

/// Removes all but `keep` from the bounding set. Allocates nothing.
pub(super) fn bound(keep: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The first number that this kernel does not know: there are none above it.
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Keeps exactly `keep`; nothing is inheritable, and so nothing ambient. Allocates nothing.
pub(super) fn restrict(keep: CapabilitySet) -> rustix::io::Result<()> {
    let inheritable = CapabilitySet::empty();
    thread::set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_the_mask_that_docker_shows() {
        assert_eq!(DOCKER_DEFAULT.bits(), 0xa804_25fb);
    }
}
