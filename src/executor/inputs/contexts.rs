//! Contexts that are fetched, or read from standard input.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::{self, ArchiveBounds};
use crate::pathio::{self, Context as _, PathError, holes};
use crate::plan::{GitSource, Remote, redacted};
use crate::store::unpack::{self, UnpackOptions, Whiteouts};
use crate::store::{Store, WorkDirectory};
use crate::tree::{FileOrigin, Tree, TreePath};

use crate::executor::{DownloadError, Failure, FetchError, Services};
use crate::limits::MAX_DOWNLOAD_BYTES;
use crate::registry::{Bucket, BucketOptions, Download, RegistryError};

use super::fetched::{Checkout, FetchedInputs};

type Result<T> = std::result::Result<T, FetchError>;

/// Number of the build context among the directories that files may lie in.
pub(in crate::executor) const CONTEXT_DIRECTORY: u32 = 0;

/// Name of the only file of a context that is not an archive, as BuildKit has it.
const SINGLE_FILE: &str = "context";
/// Size of the first block of a tar, which identifies it.
const SNIFF_BYTES: u64 = 512;

/// A fetched context, on disk as long as this value lives.
#[derive(Debug)]
pub struct FetchedContext {
    path: PathBuf,
    single_file: bool,
    commit_s: Option<i64>,
    /// The archive's listing.
    tree: Option<Tree>,
    _files: KeptFiles,
}

/// Keeps the files on disk.
#[derive(Debug)]
enum KeptFiles {
    Unpacked { _work: WorkDirectory },
    Repository { _checkout: Arc<Checkout> },
}

impl FetchedContext {
    /// Returns the directory of its files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of its only file, if it was not an archive.
    #[must_use]
    pub fn single_file(&self) -> Option<&'static str> {
        self.single_file.then_some(SINGLE_FILE)
    }

    /// Returns its files with their owners, if it was an archive.
    #[must_use]
    pub fn tree(&self) -> Option<Tree> {
        self.tree.clone()
    }

    /// Returns the listing of the archive that the files were unpacked from.
    pub(super) const fn listed_files(&self) -> Option<&Tree> {
        self.tree.as_ref()
    }

    /// Makes `directory` of an archive the whole context. Returns false if it is not a directory there; links
    /// are not followed.
    #[must_use]
    pub fn enter(&mut self, directory: &str) -> bool {
        let below = TreePath::clean(directory.as_bytes());
        if TreePath::climbs(directory.as_bytes()) {
            return false;
        }
        let is_there = self.tree.as_ref().is_some_and(|tree| tree.dir(&below).is_some());
        if is_there && !below.is_root() {
            self.path = self.path.join(below.as_path());
            // The listing has other paths. Its owners are those of the sender, and become root's.
            self.tree = None;
        }
        is_there
    }

    /// Returns the time of the commit, in seconds since 1970.
    #[must_use]
    pub const fn commit_s(&self) -> Option<i64> {
        self.commit_s
    }
}

/// Fetches a context.
///
/// # Errors
/// [`BuildError::Fetch`](crate::executor::BuildError::Fetch), or an error of the store or the lock
/// file.
pub fn fetch_context(
    services: &Services<'_>,
    source: &Remote,
    now_s: i64,
) -> std::result::Result<FetchedContext, Failure> {
    let silent = Services { events: &|_event| {}, ..*services };
    let fetched = FetchedInputs::default();
    let context = fetch(&silent, &fetched, source, (CONTEXT_DIRECTORY, now_s));
    context.map_err(|error| Failure::new(error.at(None)))
}

/// Reads a context from a stream: a tar in any compression, or else a single file.
///
/// # Errors
/// [`BuildError::Fetch`](crate::executor::BuildError::Fetch) for an invalid archive, or an error of
/// the store.
pub fn context_of_stream(
    services: &Services<'_>,
    stream: &mut dyn Read,
    shown: &str,
) -> std::result::Result<FetchedContext, Failure> {
    let mut keep = || -> Result<FetchedContext> {
        let work = services.store.work_directory()?;
        let path = work.path().join("stream");
        let mut file = pathio::create(&path)?;
        io::copy(stream, &mut file).context("read", Path::new(shown))?;
        unpack_file(services.store, &|| pathio::open(&path), shown, CONTEXT_DIRECTORY)
    };
    keep().map_err(|error| Failure::new(error.at(None)))
}

