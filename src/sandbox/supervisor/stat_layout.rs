//! The structures of stat(2), statx(2) and statfs(2) as the kernel writes them.

use rustix::fs::{Stat, StatFs, Statx};

use crate::sandbox::attributes::Attributes;

/// Fields in the order of a structure, in native byte order.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn i64(self, value: i64) -> Self {
        self.u64(value.cast_unsigned())
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
}

/// Returns `struct stat` with some fields of `attributes`.
#[cfg(target_arch = "x86_64")]
pub(super) fn stat_bytes(stat: &Stat, attributes: &Attributes) -> Vec<u8> {
    let times = |fields: Fields| {
        fields
            .i64(stat.st_atime)
            .u64(stat.st_atime_nsec)
            .i64(stat.st_mtime)
            .u64(stat.st_mtime_nsec)
            .i64(stat.st_ctime)
            .u64(stat.st_ctime_nsec)
    };
    let fields = Fields::default()
        .u64(stat.st_dev)
        .u64(stat.st_ino)
        .u64(stat.st_nlink)
        .u32(attributes.mode)
        .u32(attributes.uid)
        .u32(attributes.gid)
        .u32(0)
        .u64(attributes.device)
        .i64(stat.st_size)
        .i64(stat.st_blksize)
        .i64(stat.st_blocks);
    times(fields).u64(0).u64(0).u64(0).0
}

/// Returns `struct stat` with some fields of `attributes`.
#[cfg(target_arch = "aarch64")]
pub(super) fn stat_bytes(stat: &Stat, attributes: &Attributes) -> Vec<u8> {
    let blksize = u32::try_from(stat.st_blksize).unwrap_or(4096);
    let fields = Fields::default()
        .u64(stat.st_dev)
        .u64(stat.st_ino)
        .u32(attributes.mode)
        .u32(stat.st_nlink)
        .u32(attributes.uid)
        .u32(attributes.gid)
        .u64(attributes.device)
        .u64(0)
        .i64(stat.st_size)
        .u32(blksize)
        .u32(0)
        .i64(stat.st_blocks);
    fields
        .i64(stat.st_atime)
        .u64(stat.st_atime_nsec)
        .i64(stat.st_mtime)
        .u64(stat.st_mtime_nsec)
        .i64(stat.st_ctime)
        .u64(stat.st_ctime_nsec)
        .u64(0)
        .0
}

/// Returns `struct statx` with some fields of `attributes`.
pub(super) fn statx_bytes(facts: &Statx, attributes: &Attributes) -> Vec<u8> {
    const N_BYTES: usize = 256;
    let time = |fields: Fields, at: &rustix::fs::StatxTimestamp| {
        fields.i64(at.tv_sec).u32(at.tv_nsec).u32(0)
    };
    let fields = Fields::default()
        .u32(facts.stx_mask)
        .u32(facts.stx_blksize)
        .u64(facts.stx_attributes.bits())
        .u32(facts.stx_nlink)
        .u32(attributes.uid)
        .u32(attributes.gid)
        .u16(u16::try_from(attributes.mode).unwrap_or(u16::MAX))
        .u16(0)
        .u64(facts.stx_ino)
        .u64(facts.stx_size)
        .u64(facts.stx_blocks)
        .u64(facts.stx_attributes_mask.bits());
    let times = [&facts.stx_atime, &facts.stx_btime, &facts.stx_ctime, &facts.stx_mtime];
    let fields = times.into_iter().fold(fields, time);
    let mut bytes = fields
        .u32(rustix::fs::major(attributes.device))
        .u32(rustix::fs::minor(attributes.device))
        .u32(facts.stx_dev_major)
        .u32(facts.stx_dev_minor)
        .u64(facts.stx_mnt_id)
        .0;
    bytes.resize(N_BYTES, 0);
    bytes
}

/// Returns `struct statfs`.
pub(super) fn statfs_bytes(facts: &StatFs) -> Vec<u8> {
    const N_BYTES: usize = 120;
    let mut bytes = Fields::default()
        .i64(facts.f_type)
        .i64(facts.f_bsize)
        .u64(facts.f_blocks)
        .u64(facts.f_bfree)
        .u64(facts.f_bavail)
        .u64(facts.f_files)
        .u64(facts.f_ffree)
        .u64(0)
        .i64(facts.f_namelen)
        .i64(facts.f_frsize)
        .i64(facts.f_flags)
        .0;
    bytes.resize(N_BYTES, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        let directory = rustix::fs::CWD;
        let stat = rustix::fs::statat(directory, c"/", rustix::fs::AtFlags::empty()).unwrap();
        let bytes = stat_bytes(&stat, &Attributes::on_disk(&stat));
        assert_eq!(bytes.len(), size_of::<libc::stat>());
        let all = rustix::fs::StatxFlags::BASIC_STATS;
        let facts = rustix::fs::statx(directory, c"/", rustix::fs::AtFlags::empty(), all).unwrap();
        assert_eq!(
            statx_bytes(&facts, &Attributes::on_disk(&stat)).len(),
            size_of::<libc::statx>()
        );
        let facts = rustix::fs::statfs(c"/").unwrap();
        assert_eq!(statfs_bytes(&facts).len(), size_of::<libc::statfs>());
    }
}
