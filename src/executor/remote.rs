//! Sources of ADD that are fetched: what they are now, for the key; and their files, for the layer.

use std::fs::File as OsFile;
use std::io::Read as _;
use std::sync::Arc;

use crate::context::{Context, HashCache, IgnoreRules};
use crate::oci::Digest;
use crate::pathio::PathError;
use crate::plan::{GitSource, Remote, RemoteCopySource, UrlSource};
use crate::tree::{ContentHash, CopyInput, File, FileOrigin, Meta, Tree, TreePath};

use super::BuildError;
use super::download;
use super::driver::Run;
use super::fetch::{Checkout, FetchError};

type Result<T> = std::result::Result<T, FetchError>;

/// Content is hashed in pieces of this size.
const BUFFER_BYTES: usize = 128 * 1024;

/// One fetched source of a step.
#[derive(Debug)]
pub(super) struct Found {
    /// What the source is now: the digest of a file, or a commit.
    name: String,
    material: Option<Material>,
}

/// The source's files.
#[derive(Debug)]
enum Material {
    /// One file, a blob of the store.
    File { name: String, meta: Meta, file: File, blob: Digest, directory: u32 },
    /// A directory of a checkout, which has to live as long.
    Directory { tree: Tree, context: Box<Context>, directory: u32, _checkout: Arc<Checkout> },
}

/// Finds out what a source is now; the network is used only if neither the Dockerfile nor the lock
/// file says it.
pub(super) fn find(
    run: &Run<'_>,
    part: &RemoteCopySource,
) -> std::result::Result<Found, BuildError> {
    let name = match &part.source {
        Remote::Url(url) => file_name(run, url, part.checksum),
        Remote::Git(git) => run.fetched.commit(run, git),
    };
    let name = name.map_err(|error| error.at(Some(part.span)))?;
    Ok(Found { name, material: None })
}

/// The digest of the file behind a URL.
fn file_name(run: &Run<'_>, url: &UrlSource, checksum: Option<Digest>) -> Result<String> {
    let certain = run.fetched.certain_digest(run, url, checksum)?;
    let digest = match certain {
        Some((digest, _)) => digest,
        None => run.fetched.file(run, url, None)?.blob,
    };
    Ok(digest.to_string())
}

impl Found {
    /// What the key says of the source's content.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Gets the files.
    pub(super) fn fetch(
        &mut self,
        run: &Run<'_>,
        part: &RemoteCopySource,
    ) -> std::result::Result<(), BuildError> {
        let material = match &part.source {
            Remote::Url(url) => file(run, url, part.checksum),
            Remote::Git(git) => directory(run, git),
        };
        self.material = Some(material.map_err(|error| error.at(Some(part.span)))?);
        Ok(())
    }

    /// What is copied; nothing before [`Found::fetch`].
    pub(super) fn input(&self) -> Option<CopyInput<'_>> {
        match self.material.as_ref()? {
            Material::File { name, meta, file, .. } => Some(CopyInput::File {
                name: name.as_bytes(),
                meta: meta.clone(),
                file: file.clone(),
            }),
            Material::Directory { tree, .. } => Some(CopyInput::Directory(tree)),
        }
    }

    /// The file, if it is one, and its name.
    pub(super) fn file(&self) -> Option<(&File, &str)> {
        match self.material.as_ref()? {
            Material::File { name, file, .. } => Some((file, name)),
            Material::Directory { .. } => None,
        }
    }

    /// Opens a file of this source; `None` when the directory is another's.
    pub(super) fn open(
        &self,
        run: &Run<'_>,
        wanted: u32,
        path: &TreePath,
    ) -> Option<std::result::Result<OsFile, PathError>> {
        match self.material.as_ref()? {
            Material::File { directory, blob, .. } if *directory == wanted => {
                Some(run.services.store.open_blob(*blob))
            }
            Material::Directory { directory, context, .. } if *directory == wanted => {
                Some(context.read(path))
            }
            Material::File { .. } | Material::Directory { .. } => None,
        }
    }
}

fn file(run: &Run<'_>, url: &UrlSource, checksum: Option<Digest>) -> Result<Material> {
    let record = run.fetched.file(run, url, checksum)?;
    let directory = run.next_directory();
    let content = content_hash(run, record.blob)?;
    let origin = FileOrigin::directory(directory, TreePath::root());
    let file = File { size: record.n_bytes, content, origin };
    let meta = Meta::root(0o600, download::modified_s(&record));
    Ok(Material::File { name: url.name.clone(), meta, file, blob: record.blob, directory })
}

fn directory(run: &Run<'_>, git: &GitSource) -> Result<Material> {
    let checkout = run.fetched.checkout(run, git, run.file_time_s())?;
    let path = checkout.directory(git.subdir.as_deref())?;
    let directory = run.next_directory();
    let context = Context::open(&path, IgnoreRules::default(), directory, HashCache::none())?
        .with_max_file(run.services.store.archive_bounds().max_bytes);
    let tree = context.tree(&["."])?;
    Ok(Material::Directory { tree, context: Box::new(context), directory, _checkout: checkout })
}

fn content_hash(run: &Run<'_>, blob: Digest) -> Result<ContentHash> {
    let mut file = run.services.store.open_checked_blob(blob)?;
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
