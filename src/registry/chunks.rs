//! How much one request of an upload carries, and how much the registry says that it has.

/// The first chunk that is tried where all bytes in one request are too many, and the smallest.
const FIRST_BYTES: u64 = 32 << 20;
const LEAST_BYTES: u64 = 512 << 10;

/// How much one request may carry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    /// The most, where that was found out.
    most: Option<u64>,
    /// The least for one that is not the last.
    pub(super) least: u64,
}

impl Chunks {
    /// All in one, until somebody does not take that.
    pub(super) const fn new() -> Self {
        Self { most: None, least: 0 }
    }

    pub(super) fn most(&self) -> u64 {
        self.most.unwrap_or(u64::MAX)
    }

    /// Whether it may take several.
    pub(super) const fn are_several(&self) -> bool {
        self.most.is_some()
    }

    /// Sees to it that the next request carries less; no when it is as little as can be.
    pub(super) fn shrink(&mut self) -> bool {
        let least = self.least.max(LEAST_BYTES);
        let next = self.most.map_or(FIRST_BYTES, |most| most / 4).max(least);
        let is_less = self.most.is_none_or(|most| next < most);
        self.most = Some(next);
        is_less
    }
}

/// The number of bytes in `0-<last>`; of no bytes registries say `0-0`, as of one.
pub(super) fn end_of_range(range: &str) -> Option<u64> {
    let (first, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    if first.trim() == "0" { last.checked_add(1) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_shrink_to_what_the_registry_takes_and_no_further() {
        const MIB: u64 = 1 << 20;
        for (least, want) in [
            (0, &[32 * MIB, 8 * MIB, 2 * MIB, MIB / 2][..]),
            (5 * MIB, &[32 * MIB, 8 * MIB, 5 * MIB]),
        ] {
            let mut chunks = Chunks { least, ..Chunks::new() };
            let mut sizes = Vec::new();
            while chunks.shrink() {
                sizes.push(chunks.most());
            }
            assert_eq!(sizes, want);
        }
    }

    #[test]
    fn ranges_tell_how_many_bytes_there_are() {
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
