//! The maps of user and group ids under which directories of the store were created.
//!
//! In a user namespace the kernel maps the ids of files (user_namespaces(7), "User and group ID
//! mappings"). Under another map, because the subordinate ids of the user changed (subuid(5)) or the
//! process is in another container, the same files have other owners. The store therefore records
//! each map under which it was used, as files whose owners reveal it:
//!
//! ```text
//! id-maps/<n>-<marks>/<uid>-<gid>    empty file with this owner and group;
//!                                    <marks>: prefix of overlay attributes, `trusted` or `user`
//! ```
//!
//! A process uses the first map whose files have the owners in their names. Directories of map 0 have
//! plain names (`layers/<hex>/fs`); those of other maps are beside them (`layers/<hex>/fs.<n>`,
//! `cache-mounts/<key>.<n>`).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Uid};
use rustix::thread::CapabilitySet;

use crate::pathio::{self, Context as _, PathError, ids};

use super::locks::FileLock;
use super::private_files::{self, entry_names};

/// Name of the directory with the maps.
pub(super) const ID_MAPS: &str = "id-maps";
/// Path of the lock that is held while a map is recorded.
const LOCK: &str = "locks/index";
/// Name of an unfinished map, or of an unfinished file in a map.
const DRAFT: &str = "new";
/// The overflow id, which the kernel shows for ids without a mapping (user_namespaces(7), "Unmapped
/// user and group IDs"): a file with this owner proves nothing.
const OVERFLOW_ID: u32 = 65_534;

/// Owner and group of a file of a map.
type IdPair = (u32, u32);

/// The map under which this process sees the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdMap {
    number: u32,
    may_unpack: bool,
}

impl IdMap {
    /// Finds the map of this process in the store at `root`, or records it there.
    ///
    /// If it cannot be recorded, as on a full disk, and the store has no other map, map 0 is used:
    /// owners are compared with the listing before a layer is mounted.
    ///
    /// # Errors
    /// [`PathError`] if the maps cannot be read or recorded.
    pub(super) fn of_process(root: &Path, user_namespace: bool) -> Result<Self, PathError> {
        // A process without CAP_CHOWN (capabilities(7)) only reads the index.
        if !may_give_files_away(root)? {
            return Ok(Self { number: 0, may_unpack: false });
        }
        let Some(known) = RecordedMaps::read(root, user_namespace)? else {
            return Ok(Self::numbered(0));
        };
        let own = own_pairs();
        if let Some(found) = known.find(&own) {
            return Ok(found);
        }
        match Self::recorded(root, user_namespace, &own) {
            Err(_unrecorded) if known.next == 0 => Ok(Self::numbered(0)),
            recorded => recorded,
        }
    }

    fn recorded(
        root: &Path,
        user_namespace: bool,
        own: &BTreeSet<IdPair>,
    ) -> Result<Self, PathError> {
        let _lock = FileLock::exclusive(&root.join(LOCK))?;
        let Some(known) = RecordedMaps::read(root, user_namespace)? else {
            return Ok(Self::numbered(0));
        };
        known.find(own).map_or_else(|| known.record(own), Ok)
    }

    const fn numbered(number: u32) -> Self {
        Self { number, may_unpack: true }
    }

    /// Returns whether the process can change owners of files, which unpacking needs.
    pub(super) const fn may_unpack(self) -> bool {
        self.may_unpack
    }

    /// Returns the suffix of the names of directories that are created under this map. A process that
    /// cannot unpack creates none, and cannot compare owners in those of others.
    pub(super) fn suffix(self) -> String {
        if !self.may_unpack {
            ".none".to_owned()
        } else if self.number == 0 {
            String::new()
        } else {
            format!(".{}", self.number)
        }
    }

    /// Returns the number as bytes, for keys of the index.
    pub(super) const fn to_bytes(self) -> [u8; 4] {
        self.number.to_be_bytes()
    }
}

/// The maps of a store with the overlay attributes that this process uses.
struct RecordedMaps<'a> {
    root: &'a Path,
    marks: &'static str,
    directory: OwnedFd,
    /// Number and files of each map, and whether this process sees all files with the owners in their
    /// names.
    maps: Vec<(u32, BTreeSet<IdPair>, bool)>,
    /// Number for the next map.
    next: u32,
}

