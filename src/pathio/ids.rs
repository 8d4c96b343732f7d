//! Ids of users and groups that this process's user namespace does not map (user_namespaces(7)).
//!
//! The kernel returns `EINVAL` for them, which does not tell the user what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

/// An id that the user namespace does not map; the inner error of [`explained`]'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmappedId {
    kind: IdKind,
    id: u32,
    ranges: Vec<IdRange>,
}

/// The kind of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdKind {
    User,
    Group,
}

impl IdKind {
    /// Returns the name in messages, the namespace's map, and the file that grants ids.
    const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::User => ("user", "/proc/self/uid_map", "/etc/subuid"),
            Self::Group => ("group", "/proc/self/gid_map", "/etc/subgid"),
        }
    }
}

/// A range of mapped ids: the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdRange {
    first: u32,
    last: u32,
}

/// Maximum size of a map that is read; a map has up to 340 lines (user_namespaces(7)).
const MAX_MAP_BYTES: u64 = 64 << 10;

/// Returns the error of a call that changes an owner to `uid` and `gid`. It names the id that this
/// process cannot use, if that is the cause.
#[must_use]
pub fn explained(errno: Errno, uid: Uid, gid: Gid) -> io::Error {
    if errno != Errno::INVAL {
        return errno.into();
    }
    let found =
        unmapped(IdKind::User, uid.as_raw()).or_else(|| unmapped(IdKind::Group, gid.as_raw()));
    found.map_or_else(|| errno.into(), |found| io::Error::new(io::ErrorKind::InvalidInput, found))
}

/// Returns the user ids that this process has: the first and last of each range that the kernel
/// maps as a whole.
#[must_use]
pub fn own_users() -> Vec<(u32, u32)> {
    own(IdKind::User)
}

/// Returns the group ids that this process has, like [`own_users`].
#[must_use]
pub fn own_groups() -> Vec<(u32, u32)> {
    own(IdKind::Group)
}

/// Returns whether files can be given to this group; true where the map cannot be read.
#[must_use]
pub fn has_group(gid: u32) -> bool {
    let own = own_groups();
    own.is_empty() || own.iter().any(|(first, last)| (*first..=*last).contains(&gid))
}

fn own(kind: IdKind) -> Vec<(u32, u32)> {
    let (_, map, _) = kind.names();
    let text = super::read_to_string(Path::new(map), MAX_MAP_BYTES).unwrap_or_default();
    text.lines().filter_map(line).map(|range| (range.first, range.last)).collect()
}

fn unmapped(kind: IdKind, id: u32) -> Option<UnmappedId> {
    let (_, map, _) = kind.names();
    let text = super::read_to_string(Path::new(map), MAX_MAP_BYTES).ok()?;
    let ranges = ranges(&text);
    let has = ranges.iter().any(|range| (range.first..=range.last).contains(&id));
    (!has).then_some(UnmappedId { kind, id, ranges })
}

/// Parses a line of a map.
fn line(line: &str) -> Option<IdRange> {
    let mut words = line.split_ascii_whitespace().map(str::parse::<u32>);
    let (first, _outside, count) = (words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?);
    let last = first.checked_add(count.checked_sub(1)?)?;
    Some(IdRange { first, last })
}

/// Returns the ids of a map in order, with adjacent ranges merged.
fn ranges(map: &str) -> Vec<IdRange> {
    let mut lines: Vec<IdRange> = map.lines().filter_map(line).collect();
    lines.sort_unstable_by_key(|range| range.first);
    let mut ranges: Vec<IdRange> = Vec::new();
    for line in lines {
        if let Some(before) = ranges.last_mut()
            && before.last.checked_add(1) == Some(line.first)
        {
            before.last = line.last;
        } else {
            ranges.push(line);
        }
    }
    ranges
}

impl UnmappedId {
    /// Returns the unmapped id in the chain of causes of `error`.
    #[must_use]
    pub fn in_chain<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref().and_then(Self::in_io) {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// Returns the unmapped id that is the inner error of `error`.
    #[must_use]
    pub fn in_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns a remedy, shown below the error.
    #[must_use]
    pub fn help(&self) -> String {
        let (_, _, file) = self.kind.names();
        let n_ids = self.id;
        format!(
            "grant more ids in {file}: `sudo usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST \
             USER`, {n_ids} or more in all; or build as root"
        )
    }
}

impl fmt::Display for UnmappedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, _, file) = self.kind.names();
        write!(f, "the {kind} id {} is not one of those that {file} grants, which are ", self.id)?;
        for (at, IdRange { first, last }) in self.ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{first} to {last}")?;
        }
        f.write_str(" here")
    }
}

impl Error for UnmappedId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_not_mapped_is_named_with_the_ranges_that_are() {
        let map = "         1     100000      65536\n         0       1001          1\n";
        let ranges = ranges(map);
        assert_eq!(ranges, [IdRange { first: 0, last: 65536 }]);
        let unmapped = UnmappedId { kind: IdKind::Group, id: 70_000, ranges };
        let error = io::Error::new(io::ErrorKind::InvalidInput, unmapped.clone());
        let text = "the group id 70000 is not one of those that /etc/subgid grants, which are 0 to \
                    65536 here";
        assert_eq!(error.to_string(), text);
        let outer = crate::pathio::PathError::new("chown", "/f", error);
        assert_eq!(UnmappedId::in_chain(&outer), Some(&unmapped));
        let other = io::Error::from(Errno::INVAL);
        assert_eq!(UnmappedId::in_chain(&other), None);
    }

    #[test]
    fn ranges_with_a_gap_stay_apart() {
        let two = [IdRange { first: 0, last: 0 }, IdRange { first: 5, last: 9 }];
        assert_eq!(ranges("0 1000 1\n5 200 5\nx\n7 1 0\n"), two);
    }
}
