//! The user and group ids under which the store's directories were made.
//!
//! A process in a user namespace sees ids that the kernel translates (user_namespaces(7)). Another
//! translation, because the user's subordinate ids changed or the process is in another container,
//! shows the same files with other owners. So the store remembers each translation that it was used
//! under, as files whose owners show it:
//!
//! ```text
//! id-maps/<n>-<marks>/<uid>-<gid>    empty files; <marks> is the name space of overlay's attributes
//! ```
//!
//! A process uses the first map whose files it sees with the owners that their names say. Number 0
//! has the plain names in the store (`layers/<hex>/fs`); what other maps have made lies beside it
//! (`layers/<hex>/fs.<n>`, `cache-mounts/<key>.<n>`).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Uid};
use rustix::thread::CapabilitySet;

use crate::pathio::{self, Context as _, PathError, ids};

use super::guard::{self, ID_MAPS};
use super::lock::Lease;
use super::work::names_in;

/// Held while a map is recorded.
const LOCK: &str = "locks/index";
/// Name of a map that is being recorded.
const DRAFT: &str = "new";
/// The owner that the kernel shows for an id that the user namespace lacks (user_namespaces(7)): a
/// file of this owner proves nothing.
const OVERFLOW_ID: u32 = 65_534;

/// Owner and group of a file that shows a map.
type Pair = (u32, u32);

/// The map under which this process sees the store, by its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdMap {
    number: u32,
    may_unpack: bool,
}

impl IdMap {
    /// Finds the map of this process in the store at `root`, or records it there.
    ///
    /// If nothing can be recorded, as on a full disk, map 0 is used unless it is another one:
    /// what is mounted is compared with its listing in any case.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(super) fn of_process(root: &Path, user_namespace: bool) -> Result<Self, PathError> {
        // An ordinary user's process that only reads the index makes no directories.
        if !may_give_files_away() {
            return Ok(Self { number: 0, may_unpack: false });
        }
        let Some(known) = Known::read(root, user_namespace)? else { return Ok(Self::numbered(0)) };
        let own = own_pairs();
        if let Some(found) = known.find(&own) {
            return Ok(found);
        }
        match Self::recorded(root, user_namespace, &own) {
            Err(_full) if known.next == 0 => Ok(Self::numbered(0)),
            recorded => recorded,
        }
    }

    fn recorded(
        root: &Path,
        user_namespace: bool,
        own: &BTreeSet<Pair>,
    ) -> Result<Self, PathError> {
        let _alone = Lease::exclusive(&root.join(LOCK))?;
        let Some(known) = Known::read(root, user_namespace)? else { return Ok(Self::numbered(0)) };
        known.find(own).map_or_else(|| known.record(own), Ok)
    }

    const fn numbered(number: u32) -> Self {
        Self { number, may_unpack: true }
    }

    /// False of a process that gives no file to another owner, and so unpacks nothing.
    pub(super) const fn may_unpack(self) -> bool {
        self.may_unpack
    }

    /// Ends the name of what was made under this map.
    pub(super) fn suffix(self) -> String {
        if self.number == 0 { String::new() } else { format!(".{}", self.number) }
    }

    /// The number as bytes, for keys of the index.
    pub(super) const fn to_bytes(self) -> [u8; 4] {
        self.number.to_be_bytes()
    }
}

/// The maps of a store that have the marks of this process.
struct Known<'a> {
    root: &'a Path,
    marks: &'static str,
    directory: OwnedFd,
    /// By number: the files, and those of them that this process sees with other owners.
    maps: Vec<(u32, BTreeSet<Pair>, bool)>,
    /// The number of the next map.
    next: u32,
}

