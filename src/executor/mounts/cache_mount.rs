//! `RUN --mount=type=cache`: locks the directories that a step uses, in an order that prevents
//! deadlocks between steps.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::Sharing;
use crate::pathio::{Context as _, ids};
use crate::plan::{CacheKey, MountAccess, RunMount, RunMountKind, RunOperation};
use crate::pool;
use crate::store::{CacheMount, CacheRequest, CacheSharing, WorkDirectory};
use crate::tree::ContentWriter;

use crate::executor::active_step::ActiveStep;
use crate::executor::state::BuildState;
use crate::executor::{BuildError, Event, Stream, chain};

use super::mount_point::{IN_ROOT, make_directories, owner_set};
use super::source::{MountInputs, SelectedFiles};

/// Pause between two attempts to lock a cache.
const LOOK_AGAIN_NS: i64 = 50_000_000;

type Result<T> = std::result::Result<T, BuildError>;

/// The cache directories of one step.
#[derive(Debug, Default)]
pub(in crate::executor) struct StepCaches {
    taken: BTreeMap<CacheKey, CacheMount>,
    /// Keys by index of the mount.
    keys: BTreeMap<usize, CacheKey>,
}

/// A cache directory that a step needs.
struct NeededCache<'a> {
    id: &'a str,
    usage: CacheSharing,
    access: MountAccess,
    mount: &'a RunMount,
    seed: Option<&'a SelectedFiles>,
}

impl StepCaches {
    /// Locks all cache directories of a step; waits for those that others use.
    pub(in crate::executor) fn take(
        state: &BuildState<'_>,
        active: &ActiveStep,
        operation: &RunOperation,
        inputs: &MountInputs,
    ) -> Result<Self> {
        let mut caches = Self::default();
        // In order of key: two steps that need the same two directories never hold one each.
        let mut needed: BTreeMap<CacheKey, NeededCache<'_>> = BTreeMap::new();
        for (at, mount) in operation.mounts.iter().enumerate() {
            let RunMountKind::Cache { id, sharing, access, .. } = &mount.kind else { continue };
            let (seed, usage) = (inputs.get(at), usage(*sharing));
            let key = key(id, access, seed);
            caches.keys.insert(at, key);
            let known = needed.entry(key).or_insert(NeededCache {
                id,
                usage,
                access: *access,
                mount,
                seed,
            });
            known.usage = known.usage.max(usage);
        }
        for (key, needed) in needed {
            let taken = needed.take(state, active, key)?;
            state.caches.mounts.note_executed(key, needed.id);
            caches.taken.insert(key, taken);
        }
        Ok(caches)
    }

