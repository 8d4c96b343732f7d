//! Archives that ADD unpacks: recognized by content, and unpacked into a directory of their own.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use crate::archive;
use crate::diag::{Diagnostic, Span, codes};
use crate::plan::{CopyOperation, PlannedSource};
use crate::store::unpack::{self, UnpackOptions, Whiteouts};
use crate::store::{StoreError, WorkDirectory};
use crate::tree::{self, CopyInput, File, FileOrigin, Tree, TreePath};

use crate::executor::state::BuildState;
use crate::executor::{BuildError, chain};

use super::error::copy_error;
use super::remote::RemoteFiles;
use super::sources::{CopySources, escaped};

type Result<T> = std::result::Result<T, BuildError>;

/// Number of bytes that show whether a file is an archive: the first block of a tar.
const SNIFF_BYTES: u64 = 512;

/// One source of ADD.
#[derive(Debug)]
pub(in crate::executor) enum AddInput {
    /// A path or pattern that does not name an archive.
    Path(String),
    /// Index of an unpacked archive.
    Archive(usize),
    /// Index of a part that is a heredoc or a download.
    Part(usize),
}

/// An archive that ADD unpacked into a directory of its own.
#[derive(Debug)]
pub(in crate::executor) struct UnpackedArchive {
    pub(in crate::executor) directory: u32,
    pub(in crate::executor) work: WorkDirectory,
    pub(in crate::executor) tree: Tree,
    /// Parent directories that the archive has no entries for, sorted.
    implied: Vec<TreePath>,
}

impl UnpackedArchive {
    pub(in crate::executor) fn as_input(&self) -> CopyInput<'_> {
        CopyInput::Archive { tree: &self.tree, implied: &self.implied }
    }
}

impl CopySources {
    /// Unpacks the sources that are archives.
    pub(in crate::executor) fn unpack_archives(
        &mut self,
        state: &BuildState<'_>,
        operation: &CopyOperation,
        span: Span,
    ) -> Result<()> {
        for (at, part) in operation.parts.iter().enumerate() {
            let text = match part {
                PlannedSource::Path { text, .. } if operation.unpack => text,
                PlannedSource::Path { text, .. } => {
                    self.classified.push(AddInput::Path(text.clone()));
                    continue;
                }
                PlannedSource::Inline { .. } | PlannedSource::Remote(_) => {
                    let input = self.unpacked_part(state, at, part)?;
                    self.classified.push(input);
                    continue;
                }
            };
            let paths = tree::matched_files(&self.tree, text)
                .map_err(|error| copy_error(state, operation, span, &error))?;
            let mut archives = Vec::new();
            for path in &paths {
                let archive = match self.tree.file(path) {
                    Some(file) => self.unpack_archive(state, file, path, span)?,
                    None => None,
                };
                archives.push(archive);
            }
            if archives.iter().all(Option::is_none) {
                self.classified.push(AddInput::Path(text.clone()));
                continue;
            }
            for (archive, path) in archives.into_iter().zip(&paths) {
                let input = match archive {
                    Some(archive) => AddInput::Archive(self.keep(archive)),
                    None => AddInput::Path(escaped(&path.to_string())),
                };
                self.classified.push(input);
            }
        }
        Ok(())
    }

    /// Unpacks a part if it is a download that is to be unpacked.
    fn unpacked_part(
        &mut self,
        state: &BuildState<'_>,
        at: usize,
        part: &PlannedSource,
    ) -> Result<AddInput> {
        let PlannedSource::Remote(remote) = part else { return Ok(AddInput::Part(at)) };
        let file = self.remotes.get(&at).and_then(RemoteFiles::file).filter(|_| remote.unpack);
        let Some((file, name)) = file else { return Ok(AddInput::Part(at)) };
        let archive =
            self.unpack_archive(state, file, &TreePath::clean(name.as_bytes()), remote.span)?;
        Ok(archive.map_or(AddInput::Part(at), |archive| AddInput::Archive(self.keep(archive))))
    }

    fn keep(&mut self, archive: UnpackedArchive) -> usize {
        self.archives.push(archive);
        self.archives.len() - 1
    }

    fn unpack_archive(
        &self,
        state: &BuildState<'_>,
        file: &File,
        path: &TreePath,
        span: Span,
    ) -> Result<Option<UnpackedArchive>> {
        let open = || self.open(state, file, path);
        let name = path.to_string();
        let bad = |source: &dyn std::error::Error| {
            let message = format!("cannot unpack the archive {name}: {}", chain(source));
            BuildError::from(Diagnostic::error(codes::BAD_ARCHIVE, span, message))
        };
        let bounds = state.services.store.archive_bounds();
        let (compression, mut decoded) =
            match archive::decoder(open().map_err(|error| bad(&error))?, &bounds) {
                Ok(found) => found,
                Err(error) => return Err(bad(&error)),
            };
        let mut first = Vec::new();
        let sniffed = decoded.by_ref().take(SNIFF_BYTES).read_to_end(&mut first);
        if compression == archive::Compression::None && sniffed.is_err() {
            return Ok(None);
        }
        if !archive::is_tar(&first) {
            return Ok(None);
        }
        let store = state.services.store;
        let work = store.work_directory()?;
        let into = work.directory("fs").map_err(StoreError::from)?;
        let options = UnpackOptions {
            ownership: store.may_set_owners(),
            devices: store.may_create_devices(),
            whiteouts: Whiteouts::Keep,
            bounds,
        };
        let directory = state.inputs.next_directory();
        let origin = |path: &TreePath, _tar_at| FileOrigin::directory(directory, path.clone());
        let mut whole = io::Cursor::new(first).chain(decoded);
        let unpacked = unpack::unpack(&mut whole, into.as_fd(), &options, &origin)
            .map_err(|error| bad(&error))?;
        let mut tree = Tree::default();
        tree.apply(&unpacked.listing);
        Ok(Some(UnpackedArchive { directory, work, tree, implied: unpacked.implied }))
    }
}