impl<'a> Known<'a> {
    /// Nothing if the store has no directory for them: there was no space to make it.
    fn read(root: &'a Path, user_namespace: bool) -> Result<Option<Self>, PathError> {
        let marks = if user_namespace { "user" } else { "trusted" };
        let directory = match guard::open_directory(&root.join(ID_MAPS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            directory => directory?,
        };
        let (mut maps, mut next) = (Vec::new(), 0);
        for name in names_in(&directory) {
            let Some((number, its_marks)) = name.to_str().and_then(|name| name.split_once('-'))
            else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else { continue };
            next = next.max(number.saturating_add(1));
            if its_marks == marks {
                let opened = guard::open_entry(&directory, &name);
                let (pairs, is_same) = pairs_in(&opened.context("open directory", root)?);
                maps.push((number, pairs, is_same));
            }
        }
        maps.sort_unstable();
        Ok(Some(Self { root, marks, directory, maps, next }))
    }

    /// The first map that this process has and that has all ids of this process.
    fn find(&self, own: &BTreeSet<Pair>) -> Option<IdMap> {
        let (number, pairs, _) = self.maps.iter().find(|(_, _, is_same)| *is_same)?;
        own.is_subset(pairs).then(|| IdMap::numbered(*number))
    }

    /// Records the ids of this process: as more of a map that has only such, or as a new map.
    fn record(&self, own: &BTreeSet<Pair>) -> Result<IdMap, PathError> {
        let home = self.root.join(ID_MAPS);
        if let Some((number, pairs, _)) = self.maps.iter().find(|(_, _, is_same)| *is_same) {
            let map = home.join(format!("{number}-{}", self.marks));
            own.difference(pairs).try_for_each(|pair| make(&map, *pair))?;
            return Ok(IdMap::numbered(*number));
        }
        let draft = home.join(DRAFT);
        pathio::remove_dir_all(&draft)?;
        guard::create_directory(&draft).context("create directory", &draft)?;
        own.iter().try_for_each(|pair| make(&draft, *pair))?;
        pathio::rename(&draft, &home.join(format!("{}-{}", self.next, self.marks)))?;
        rustix::fs::fsync(&self.directory).context("sync", &home)?;
        Ok(IdMap::numbered(self.next))
    }
}

/// Returns whether this process may change the owners of files.
fn may_give_files_away() -> bool {
    let held = rustix::thread::capabilities(None);
    held.is_ok_and(|held| held.effective.contains(CapabilitySet::CHOWN))
}

/// The files of a map, by name, and whether this process sees each with the owners in its name.
fn pairs_in(map: &OwnedFd) -> (BTreeSet<Pair>, bool) {
    let (mut pairs, mut is_same) = (BTreeSet::new(), true);
    for name in names_in(map) {
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

/// Makes the file that shows a pair of ids, on file systems that keep owners.
fn make(map: &Path, (uid, gid): Pair) -> Result<(), PathError> {
    let path = map.join(format!("{uid}-{gid}"));
    let draft = map.join(DRAFT);
    pathio::remove_file(&draft)?;
    let file = guard::create_file(&draft)?;
    // An owner that cannot be set here cannot be set when a layer is unpacked, which reports it.
    let given = rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let is_kept = given.is_ok()
        && rustix::fs::fstat(&file).is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (uid, gid));
    if is_kept { pathio::rename(&draft, &path) } else { pathio::remove_file(&draft) }
}

/// Files that show the whole map of this process: one for the first and one for the last id of
/// each range.
fn own_pairs() -> BTreeSet<Pair> {
    pairs(&bounds(&ids::own_users()), &bounds(&ids::own_groups()))
}

fn pairs(uids: &[u32], gids: &[u32]) -> BTreeSet<Pair> {
    let n_pairs = uids.len().max(gids.len());
    let at = |ids: &[u32], number: usize| ids.get(number).or(ids.last()).copied();
    (0..n_pairs).filter_map(|number| Some((at(uids, number)?, at(gids, number)?))).collect()
}

fn bounds(ranges: &[(u32, u32)]) -> Vec<u32> {
    let known = |id: u32| if id == OVERFLOW_ID { id - 1 } else { id };
    let bounds = ranges.iter().flat_map(|(first, last)| [*first, *last]);
    bounds.map(known).collect::<BTreeSet<u32>>().into_iter().collect()
}
