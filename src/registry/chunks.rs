//! Size of one request of an upload, and the offset that a registry reports.

/// Size of the first chunk after a single request was too large, and the smallest size, bytes.
const FIRST_BYTES: u64 = 32 << 20;
const MIN_BYTES: u64 = 512 << 10;

/// Limits for the size of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkLimits {
    /// Upper limit, if one was discovered.
    max: Option<u64>,
    /// Lower limit for all but the last request: `OCI-Chunk-Min-Length` (distribution-spec,
    /// "Pushing a blob in chunks").
    pub(super) min: u64,
}

impl ChunkLimits {
    /// Returns the initial limits: all in one request.
    pub(super) const fn new() -> Self {
        Self { max: None, min: 0 }
    }

    pub(super) fn max(&self) -> u64 {
        self.max.unwrap_or(u64::MAX)
    }

    /// Returns whether the upload is split into several requests.
    pub(super) const fn is_chunked(&self) -> bool {
        self.max.is_some()
    }

    /// Reduces the size of the next request. Returns false at the lower limit.
    pub(super) fn shrink(&mut self) -> bool {
        let min = self.min.max(MIN_BYTES);
        let next = self.max.map_or(FIRST_BYTES, |max| max / 4).max(min);
        let is_less = self.max.is_none_or(|max| next < max);
        self.max = Some(next);
        is_less
    }
}

/// Returns the number of bytes in a range `0-<last>`. Registries report `0-0` both for one byte and
/// for none.
pub(super) fn end_of_range(range: &str) -> Option<u64> {
    let (first, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    if first.trim() == "0" { last.checked_add(1) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_shrink_to_the_registrys_minimum() {
        const MIB: u64 = 1 << 20;
        for (min, want) in [
            (0, &[32 * MIB, 8 * MIB, 2 * MIB, MIB / 2][..]),
            (5 * MIB, &[32 * MIB, 8 * MIB, 5 * MIB]),
        ] {
            let mut chunks = ChunkLimits { min, ..ChunkLimits::new() };
            let mut sizes = Vec::new();
            while chunks.shrink() {
                sizes.push(chunks.max());
            }
            assert_eq!(sizes, want);
        }
    }

    #[test]
    fn range_gives_number_of_stored_bytes() {
        for (range, want) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-0", Some(1)),
            ("5-99", None),
            ("0-18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(end_of_range(range), want, "{range}");
        }
    }
}