impl<'a> RecordedMaps<'a> {
    /// Reads the maps; `None` if the store has no directory for them, because the disk was full.
    fn read(root: &'a Path, user_namespace: bool) -> Result<Option<Self>, PathError> {
        let marks = if user_namespace { "user" } else { "trusted" };
        let directory = match private_files::open_directory(&root.join(ID_MAPS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            directory => directory?,
        };
        let (mut maps, mut next) = (Vec::new(), 0);
        for name in entry_names(&directory) {
            let Some((number, its_marks)) = name.to_str().and_then(|name| name.split_once('-'))
            else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else { continue };
            next = next.max(number.saturating_add(1));
            if its_marks == marks {
                let opened = private_files::open_entry(&directory, &name);
                let (pairs, is_same) = pairs_in(&opened.context("open directory", root)?);
                maps.push((number, pairs, is_same));
            }
        }
        maps.sort_unstable();
        Ok(Some(Self { root, marks, directory, maps, next }))
    }

    /// Returns the first map that agrees with this process, if it has all ids of this process.
    fn find(&self, own: &BTreeSet<IdPair>) -> Option<IdMap> {
        let (number, pairs, _) = self.maps.iter().find(|(_, _, is_same)| *is_same)?;
        own.is_subset(pairs).then(|| IdMap::numbered(*number))
    }

    /// Records the ids of this process: in the first map that agrees with it, or as a new map.
    fn record(&self, own: &BTreeSet<IdPair>) -> Result<IdMap, PathError> {
        let home = self.root.join(ID_MAPS);
        if let Some((number, pairs, _)) = self.maps.iter().find(|(_, _, is_same)| *is_same) {
            let map = home.join(format!("{number}-{}", self.marks));
            own.difference(pairs).try_for_each(|pair| create_pair(&map, *pair))?;
            return Ok(IdMap::numbered(*number));
        }
        let draft = home.join(DRAFT);
        pathio::remove_dir_all(&draft)?;
        let recorded = self.write_new(&draft, own);
        if recorded.is_err() {
            // It may use the last inodes of a full disk.
            let _removed = pathio::remove_dir_all(&draft);
        }
        recorded
    }

    /// Writes a new map as `draft`, and renames it.
    fn write_new(&self, draft: &Path, own: &BTreeSet<IdPair>) -> Result<IdMap, PathError> {
        let home = self.root.join(ID_MAPS);
        private_files::create_directory(draft).context("create directory", draft)?;
        own.iter().try_for_each(|pair| create_pair(draft, *pair))?;
        pathio::rename(draft, &home.join(format!("{}-{}", self.next, self.marks)))?;
        rustix::fs::fsync(&self.directory).context("sync", &home)?;
        Ok(IdMap::numbered(self.next))
    }
}

/// Returns whether this process may change owners of files to any id (`CAP_CHOWN`, capabilities(7)).
fn may_give_files_away(root: &Path) -> Result<bool, PathError> {
    let held = rustix::thread::capabilities(None).context("learn who may own files in", root)?;
    Ok(held.effective.contains(CapabilitySet::CHOWN))
}

/// Returns the files of a map, and whether this process sees each with the owners in its name.
fn pairs_in(map: &OwnedFd) -> (BTreeSet<IdPair>, bool) {
    let (mut pairs, mut is_same) = (BTreeSet::new(), true);
    for name in entry_names(map) {
        let Some((uid, gid)) = name.to_str().and_then(|name| name.split_once('-')) else {
            continue;
        };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { continue };
        let stat = rustix::fs::statat(map, &name, AtFlags::SYMLINK_NOFOLLOW);
        is_same &= stat.is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (uid, gid));
        pairs.insert((uid, gid));
    }
    (pairs, is_same)
}

/// Creates the file for a pair of ids, if the file system stores owners.
fn create_pair(map: &Path, (uid, gid): IdPair) -> Result<(), PathError> {
    let path = map.join(format!("{uid}-{gid}"));
    let draft = map.join(DRAFT);
    pathio::remove_file(&draft)?;
    let file = private_files::create_file(&draft)?;
    // Ignored: if the owner cannot be set here, unpacking a layer fails and reports it.
    let given = rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let is_kept = given.is_ok()
        && rustix::fs::fstat(&file).is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (uid, gid));
    if is_kept { pathio::rename(&draft, &path) } else { pathio::remove_file(&draft) }
}

/// Returns pairs that identify the map of this process: the first and the last id of each range of
/// `/proc/self/uid_map` and `gid_map`.
fn own_pairs() -> BTreeSet<IdPair> {
    pairs(&bounds(&ids::own_users()), &bounds(&ids::own_groups()))
}

/// Pairs users with groups. The last of the shorter list is repeated.
fn pairs(uids: &[u32], gids: &[u32]) -> BTreeSet<IdPair> {
    let n_pairs = uids.len().max(gids.len());
    let at = |ids: &[u32], number: usize| ids.get(number).or(ids.last()).copied();
    (0..n_pairs).filter_map(|number| Some((at(uids, number)?, at(gids, number)?))).collect()
}

/// Returns the first and last ids of all ranges, sorted.
fn bounds(ranges: &[(u32, u32)]) -> Vec<u32> {
    let known = |id: u32| if id == OVERFLOW_ID { id - 1 } else { id };
    let bounds = ranges.iter().flat_map(|(first, last)| [*first, *last]);
    bounds.map(known).collect::<BTreeSet<u32>>().into_iter().collect()
}
