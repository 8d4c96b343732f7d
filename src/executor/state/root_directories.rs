//! The way in which steps of RUN get their root, and the directories in which they make their changes
//! where overlays cannot be mounted. A directory serves one step after the other.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, OnceLock};

use rustix::io::Errno;

use crate::diag::Span;
use crate::oci::DiffId;
use crate::pool;
use crate::sandbox::{self, Isolation, Rootfs, SandboxError};
use crate::store::{RootDirectory, Store};

use super::BuildState;
use super::memory_budget::MemoryBudget;
use super::memory_files::MemoryFiles;
use crate::executor::stack::Stack;
use crate::executor::{BuildError, Failure, Outcome};

type Result<T> = std::result::Result<T, Failure>;

/// Maximum number of directories that wait for a step. Each takes the space of a whole image.
const MAX_KEPT: usize = 4;

/// The way in which steps of RUN get their root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum RootKind {
    /// An overlay whose changes are in the store.
    Overlay,
    /// An overlay whose changes are in memory, because the store is on a file system that cannot hold
    /// them, such as another overlay.
    MemoryOverlay,
    /// A directory with all files of the layers.
    InPlace,
}

/// The root directories that no step uses at the moment, and what decides about the use of others.
#[derive(Debug)]
pub(in crate::executor) struct RootDirectories {
    kind: OnceLock<RootKind>,
    /// Made when it is first needed.
    memory: OnceLock<Arc<MemoryBudget>>,
    max_in_memory: Option<u64>,
    /// Oldest first.
    kept: Mutex<Vec<KeptRoot>>,
}

#[derive(Debug)]
struct KeptRoot {
    /// The layers whose files it has, base first.
    layers: Vec<DiffId>,
    root: RootDirectory,
}

impl RootDirectories {
    /// Returns no directories. Changes in memory have at most this size, bytes.
    pub(in crate::executor) fn new(max_in_memory: Option<u64>) -> Self {
        let (kind, memory) = (OnceLock::new(), OnceLock::new());
        Self { kind, memory, max_in_memory, kept: Mutex::default() }
    }

    /// Returns the memory for changes of steps.
    pub(in crate::executor) fn memory(&self) -> &Arc<MemoryBudget> {
        self.memory.get_or_init(|| Arc::new(MemoryBudget::new(self.max_in_memory)))
    }

    /// Returns the directory that has the most of these layers, and no others.
    fn take(&self, layers: &[DiffId]) -> Option<KeptRoot> {
        let mut kept = pool::lock(&self.kept);
        let fitting = kept.iter().enumerate().filter(|(_, kept)| layers.starts_with(&kept.layers));
        let (at, _) = fitting.max_by_key(|(_, kept)| kept.layers.len())?;
        Some(kept.remove(at))
    }

    /// Keeps a directory for later steps; drops the oldest if there are too many.
    fn keep(&self, new: KeptRoot) {
        let mut kept = pool::lock(&self.kept);
        kept.push(new);
        let oldest = (kept.len() > MAX_KEPT).then(|| kept.remove(0));
        drop(kept);
        // Removing its files takes a while.
        drop(oldest);
    }
}

impl BuildState<'_> {
    /// Returns the way in which steps of RUN get their root. Decided once for a build, by trying.
    pub(in crate::executor) fn root_kind(&self) -> RootKind {
        *self.roots.kind.get_or_init(|| {
            let kind = match sandbox::isolation() {
                Some(Isolation::Namespace) => self.kind_of_overlay(),
                _ => RootKind::InPlace,
            };
            tracing::debug!(?kind, "roots of steps");
            kind
        })
    }

    fn kind_of_overlay(&self) -> RootKind {
        let store = self.services.store;
        if !is_overlay_refused(store) {
            return RootKind::Overlay;
        }
        let reserved = self.roots.memory().reserve();
        let in_memory = reserved.and_then(|memory| {
            let work = store.work_directory().ok()?;
            let lower = work.directory("empty").ok()?;
            let files = MemoryFiles::new(memory, work.path()).ok()?;
            let mounted = files.overlay(&[lower.as_fd()], false);
            drop(crate::pathio::remove_dir_all(work.path()));
            mounted.ok()
        });
        in_memory.map_or(RootKind::InPlace, |_mounted| RootKind::MemoryOverlay)
    }

    /// Returns a remark on the roots of steps, if they are made in another way than usual under the
    /// isolation.
    pub(in crate::executor) fn root_remark(&self) -> Option<String> {
        if sandbox::isolation() != Some(Isolation::Namespace) {
            return None;
        }
        match self.root_kind() {
            RootKind::Overlay => None,
            RootKind::MemoryOverlay => Some(format!(
                "the store cannot hold overlays: changes are made in memory, up to {}",
                crate::diag::size(self.roots.memory().max_bytes())
            )),
            RootKind::InPlace => {
                Some("the store cannot hold overlays: files are copied".to_owned())
            }
        }
    }

    /// Returns a directory with the files of a stack, for a step at `span`.
    pub(in crate::executor) fn root_directory(
        &self,
        stack: &Stack,
        span: Span,
    ) -> Result<RootDirectory> {
        let layers = stack.diff_ids()?;
        let tree = self.tree(stack)?;
        let store = self.services.store;
        let failed = |error| Failure::new(BuildError::from(error).at(span));
        if let Some(KeptRoot { layers: known, mut root }) = self.roots.take(&layers) {
            if known != layers {
                store.update_root(&mut root, &tree).map_err(failed)?;
            }
            return Ok(root);
        }
        let base = layers.first().and_then(|layer| self.images.image_of(*layer));
        let copying =
            base.map(|image| self.services.start(format!("[internal] unpack {}", image.name)));
        let emulates = sandbox::isolation().is_some_and(Isolation::emulates_owners);
        let made = store.root_directory(&tree, emulates).map_err(failed);
        if let Some(step) = copying {
            self.services.finish(step, if made.is_ok() { Outcome::Done } else { Outcome::Failed });
        }
        made
    }

    /// Keeps the directory of a finished step, which has the files of `stack`, for later steps.
    pub(in crate::executor) fn keep_root(
        &self,
        stack: &Stack,
        mut root: RootDirectory,
    ) -> Result<()> {
        root.set_tree(self.tree(stack)?);
        self.roots.keep(KeptRoot { layers: stack.diff_ids()?, root });
        Ok(())
    }
}

/// Returns whether overlays cannot be mounted in the store. An error that another step may not have,
/// such as a full disk, is not a refusal: the step reports it.
fn is_overlay_refused(store: &Store) -> bool {
    let trial = || {
        let work = store.work_directory().ok()?;
        let [lower, upper, scratch] = ["empty", "fs", "work"].map(|name| work.directory(name).ok());
        let (lower, upper, scratch) = (lower?, upper?, scratch?);
        let mounted = Rootfs::overlay(&[lower.as_fd()], upper.as_fd(), scratch.as_fd());
        drop(crate::pathio::remove_dir_all(work.path()));
        mounted.err()
    };
    let Some(SandboxError::Overlay { source, .. }) = trial() else { return false };
    matches!(
        Errno::from_io_error(&source),
        Some(
            Errno::INVAL
                | Errno::NODEV
                | Errno::NOTSUP
                | Errno::NOSYS
                | Errno::LOOP
                | Errno::PERM
                | Errno::ACCESS
                | Errno::ROFS
                | Errno::XDEV
        )
    )
}
