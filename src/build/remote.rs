//! Sources of ADD that are fetched: what they are now, for the key; and their files, for the layer.

use std::collections::BTreeMap;
use std::fs::File as OsFile;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use crate::diag::{Diagnostic, Span, codes};
use crate::oci::Digest;
use crate::pathio::PathError;
use crate::plan::{Remote, RemotePart};
use crate::store::DownloadRecord;
use crate::tree::{ContentHash, CopyInput, File, FileOrigin, Meta, TreePath};

use super::download::{self, DownloadError};
use super::driver::{Run, Steps};
use super::{BuildError, error};

type Result<T> = std::result::Result<T, BuildError>;

/// Content is hashed in pieces of this size.
const BUFFER_BYTES: usize = 128 * 1024;

/// What this build has fetched or asked for: once each, so that all steps see the same.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    downloads: Once<String, DownloadRecord>,
}

/// Values that are made once a key, others waiting meanwhile.
#[derive(Debug)]
pub(super) struct Once<K, V>(Mutex<BTreeMap<K, Arc<Mutex<Option<V>>>>>);

impl<K, V> Default for Once<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, V: Clone> Once<K, V> {
    /// The value for `key`; an error is not kept.
    pub(super) fn get<E>(
        &self,
        key: K,
        make: impl FnOnce() -> std::result::Result<V, E>,
    ) -> std::result::Result<V, E> {
        // A panic elsewhere leaves both the map and the slots as good as they were.
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = Arc::clone(slots.entry(key).or_default());
        drop(slots);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*slot {
            return Ok(value.clone());
        }
        let value = make()?;
        *slot = Some(value.clone());
        Ok(value)
    }
}

/// One fetched source of a step.
#[derive(Debug)]
pub(super) struct Found {
    identity: Identity,
    material: Option<Material>,
}

/// What the source is now.
#[derive(Debug)]
enum Identity {
    /// A file with this digest.
    Download(Digest),
}

/// The source's files.
#[derive(Debug)]
enum Material {
    /// One file, a blob of the store.
    File { name: String, meta: Meta, file: File, blob: Digest, folder: u32 },
}

/// Finds out what a source is now; the network is used only if that is not known for certain.
pub(super) fn find(run: &Run<'_>, part: &RemotePart) -> Result<Found> {
    let identity = match (&part.source, part.checksum) {
        (Remote::Url(_), Some(checksum)) => Identity::Download(checksum),
        (Remote::Url(url), None) => {
            let downloads = &run.remotes.downloads;
            let record = downloads.get(url.url.clone(), || download::download(run, &url.url));
            Identity::Download(record.map_err(|error| download_error(&error, part.span))?.blob)
        }
        (Remote::Git(_), _) => {
            let message = "ADD of a git repository is not supported yet";
            return Err(Diagnostic::error(codes::NOT_SUPPORTED, part.span, message).into());
        }
    };
    Ok(Found { identity, material: None })
}

impl Found {
    /// What the key says of the source's content.
    pub(super) fn name(&self) -> String {
        match &self.identity {
            Identity::Download(digest) => digest.to_string(),
        }
    }

    /// Gets the files.
    pub(super) fn fetch(&mut self, run: &Run<'_>, part: &RemotePart) -> Result<()> {
        let material = match (&self.identity, &part.source) {
            (Identity::Download(digest), Remote::Url(url)) => {
                let done = download::download_exactly(run, &url.url, *digest);
                let record = done.map_err(|error| download_error(&error, part.span))?;
                let folder = run.next_folder();
                let content = content_hash(run, record.blob)?;
                let origin = FileOrigin::Folder { folder, path: TreePath::root() };
                let file = File { size: record.n_bytes, content, origin };
                let meta = Meta::root(0o600, download::modified_s(&record));
                Material::File { name: url.name.clone(), meta, file, blob: record.blob, folder }
            }
            (Identity::Download(_), Remote::Git(_)) => unreachable!("a repository is no file"),
        };
        self.material = Some(material);
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
        }
    }

    /// The file, if it is one, and its name.
    pub(super) fn file(&self) -> Option<(&File, &str)> {
        match self.material.as_ref()? {
            Material::File { name, file, .. } => Some((file, name)),
        }
    }

    /// Opens a file of this source; `None` when the folder is another's.
    pub(super) fn open(
        &self,
        run: &Run<'_>,
        wanted: u32,
        _path: &TreePath,
    ) -> Option<std::result::Result<OsFile, PathError>> {
        match self.material.as_ref()? {
            Material::File { folder, blob, .. } if *folder == wanted => {
                Some(run.services.store.open_blob(*blob))
            }
            Material::File { .. } => None,
        }
    }
}

fn content_hash(run: &Run<'_>, blob: Digest) -> Result<ContentHash> {
    let mut file = run.services.store.open_blob(blob)?;
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

/// The Authorization header for a URL's host, from the build's secrets.
pub(super) fn http_authorization(shared: &Steps<'_>, url: &str) -> Option<String> {
    let host = host_of(url);
    let (bare, _port) = host.rsplit_once(':').unwrap_or((host, ""));
    [host, bare].iter().find_map(|host| {
        let header = secret(shared, &format!("HTTP_AUTH_HEADER_{host}"));
        header.or_else(|| {
            secret(shared, &format!("HTTP_AUTH_TOKEN_{host}"))
                .map(|token| format!("Bearer {token}"))
        })
    })
}

/// Host and port of a URL.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// A secret that the caller gave the build, as text.
const fn secret(_shared: &Steps<'_>, _name: &str) -> Option<String> {
    // The build has no secrets yet.
    None
}

fn download_error(error: &DownloadError, span: Span) -> BuildError {
    let message = error::chain(error);
    let diagnostic = match error {
        DownloadError::Checksum { .. } => Diagnostic::error(codes::WRONG_CHECKSUM, span, message)
            .help("if the new content is right, put its digest into --checksum"),
        DownloadError::Fetch { .. } | DownloadError::Store(_) => {
            Diagnostic::error(codes::FETCH_FAILED, span, message)
        }
    };
    diagnostic.into()
}
