//! What the mounts of a RUN show: looked up for the key, written out when the step runs.

use crate::diag::{Diagnostic, Span, codes};
use crate::plan::{Access, CopyFrom, CopyOperation, CopyPart, RunMountKind, RunOperation};
use crate::store::WorkDirectory;
use crate::tree::{Meta, TreePath};

use crate::executor::BuildError;
use crate::executor::copy::sources::{self, Sources};
use crate::executor::state::BuildState;

type Result<T> = std::result::Result<T, BuildError>;

/// The name of a single file in the directory that is made for it.
pub(in crate::executor) const FILE_NAME: &str = "file";

/// Files that a mount shows, found but not made ready.
#[derive(Debug)]
pub(in crate::executor) struct Selected {
    operation: CopyOperation,
    sources: Sources,
    /// What the source is, links followed.
    path: TreePath,
    is_directory: bool,
    meta: Meta,
    digest: String,
}

/// What the mounts of one RUN show, in order; nothing for those without files of the build.
#[derive(Debug)]
pub(in crate::executor) struct Inputs {
    selected: Vec<Option<Selected>>,
}

impl Inputs {
    /// Looks the sources up; what is in the context is hashed here.
    pub(in crate::executor) fn find(
        state: &BuildState<'_>,
        operation: &RunOperation,
    ) -> Result<Self> {
        let selected = operation.mounts.iter().map(|mount| match &mount.kind {
            RunMountKind::Bind { from, source }
            | RunMountKind::Cache { from: Some(from), source, .. } => {
                Selected::find(state, from, source, mount.span).map(Some)
            }
            RunMountKind::Cache { from: None, .. }
            | RunMountKind::Tmpfs { .. }
            | RunMountKind::Secret { .. }
            | RunMountKind::Ssh { .. } => Ok(None),
        });
        Ok(Self { selected: selected.collect::<Result<_>>()? })
    }

    /// What mount number `at` shows.
    pub(in crate::executor) fn get(&self, at: usize) -> Option<&Selected> {
        self.selected.get(at).and_then(Option::as_ref)
    }

    /// What the key of the RUN says of them.
    pub(in crate::executor) fn digests(&self) -> Vec<Option<String>> {
        let digest = |selected: &Option<Selected>| selected.as_ref().map(|s| s.digest.clone());
        self.selected.iter().map(digest).collect()
    }
}

impl Selected {
    fn find(state: &BuildState<'_>, from: &CopyFrom, source: &str, span: Span) -> Result<Self> {
        let mut operation = operation(from, sources::escaped(source), span);
        let sources = sources::sources(state, &operation, span)?;
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
            operation.parts = vec![CopyPart::Path { text, span }];
        }
        if !is_directory {
            operation.destination = format!("/{FILE_NAME}");
        }
        let files = sources.digest(state, &operation, span)?;
        let kind = if is_directory { "directory" } else { "file" };
        let digest = format!("{kind} {:o} {}:{} {files:?}", meta.mode, meta.uid, meta.gid);
        Ok(Self { operation, sources, path: resolved, is_directory, meta, digest })
    }

    /// Where they come from.
    pub(in crate::executor) const fn from(&self) -> &CopyFrom {
        &self.operation.from
    }

    /// Whether the source is a directory, and no file.
    pub(in crate::executor) const fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Where they are in what they come from, links followed.
    pub(in crate::executor) const fn path(&self) -> &TreePath {
        &self.path
    }

    /// What identifies the files.
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

    /// Mode and owner of a source that is a directory.
    pub(in crate::executor) fn directory_access(&self) -> Option<Access> {
        let Meta { mode, uid, gid, .. } = self.meta;
        self.is_directory.then_some(Access { mode, uid, gid })
    }
}

/// A mount's source as a COPY into an empty root.
fn operation(from: &CopyFrom, text: String, span: Span) -> CopyOperation {
    CopyOperation {
        from: from.clone(),
        parts: vec![CopyPart::Path { text, span }],
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