    /// Returns the directory for mount number `at`.
    pub(in crate::executor) fn directory(&self, at: usize, mount: &RunMount) -> Result<OwnedFd> {
        let cache = self.keys.get(&at).and_then(|key| self.taken.get(key));
        let cache = cache.expect("every cache mount was taken");
        let source = match &mount.kind {
            // With `from`, the source was selected there when the cache was filled.
            RunMountKind::Cache { source, from: None, .. } => source.as_str(),
            RunMountKind::Bind { .. }
            | RunMountKind::Cache { .. }
            | RunMountKind::Host(_)
            | RunMountKind::Tmpfs { .. }
            | RunMountKind::Secret { .. }
            | RunMountKind::Ssh { .. } => "/",
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = make_directories(cache.as_fd(), source, &own_by_root).and_then(|()| {
            let directory =
                rustix::fs::openat2(cache.as_fd(), source, flags, Mode::empty(), IN_ROOT);
            directory.context("open", source.as_ref())
        });
        directory.map_err(|error| {
            let message = format!("{source} of the cache is not a directory: {}", chain(&error));
            Diagnostic::error(codes::SOURCE_NOT_FOUND, mount.span, message).into()
        })
    }
}

fn own_by_root(directory: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<()> {
    let (root, flags) = ((Uid::ROOT, Gid::ROOT), AtFlags::SYMLINK_NOFOLLOW);
    let set = rustix::fs::chownat(directory, name, Some(root.0), Some(root.1), flags);
    Ok(owner_set(set)?)
}

/// Notes the cache directories of a step, cached or not, for export.
pub(in crate::executor) fn note(
    state: &BuildState<'_>,
    operation: &RunOperation,
    inputs: &MountInputs,
) {
    for (at, mount) in operation.mounts.iter().enumerate() {
        if let RunMountKind::Cache { id, access, .. } = &mount.kind {
            state.caches.mounts.note_mounted(key(id, access, inputs.get(at)), id);
        }
    }
}

const fn usage(sharing: Sharing) -> CacheSharing {
    match sharing {
        Sharing::Shared => CacheSharing::Shared,
        Sharing::Private => CacheSharing::Private,
        Sharing::Locked => CacheSharing::Locked,
    }
}

/// Returns the key of a cache directory. Another owner, mode or initial content is another cache.
fn key(id: &str, access: &MountAccess, seed: Option<&SelectedFiles>) -> CacheKey {
    let mut key = ContentWriter::new("rbuild/cache-mount/v1");
    key.field(id.as_bytes());
    for number in [access.mode, access.uid, access.gid] {
        key.number(u64::from(number));
    }
    key.field(seed.map_or("", SelectedFiles::digest).as_bytes());
    CacheKey::new(*key.finish().as_bytes())
}

impl NeededCache<'_> {
    fn take(
        &self,
        state: &BuildState<'_>,
        active: &ActiveStep,
        key: CacheKey,
    ) -> Result<CacheMount> {
        let mut is_reported = false;
        loop {
            if let Some(taken) = self.try_take(state, active, key)? {
                state.services.store.cache_mounts().note_id(key, self.id)?;
                return Ok(taken);
            }
            if state.services.cancel.is_set() {
                return Err(state.services.stopped());
            }
            if !is_reported {
                is_reported = true;
                let text =
                    format!("waiting for the cache `{}`, which another step uses\n", self.id);
                let (step, bytes) = (active.id, text.into_bytes());
                state.services.event(Event::Output { step, stream: Stream::Stderr, bytes });
            }
            let mut stop = [PollFd::from_borrowed_fd(state.services.cancel.as_fd(), PollFlags::IN)];
            let wait = Timespec { tv_sec: 0, tv_nsec: LOOK_AGAIN_NS };
            // An interrupted wait only tries again sooner.
            let _woken = rustix::event::poll(&mut stop, Some(&wait));
        }
    }

    fn try_take(
        &self,
        state: &BuildState<'_>,
        active: &ActiveStep,
        key: CacheKey,
    ) -> Result<Option<CacheMount>> {
        let (store, usage) = (state.services.store, self.usage);
        if !active.is_uncached {
            let request = CacheRequest { key, sharing: usage, reset: false };
            return store.cache_mounts().try_take(&request, &|| {
                self.make(state, state.caches.mounts.restore(state.services, key)?)
            });
        }
        // Locked during the attempt, so that only one of two stages empties the cache.
        let mut emptied = pool::lock(&state.emptied_caches);
        let request = CacheRequest { key, sharing: usage, reset: !emptied.contains(&key) };
        let taken = store.cache_mounts().try_take(&request, &|| self.make(state, None))?;
        if taken.is_some() {
            emptied.insert(key);
        }
        Ok(taken)
    }

    /// Returns the initial content of a cache: imported from another store, copied from its `from`,
    /// or empty.
    fn make(
        &self,
        state: &BuildState<'_>,
        restored: Option<WorkDirectory>,
    ) -> Result<WorkDirectory> {
        let work = match (restored, self.seed) {
            (Some(restored), _) => restored,
            (None, Some(seed)) => seed.copy_out(state, self.mount.span)?,
            (None, None) => {
                let work = state.services.store.work_directory()?;
                work.directory("fs")?;
                work
            }
        };
        let path = work.path().join("fs");
        let MountAccess { mode, uid, gid } = self.access;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        owner_set(rustix::fs::chown(&path, Some(uid), Some(gid)))
            .map_err(|errno| ids::explained(errno, uid, gid))
            .context("change the owner of", &path)?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).context("change the mode of", &path)?;
        Ok(work)
    }
}
