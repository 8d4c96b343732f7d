//! What the mounts of a RUN show: looked up for the key, written out when the step runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use crate::diag::{Diagnostic, Span, codes};
use crate::pathio::Context as _;
use crate::plan::{
    CopyFrom, CopyOperation, MountAccess, PlannedSource, RunMountKind, RunOperation,
};
use crate::store::{LowerDirectory, WorkDirectory};
use crate::tree::{Meta, TreePath};

use super::BuildError;
use super::copy::{self, Sources};
use super::driver::Run;

type Result<T> = std::result::Result<T, BuildError>;

/// The name of a single file in the directory that is made for it.
pub(super) const FILE_NAME: &str = "file";

/// Files that a mount shows, found but not made ready.
#[derive(Debug)]
pub(super) struct Selected {
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
pub(super) struct Inputs {
    selected: Vec<Option<Selected>>,
}

impl Inputs {
    /// Looks the sources up; what is in the context is hashed here.
    pub(super) fn find(run: &Run<'_>, operation: &RunOperation) -> Result<Self> {
        let selected = operation.mounts.iter().map(|mount| match &mount.kind {
            RunMountKind::Bind { from, source }
            | RunMountKind::Cache { from: Some(from), source, .. } => {
                Selected::find(run, from, source, mount.span).map(Some)
            }
            RunMountKind::Cache { from: None, .. }
            | RunMountKind::Tmpfs { .. }
            | RunMountKind::Secret { .. }
            | RunMountKind::Ssh { .. } => Ok(None),
        });
        Ok(Self { selected: selected.collect::<Result<_>>()? })
    }

    /// What mount number `at` shows.
    pub(super) fn get(&self, at: usize) -> Option<&Selected> {
        self.selected.get(at).and_then(Option::as_ref)
    }

    /// What the key of the RUN says of them.
    pub(super) fn digests(&self) -> Vec<Option<String>> {
        let digest = |selected: &Option<Selected>| selected.as_ref().map(|s| s.digest.clone());
        self.selected.iter().map(digest).collect()
    }
}

impl Selected {
    fn find(run: &Run<'_>, from: &CopyFrom, source: &str, span: Span) -> Result<Self> {
        let mut operation = operation(from, copy::escaped(source), span);
        let sources = copy::sources(run, &operation, span)?;
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
            let text = copy::escaped(&String::from_utf8_lossy(resolved.as_bytes()));
            operation.parts = vec![PlannedSource::Path { text, span }];
        }
        if !is_directory {
            operation.destination = format!("/{FILE_NAME}");
        }
        let files = sources.digest(run, &operation, span)?;
        let kind = if is_directory { "directory" } else { "file" };
        let digest = format!("{kind} {:o} {}:{} {files:?}", meta.mode, meta.uid, meta.gid);
        Ok(Self { operation, sources, path: resolved, is_directory, meta, digest })
    }

    /// Where they come from.
    pub(super) const fn from(&self) -> &CopyFrom {
        &self.operation.from
    }

    /// Whether the source is a directory, and no file.
    pub(super) const fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Where they are in what they come from, links followed.
    pub(super) const fn path(&self) -> &TreePath {
        &self.path
    }

    /// What identifies the files.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// Writes the files into the directory `fs` of a new work directory.
    pub(super) fn copy_out(&self, run: &Run<'_>, span: Span) -> Result<WorkDirectory> {
        let layer = self.sources.plain_layer(run, &self.operation, span)?;
        let store = run.services.store;
        let work =
            self.sources.with_contents(run, |open| store.directory_from_entries(&layer, open));
        work.map_err(|error| BuildError::from(error).at(span))
    }

    /// Mode and owner of a source that is a directory.
    pub(super) fn directory_access(&self) -> Option<MountAccess> {
        let Meta { mode, uid, gid, .. } = self.meta;
        self.is_directory.then_some(MountAccess { mode, uid, gid })
    }
}

/// A mount's source as a COPY into an empty root.
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

/// A directory of the files, and the work directory that it lies in.
pub(super) type ContextDirectory = Arc<(WorkDirectory, LowerDirectory)>;

/// Parts of the context that were written to directories for mounts of this build.
#[derive(Debug, Default)]
pub(super) struct ContextDirectories {
    /// By digest. Held while a directory is written: another step may want the same.
    directories: Mutex<BTreeMap<String, ContextDirectory>>,
}

impl ContextDirectories {
    pub(super) fn get(
        &self,
        run: &Run<'_>,
        selected: &Selected,
        span: Span,
    ) -> Result<ContextDirectory> {
        // An entry is whole once it is there: a panic while one is made leaves none.
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = directories.get(selected.digest()) {
            return Ok(Arc::clone(known));
        }
        let work = selected.copy_out(run, span)?;
        let path = work.path().join("fs");
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(&path, flags, Mode::empty()).context("open directory", &path)?;
        let directory = Arc::new(directory);
        let made = Arc::new((work, directory));
        directories.insert(selected.digest().to_owned(), Arc::clone(&made));
        Ok(made)
    }
}
