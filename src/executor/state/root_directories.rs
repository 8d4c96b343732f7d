//! Directories in which steps of RUN make their changes, where overlays cannot be mounted. A directory
//! serves one step after the other.

use std::os::fd::AsFd as _;
use std::sync::{Mutex, OnceLock};

use rustix::io::Errno;

use crate::diag::Span;
use crate::oci::DiffId;
use crate::pool;
use crate::sandbox::{self, Isolation, Rootfs, SandboxError};
use crate::store::{RootDirectory, Store};

use super::BuildState;
use crate::executor::stack::Stack;
use crate::executor::{BuildError, Failure, Outcome};

type Result<T> = std::result::Result<T, Failure>;

/// Maximum number of directories that wait for a step. Each takes the space of a whole image.
const MAX_KEPT: usize = 4;

/// The root directories that no step uses at the moment.
#[derive(Debug, Default)]
pub(in crate::executor) struct RootDirectories {
    /// True if steps run in such directories, and not in overlays.
    are_used: OnceLock<bool>,
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
    /// Returns whether steps of RUN change a directory in place, because overlays cannot be mounted
    /// in the store. Decided once for a build, by trying.
    pub(in crate::executor) fn runs_in_place(&self) -> bool {
        *self.roots.are_used.get_or_init(|| {
            let runs_in_place = sandbox::isolation() != Some(Isolation::Namespace)
                || is_overlay_refused(self.services.store);
            tracing::debug!(runs_in_place, "steps");
            runs_in_place
        })
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
