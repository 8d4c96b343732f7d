//! Settings of the C library's allocator.

/// Size in bytes from which each block of memory is a mapping of its own.
const MAPPED_BYTES: libc::c_int = 512 << 10;

/// Makes the allocator return large blocks to the system when they are freed. Otherwise glibc raises the
/// size of mapped blocks to that of each one that is freed, and keeps later ones for reuse, for each thread
/// (mallopt(3), `M_MMAP_THRESHOLD`): uploads of a few layers then take twice the memory.
pub fn return_large_blocks() {
    // SAFETY: glibc locks the allocator, and the parameter changes no block that is in use.
    #[cfg(target_env = "gnu")]
    let _is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES) };
}
