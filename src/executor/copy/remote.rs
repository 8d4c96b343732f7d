//! Remote sources of ADD: their current identity for the key, and their files for the layer.

use std::fs::File as OsFile;
use std::io::Read as _;
use std::sync::Arc;

use crate::context::{Context, HashCache, IgnoreRules};
use crate::oci::Digest;
use crate::pathio::PathError;
use crate::plan::{GitSource, Remote, RemoteCopySource, UrlSource};
use crate::tree::{ContentHash, CopyInput, File, FileOrigin, Meta, Tree, TreePath};

use crate::executor::inputs::download;
use crate::executor::inputs::fetched::Checkout;
use crate::executor::state::BuildState;
use crate::executor::{BuildError, FetchError};

type Result<T> = std::result::Result<T, FetchError>;

/// Size of the buffer for hashing.
const BUFFER_BYTES: usize = 128 * 1024;

/// A remote source of a step.
#[derive(Debug)]
pub(in crate::executor) struct RemoteFiles {
    /// Digest of the file, or the commit.
    name: String,
    files: Option<FetchedFiles>,
}

/// The fetched files of a source.
#[derive(Debug)]
enum FetchedFiles {
    /// One file, a blob of the store.
    File { name: String, meta: Meta, file: File, blob: Digest, directory: u32 },
    /// A directory of a checkout, which has to stay on disk meanwhile.
    Directory { tree: Tree, context: Box<Context>, directory: u32, _checkout: Arc<Checkout> },
}

/// Finds the current identity of a source. Uses the network only if neither the Dockerfile nor the
/// lock file has it.
pub(in crate::executor) fn find(
    state: &BuildState<'_>,
    part: &RemoteCopySource,
) -> std::result::Result<RemoteFiles, BuildError> {
    let name = match &part.source {
        Remote::Url(url) => file_digest(state, url, part.checksum),
        Remote::Git(git) => state.inputs.fetched.commit(state.services, git),
    };
    let name = name.map_err(|error| error.at(Some(part.span)))?;
    Ok(RemoteFiles { name, files: None })
}

/// Returns the digest of the file at a URL.
fn file_digest(
    state: &BuildState<'_>,
    url: &UrlSource,
    checksum: Option<Digest>,
) -> Result<String> {
    let certain = state.inputs.fetched.certain_digest(state.services, url, checksum)?;
    let digest = match certain {
        Some((digest, _)) => digest,
        None => state.inputs.fetched.file(state.services, url, None)?.blob,
    };
    Ok(digest.to_string())
}

impl RemoteFiles {
    /// Returns the source's identity for the key.
    pub(in crate::executor) fn name(&self) -> &str {
        &self.name
    }

    /// Downloads the file, or checks the repository out.
    pub(in crate::executor) fn fetch(
        &mut self,
        state: &BuildState<'_>,
        part: &RemoteCopySource,
    ) -> std::result::Result<(), BuildError> {
        let files = match &part.source {
            Remote::Url(url) => file(state, url, part.checksum),
            Remote::Git(git) => directory(state, git),
        };
        self.files = Some(files.map_err(|error| error.at(Some(part.span)))?);
        Ok(())
    }

    /// Returns the fetched files; `None` before [`RemoteFiles::fetch`].
    pub(in crate::executor) fn input(&self) -> Option<CopyInput<'_>> {
        match self.files.as_ref()? {
            FetchedFiles::File { name, meta, file, .. } => Some(CopyInput::File {
                name: name.as_bytes(),
                meta: meta.clone(),
                file: file.clone(),
            }),
            FetchedFiles::Directory { tree, .. } => Some(CopyInput::Directory(tree)),
        }
    }

    /// Returns the file and its name; `None` for a directory.
    pub(in crate::executor) fn file(&self) -> Option<(&File, &str)> {
        match self.files.as_ref()? {
            FetchedFiles::File { name, file, .. } => Some((file, name)),
            FetchedFiles::Directory { .. } => None,
        }
    }

    /// Opens a file of this source; `None` if the directory belongs to another one.
    pub(in crate::executor) fn open(
        &self,
        state: &BuildState<'_>,
        in_directory: u32,
        path: &TreePath,
    ) -> Option<std::result::Result<OsFile, PathError>> {
        match self.files.as_ref()? {
            FetchedFiles::File { directory, blob, .. } if *directory == in_directory => {
                Some(state.services.store.open_blob(*blob))
            }
            FetchedFiles::Directory { directory, context, .. } if *directory == in_directory => {
                Some(context.read(path))
            }
            FetchedFiles::File { .. } | FetchedFiles::Directory { .. } => None,
        }
    }
}

fn file(state: &BuildState<'_>, url: &UrlSource, checksum: Option<Digest>) -> Result<FetchedFiles> {
    let record = state.inputs.fetched.file(state.services, url, checksum)?;
    let directory = state.inputs.next_directory();
    let content = content_hash(state, record.blob)?;
    let origin = FileOrigin::directory(directory, TreePath::root());
    let file = File { size: record.n_bytes, content, origin };
    let meta = Meta::root(0o600, download::modified_s(&record));
    Ok(FetchedFiles::File { name: url.name.clone(), meta, file, blob: record.blob, directory })
}

fn directory(state: &BuildState<'_>, git: &GitSource) -> Result<FetchedFiles> {
    let checkout =
        state.inputs.fetched.checkout(state.services, git, state.options.file_time_s())?;
    let path = checkout.directory(git.subdir.as_deref())?;
    let directory = state.inputs.next_directory();
    let context = Context::open(&path, IgnoreRules::default(), directory, HashCache::none())?
        .with_max_file(state.services.store.archive_bounds().max_bytes);
    let tree = context.tree(&["."])?;
    Ok(FetchedFiles::Directory { tree, context: Box::new(context), directory, _checkout: checkout })
}

fn content_hash(state: &BuildState<'_>, blob: Digest) -> Result<ContentHash> {
    let mut file = state.services.store.open_checked_blob(blob)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n_read = file
            .read(&mut buffer)
            .map_err(|error| PathError::new("read", format!("the download {blob}"), error))?;
        let bytes = buffer.get(..n_read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(ContentHash::new(hasher.finalize().into()));
        }
        hasher.update(bytes);
    }
}
