//! Holes: parts of a file that read as zeros and take no space on the disk (lseek(2), `SEEK_HOLE`).
//!
//! A sparse file can be a million times as long as the space it takes. Copies of one keep its
//! holes, and zeros from a stream become holes.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use rustix::fs::SeekFrom as SeekTo;
use rustix::io::Errno;

/// The length of the blocks that become holes if they are zero: the block size of ext4, XFS, Btrfs
/// and tmpfs.
const BLOCK_BYTES: usize = 4096;

/// A run of bytes of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRun {
    /// This many zero bytes, which can be left out.
    Hole(usize),
    /// This many bytes to write.
    Data(usize),
}

/// Returns the kind and length of the first run of `bytes`, which belong at the offset `at` of a
/// file: whole blocks of zeros are holes.
#[must_use]
pub fn first_run(bytes: &[u8], at: u64) -> ByteRun {
    let is_block = |block: &[u8]| block.len() == BLOCK_BYTES && is_zero(block);
    let (first, blocks) = bytes.split_at(unaligned(at).min(bytes.len()));
    let mut blocks = blocks.chunks(BLOCK_BYTES);
    if first.is_empty() {
        let n_zero: usize =
            blocks.by_ref().take_while(|block| is_block(block)).map(<[u8]>::len).sum();
        if n_zero > 0 {
            return ByteRun::Hole(n_zero);
        }
        let data = bytes.chunks(BLOCK_BYTES).take_while(|block| !is_block(block));
        return ByteRun::Data(data.map(<[u8]>::len).sum());
    }
    ByteRun::Data(
        first.len() + blocks.take_while(|block| !is_block(block)).map(<[u8]>::len).sum::<usize>(),
    )
}

/// Returns the number of bytes from `at` to the next block.
fn unaligned(at: u64) -> usize {
    let block = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
    usize::try_from(at.next_multiple_of(block) - at).unwrap_or(0)
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    ZEROS.get(..bytes.len()) == Some(bytes)
}

/// Copies `n_bytes` of `from`, from the offset `at`, to the beginning of the empty file `to`,
/// inside the kernel where possible (copy_file_range(2)); holes stay holes. Returns the number of
/// bytes that `from` had.
///
/// # Errors
/// The kernel's.
pub fn copy(mut from: &File, at: u64, n_bytes: u64, mut to: &File) -> io::Result<u64> {
    let end = at.saturating_add(n_bytes).min(from.metadata()?.len());
    let mut next = at;
    while let Some((data, hole)) = next_data(from, next, end)? {
        from.seek(SeekFrom::Start(data))?;
        to.seek(SeekFrom::Start(data - at))?;
        let n_copied = io::copy(&mut from.take(hole - data), &mut to)?;
        if n_copied < hole - data {
            return Ok(data - at + n_copied);
        }
        next = hole;
    }
    let n_bytes = end.saturating_sub(at);
    to.set_len(n_bytes)?;
    Ok(n_bytes)
}

/// Returns the start and end of the next data from `at` on and before `end`.
fn next_data(file: &File, at: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    let begins = match rustix::fs::seek(file, SeekTo::Data(at)) {
        // There is only a hole from there on.
        Err(Errno::NXIO) => return Ok(None),
        begins => begins?,
    };
    if begins >= end {
        return Ok(None);
    }
    Ok(Some((begins, rustix::fs::seek(file, SeekTo::Hole(begins))?.min(end))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn blocks_of_zeros_are_holes() {
        let zeros = vec![0; 3 * BLOCK_BYTES];
        assert_eq!(first_run(&zeros, 0), ByteRun::Hole(3 * BLOCK_BYTES));
        assert_eq!(first_run(&zeros, 4096), ByteRun::Hole(3 * BLOCK_BYTES));
        assert_eq!(first_run(&zeros, 1), ByteRun::Data(BLOCK_BYTES - 1));
        assert_eq!(first_run(&zeros[..100], 0), ByteRun::Data(100));
        assert_eq!(first_run(&zeros[..100], 4090), ByteRun::Data(100));
        assert_eq!(first_run(&[], 0), ByteRun::Data(0));
        let mut mixed = zeros;
        mixed[BLOCK_BYTES] = 1;
        assert_eq!(first_run(&mixed, 0), ByteRun::Hole(BLOCK_BYTES));
        assert_eq!(first_run(&mixed[BLOCK_BYTES..], 0), ByteRun::Data(BLOCK_BYTES));
        assert_eq!(first_run(&mixed, 4095), ByteRun::Data(1 + BLOCK_BYTES));
        assert_eq!(first_run(&mixed[1..], 4097), ByteRun::Data(BLOCK_BYTES - 1 + BLOCK_BYTES));
    }

    #[test]
    fn copies_keep_holes() {
        const MIB: u64 = 1 << 20;
        let source = tempfile::tempfile().unwrap();
        source.set_len(9 * MIB).unwrap();
        source.write_all_at(b"one", 3 * MIB + 5).unwrap();
        source.write_all_at(b"two", 6 * MIB).unwrap();
        for (at, n_bytes) in [(0, 9 * MIB), (3 * MIB + 5, 4 * MIB), (7 * MIB, MIB), (9 * MIB, 0)] {
            let target = tempfile::tempfile().unwrap();
            assert_eq!(copy(&source, at, n_bytes, &target).unwrap(), n_bytes);
            assert!(target.metadata().unwrap().blocks() * 512 <= 64 << 10, "{at}");
            let length = usize::try_from(n_bytes).unwrap();
            let (mut want, mut got) = (vec![7; length], vec![8; length + 1]);
            source.read_exact_at(&mut want, at).unwrap();
            assert_eq!(target.read_at(&mut got, 0).unwrap(), length);
            assert!(got[..length] == want, "{at}");
        }
        let target = tempfile::tempfile().unwrap();
        assert_eq!(copy(&source, 8 * MIB, 5 * MIB, &target).unwrap(), MIB, "there is no more");
    }
}
