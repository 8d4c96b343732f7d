//! Sources of the mounts of a RUN: selected for the key, written to disk when the step runs.

use crate::diag::{Diagnostic, Span, codes};
use crate::plan::{
    CopyFrom, CopyOperation, MountAccess, PlannedSource, RunMountKind, RunOperation,
};
use crate::sandbox::FileAccess;
use crate::store::WorkDirectory;
use crate::tree::{LayerEntries as _, LayerItem, Meta, TreePath};

use crate::executor::BuildError;
use crate::executor::copy::sources::{self, CopySources};
use crate::executor::state::BuildState;

type Result<T> = std::result::Result<T, BuildError>;

/// Name of a single file in the directory that is made for it.
pub(in crate::executor) const FILE_NAME: &str = "file";

/// The files of a mount, selected but not written to disk.
#[derive(Debug)]
pub(in crate::executor) struct SelectedFiles {
    operation: CopyOperation,
    sources: CopySources,
    /// Path of the source, links resolved.
    path: TreePath,
    is_directory: bool,
    meta: Meta,
    digest: String,
}

/// The sources of all mounts of one RUN, in order; `None` for mounts without files of the build.
#[derive(Debug)]
pub(in crate::executor) struct MountInputs {
    selected: Vec<Option<SelectedFiles>>,
}

impl MountInputs {
    /// Selects the sources. Files of the context are hashed here.
    pub(in crate::executor) fn find(
        state: &BuildState<'_>,
        operation: &RunOperation,
    ) -> Result<Self> {
        let selected = operation.mounts.iter().map(|mount| match &mount.kind {
            RunMountKind::Bind { from, source }
            | RunMountKind::Cache { from: Some(from), source, .. } => {
                SelectedFiles::find(state, from, source, mount.span).map(Some)
            }
            RunMountKind::Cache { from: None, .. }
            | RunMountKind::Host(_)
            | RunMountKind::Tmpfs { .. }
            | RunMountKind::Secret { .. }
            | RunMountKind::Ssh { .. } => Ok(None),
        });
        Ok(Self { selected: selected.collect::<Result<_>>()? })
    }

    /// Returns the source of mount number `at`.
    pub(in crate::executor) fn get(&self, at: usize) -> Option<&SelectedFiles> {
        self.selected.get(at).and_then(Option::as_ref)
    }

    /// Returns the digests of the sources for the key of the RUN.
    pub(in crate::executor) fn digests(&self) -> Vec<Option<String>> {
        let digest = |selected: &Option<SelectedFiles>| selected.as_ref().map(|s| s.digest.clone());
        self.selected.iter().map(digest).collect()
    }
}

impl SelectedFiles {
    fn find(state: &BuildState<'_>, from: &CopyFrom, source: &str, span: Span) -> Result<Self> {
        let mut operation = operation(from, sources::escaped(source), span);
        let sources = sources::select(state, &operation, span)?;
        let resolved = sources.tree().resolve(source.as_bytes()).map_err(|error| {
            let message = format!("cannot mount {source}: {error}");
            Diagnostic::error(codes::SOURCE_NOT_FOUND, span, message)
        })?;
        let (is_directory, meta) = match sources.tree().dir(&resolved) {
            Some(dir) => (true, dir.meta.clone()),
            None => {
                let node = sources.tree().get(&resolved);
                (false, node.map_or_else(Meta::default, |node| node.meta().clone()))
            }
        };
        if sources.tree().get(&resolved).is_some() {
            let text = sources::escaped(&String::from_utf8_lossy(resolved.as_bytes()));
            operation.parts = vec![PlannedSource::Path { text, span }];
        }
        if !is_directory {
            operation.destination = format!("/{FILE_NAME}");
        }
        let files = sources.digest(state, &operation, span)?;
        let kind = if is_directory { "directory" } else { "file" };
        let digest = format!("{kind} {:o} {}:{} {files:?}", meta.mode, meta.uid, meta.gid);
        Ok(Self { operation, sources, path: resolved, is_directory, meta, digest })
    }

    /// Returns the stage, image or context of the files.
    pub(in crate::executor) const fn from(&self) -> &CopyFrom {
        &self.operation.from
    }

    /// Returns whether the source is a directory.
    pub(in crate::executor) const fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Returns the path of the source in its stage, image or context, links resolved.
    pub(in crate::executor) const fn path(&self) -> &TreePath {
        &self.path
    }

    /// Returns the digest of the files.
    pub(in crate::executor) fn digest(&self) -> &str {
        &self.digest
    }

    /// Writes the files into the directory `fs` of a new work directory.
    pub(in crate::executor) fn copy_out(
        &self,
        state: &BuildState<'_>,
        span: Span,
    ) -> Result<WorkDirectory> {
        let layer = self.sources.plain_layer(state, &self.operation, span)?;
        let store = state.services.store;
        let work =
            self.sources.with_contents(state, |open| store.directory_from_entries(&layer, open));
        work.map_err(|error| BuildError::from(error).at(span))
    }

    /// Returns the files whose owners or permissions differ from what an ordinary user's disk holds.
    pub(in crate::executor) fn special_accesses(
        &self,
        state: &BuildState<'_>,
        span: Span,
    ) -> Result<Vec<(TreePath, FileAccess)>> {
        let layer = self.sources.plain_layer(state, &self.operation, span)?;
        let special = layer.stream().filter_map(|entry| match &entry.item {
            LayerItem::Node(Meta { uid, gid, mode, .. }, _) => {
                let is_special = (*uid, *gid) != (0, 0) || mode & 0o7600 != 0o600;
                let access = FileAccess { uid: *uid, gid: *gid, mode: *mode };
                is_special.then(|| (entry.path.clone(), access))
            }
            LayerItem::HardLink(_) | LayerItem::Whiteout | LayerItem::Opaque => None,
        });
        Ok(special.collect())
    }

    /// Returns mode and owner of a source that is a directory.
    pub(in crate::executor) fn directory_access(&self) -> Option<MountAccess> {
        let Meta { mode, uid, gid, .. } = self.meta;
        self.is_directory.then_some(MountAccess { mode, uid, gid })
    }
}

/// Returns a mount's source as a COPY into an empty root.
fn operation(from: &CopyFrom, text: String, span: Span) -> CopyOperation {
    CopyOperation {
        from: from.clone(),
        parts: vec![PlannedSource::Path { text, span }],
        destination: "/".to_owned(),
        workdir: "/".to_owned(),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        unpack: false,
    }
}