/// Reads a context from an object of a bucket: a tar in any compression, or else a single file.
///
/// # Errors
/// [`BuildError::Fetch`](crate::executor::BuildError::Fetch) if it cannot be downloaded, or is not a valid
/// archive; an error of the store.
pub fn context_of_object(
    services: &Services<'_>,
    bucket: &BucketOptions,
    key: &str,
) -> std::result::Result<FetchedContext, Failure> {
    let shown = format!("s3://{}/{key}", bucket.name);
    let failed = |source: RegistryError| {
        let (shown, source) = (shown.clone(), Box::new(source));
        FetchError::Download(DownloadError::Fetch { shown, source })
    };
    let fetch = || -> Result<FetchedContext> {
        let url = Bucket::new(bucket).and_then(|bucket| bucket.download_address(key));
        let url = url.map_err(failed)?;
        let work = services.store.work_directory()?;
        let path = work.path().join("object");
        let object = Download {
            url: &url,
            shown: &shown,
            authorization: None,
            etag: None,
            max_bytes: MAX_DOWNLOAD_BYTES,
        };
        let mut create = |_length| pathio::create(&path).map_err(io::Error::other);
        let is_wanted = || !services.cancel.is_set();
        object.run::<File>(services.registry, &mut create, &is_wanted).map_err(failed)?;
        unpack_file(services.store, &|| pathio::open(&path), &shown, CONTEXT_DIRECTORY)
    };
    fetch().map_err(|error| Failure::new(error.at(None)))
}

/// Fetches a context; `number` identifies the directory of its files in the build.
pub(super) fn fetch(
    services: &Services<'_>,
    fetched: &FetchedInputs,
    source: &Remote,
    (number, now_s): (u32, i64),
) -> Result<FetchedContext> {
    match source {
        Remote::Git(git) => repository(services, fetched, git, now_s),
        Remote::Url(url) => {
            let record = fetched.file(services, url, None)?;
            let store = services.store;
            unpack_file(store, &|| store.open_blob(record.blob), &redacted(&url.url), number)
        }
    }
}

fn repository(
    services: &Services<'_>,
    fetched: &FetchedInputs,
    git: &GitSource,
    now_s: i64,
) -> Result<FetchedContext> {
    let checkout = fetched.checkout(services, git, now_s)?;
    let path = checkout.directory(git.subdir.as_deref())?;
    let commit_s = Some(checkout.commit_s);
    let files = KeptFiles::Repository { _checkout: checkout };
    Ok(FetchedContext { path, single_file: false, commit_s, tree: None, _files: files })
}

/// Unpacks a file if it is an archive. Otherwise it becomes the context's only file.
fn unpack_file(
    store: &Store,
    open: &dyn Fn() -> std::result::Result<File, PathError>,
    shown: &str,
    number: u32,
) -> Result<FetchedContext> {
    let work = store.work_directory()?;
    let into = work.directory("fs")?;
    let path = work.path().join("fs");
    let tar = open_tar(open()?, &store.archive_bounds()).context("read", Path::new(shown))?;
    let single_file = tar.is_none();
    let mut tree: Option<Tree> = None;
    if let Some(mut tar) = tar {
        let options = UnpackOptions {
            ownership: false,
            devices: store.may_create_devices(),
            whiteouts: Whiteouts::Keep,
            bounds: store.archive_bounds(),
        };
        let origin = |path: &TreePath, _tar_at| FileOrigin::directory(number, path.clone());
        let unpacked = unpack::unpack(&mut tar, into.as_fd(), &options, &origin);
        let unpacked = unpacked.map_err(|source| FetchError::Archive {
            shown: shown.to_owned(),
            source: Box::new(source),
        })?;
        tree.get_or_insert_default().apply(&unpacked.listing);
    } else {
        let target = path.join(SINGLE_FILE);
        holes::copy(&open()?, 0, u64::MAX, &pathio::create(&target)?).context("write", &target)?;
    }
    let files = KeptFiles::Unpacked { _work: work };
    Ok(FetchedContext { path, single_file, commit_s: None, tree, _files: files })
}

/// Returns the decompressed tar in a file; `None` if the file is not a tar.
fn open_tar(file: File, bounds: &ArchiveBounds) -> io::Result<Option<Box<dyn Read + Send>>> {
    let (_, mut decoded) = archive::decoder(Box::new(file), bounds)?;
    let mut first = Vec::new();
    // A file that cannot be decompressed is not an archive.
    if decoded.by_ref().take(SNIFF_BYTES).read_to_end(&mut first).is_err() {
        return Ok(None);
    }
    if !archive::is_tar(&first) {
        return Ok(None);
    }
    Ok(Some(Box::new(io::Cursor::new(first).chain(decoded))))
}
