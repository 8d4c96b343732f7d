//! Facts about other processes.

use std::ptr;

use rustix::process::{Pid, Resource};

/// Returns the soft limit of a process (prlimit(2)); the highest number stands for no limit.
pub(in crate::sandbox) fn soft_limit(pid: Pid, resource: Resource) -> rustix::io::Result<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    if resource != Resource::Rttime {
        return Err(rustix::io::Errno::INVAL);
    }
    let resource = libc::RLIMIT_RTTIME;
    // SAFETY: the kernel only writes to `limit`, a structure of its type.
    let result = unsafe {
        libc::prlimit64(pid.as_raw_nonzero().get(), resource, ptr::null(), &raw mut limit)
    };
    super::checked(result.into())?;
    Ok(limit.rlim_cur)
}
