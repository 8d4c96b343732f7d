//! Contexts that are not simply a directory: fetched ones, those of standard input, and the named ones
//! that a build opens when a step first needs them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::archive::{self, ArchiveBounds};
use crate::context::{Context, HashCache, IgnoreRules};
use crate::pathio::{self, Context as _, PathError, holes};
use crate::plan::{GitSource, Remote, redacted};
use crate::store::unpack::{self, UnpackOptions, Whiteouts};
use crate::store::{Store, StoreError, WorkDirectory};
use crate::tree::{FileOrigin, Tree, TreePath};

use super::Failure;
use super::driver::CONTEXT_DIRECTORY;
use super::fetch::{Checkout, FetchError, Fetched, Once};
use super::options::{ContextSource, Services};
use super::shared::{Shared, Steps};

type Result<T> = std::result::Result<T, FetchError>;

/// What a context that is a single file calls it, as BuildKit does.
const SINGLE_FILE: &str = "context";
/// The first block of a tar, which tells that it is one.
const SNIFF_BYTES: u64 = 512;

/// Where the files of a context are.
#[derive(Debug, Clone)]
pub enum ContextFiles {
    /// On this machine.
    Directory(ContextSource),
    /// Somewhere else; no ignore file counts there.
    Remote(Remote),
}

/// A context that was fetched, on disk for as long as this lives.
#[derive(Debug)]
pub struct FetchedContext {
    path: PathBuf,
    single_file: bool,
    commit_s: Option<i64>,
    /// The files as an archive names them.
    tree: Option<Tree>,
    _files: Files,
}

/// What has to live as long.
#[derive(Debug)]
enum Files {
    Unpacked { _work: WorkDirectory },
    Repository { _checkout: Arc<Checkout> },
}

impl FetchedContext {
    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of its only file, when it was no archive.
    #[must_use]
    pub fn single_file(&self) -> Option<&'static str> {
        self.single_file.then_some(SINGLE_FILE)
    }

    /// Its files with their owners, when it was an archive.
    #[must_use]
    pub fn tree(&self) -> Option<Tree> {
        self.tree.clone()
    }

    /// When the commit was made that it is.
    #[must_use]
    pub const fn commit_s(&self) -> Option<i64> {
        self.commit_s
    }
}

/// Fetches a context.
///
/// # Errors
/// Whatever keeps it from being there.
pub fn fetch_context(
    services: &Services<'_>,
    source: &Remote,
    now_s: i64,
) -> std::result::Result<FetchedContext, Failure> {
    let silent = Services { events: &|_event| {}, ..*services };
    let fetched = Fetched::default();
    let context = fetch(&Steps::new(&silent), &fetched, source, (CONTEXT_DIRECTORY, now_s));
    context.map_err(|error| Failure::new(error.at(None)))
}

/// Makes a context of a stream: a tar in any compression, or else a single file.
///
/// # Errors
/// Whatever keeps it from being there.
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

/// `number` is what the directory of the files is known by to the build.
fn fetch(
    steps: &Steps<'_>,
    fetched: &Fetched,
    source: &Remote,
    (number, now_s): (u32, i64),
) -> Result<FetchedContext> {
    match source {
        Remote::Git(git) => repository(steps, fetched, git, now_s),
        Remote::Url(url) => {
            let record = fetched.file(steps, url, None)?;
            let store = steps.services.store;
            unpack_file(store, &|| store.open_blob(record.blob), &redacted(&url.url), number)
        }
    }
}

fn repository(
    steps: &Steps<'_>,
    fetched: &Fetched,
    git: &GitSource,
    now_s: i64,
) -> Result<FetchedContext> {
    let checkout = fetched.checkout(steps, git, now_s)?;
    let path = checkout.directory(git.subdir.as_deref())?;
    let commit_s = Some(checkout.commit_s);
    let files = Files::Repository { _checkout: checkout };
    Ok(FetchedContext { path, single_file: false, commit_s, tree: None, _files: files })
}

/// Unpacks a file if it is an archive; else it is the context's only file.
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
            devices: !crate::sandbox::in_user_namespace(),
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
    let files = Files::Unpacked { _work: work };
    Ok(FetchedContext { path, single_file, commit_s: None, tree, _files: files })
}

/// The tar in a file, compression removed; `None` when it holds none.
fn open_tar(file: File, bounds: &ArchiveBounds) -> io::Result<Option<Box<dyn Read + Send>>> {
    let (_, mut decoded) = archive::decoder(Box::new(file), bounds)?;
    let mut first = Vec::new();
    // What cannot be decoded is no archive.
    if decoded.by_ref().take(SNIFF_BYTES).read_to_end(&mut first).is_err() {
        return Ok(None);
    }
    if !archive::is_tar(&first) {
        return Ok(None);
    }
    Ok(Some(Box::new(io::Cursor::new(first).chain(decoded))))
}

/// The named contexts that were needed so far.
#[derive(Debug, Default)]
pub(super) struct NamedDirectories {
    opened: Once<String, Arc<NamedDirectory>>,
    all: Mutex<Vec<Arc<NamedDirectory>>>,
}

/// An opened named context.
#[derive(Debug)]
pub(super) struct NamedDirectory {
    pub(super) context: Context,
    number: u32,
    /// Where its hashes are remembered.
    directory: Option<PathBuf>,
    /// What has to live as long.
    fetched: Option<FetchedContext>,
}

impl NamedDirectory {
    /// The files as an archive names them, if they come from one.
    fn tree(&self) -> Option<&Tree> {
        self.fetched.as_ref().and_then(|fetched| fetched.tree.as_ref())
    }

    /// The part that these sources can name.
    pub(super) fn files(&self, sources: &[&str]) -> std::result::Result<Tree, PathError> {
        self.tree().map_or_else(|| self.context.tree(sources), |tree| Ok(tree.clone()))
    }

    /// Whether the files have owners of their own.
    pub(super) fn has_owners(&self) -> bool {
        self.tree().is_some()
    }
}

impl Shared<'_> {
    /// The files of a named context, which are fetched when they are first needed.
    pub(super) fn named_context(&self, name: &str) -> Result<Arc<NamedDirectory>> {
        self.named.opened.get(name.to_owned(), || {
            let opened = Arc::new(self.open_named(name)?);
            // A push that was interrupted leaves the list as it was.
            let mut all = self.named.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Arc::clone(&opened));
            Ok(opened)
        })
    }

    fn open_named(&self, name: &str) -> Result<NamedDirectory> {
        let files = self.options.contexts.get(name);
        let files = files.expect("a plan names only contexts that the caller gave");
        let number = self.next_directory();
        match files {
            ContextFiles::Directory(source) => {
                let context = self.open_context(source, number)?;
                let directory = source.lasting.then(|| source.path.clone());
                Ok(NamedDirectory { context, number, directory, fetched: None })
            }
            ContextFiles::Remote(source) => {
                let fetched = fetch(self, &self.fetched, source, (number, self.file_time_s()))?;
                let memo = HashCache::none();
                let context = Context::open(fetched.path(), IgnoreRules::default(), number, memo)?
                    .with_max_file(self.services.store.archive_bounds().max_bytes);
                Ok(NamedDirectory { context, number, directory: None, fetched: Some(fetched) })
            }
        }
    }

    /// Opens a context's directory with what is remembered of its files.
    pub(super) fn open_context(&self, source: &ContextSource, number: u32) -> Result<Context> {
        let store = self.services.store;
        let memo = if source.lasting {
            let now_ns = self.options.now_s.saturating_mul(1_000_000_000);
            HashCache::new(
                store.hash_caches().open(&source.path)?,
                now_ns,
                &store.spill_directory(),
            )
        } else {
            HashCache::none()
        };
        let context = Context::open(&source.path, source.ignore.clone(), number, memo)?;
        Ok(context.with_max_file(store.archive_bounds().max_bytes))
    }

    /// The opened named context with this number among the directories that files may lie in.
    pub(super) fn named_directory(&self, number: u32) -> Option<Arc<NamedDirectory>> {
        let all = self.named.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|named| named.number == number).cloned()
    }

    /// Keeps the hashes of a context's files for the next build, if any is new.
    pub(super) fn save_memo_of(
        &self,
        directory: &Path,
        context: &Context,
    ) -> std::result::Result<(), StoreError> {
        let memo = context.hashes();
        if !memo.has_new_entries() {
            return Ok(());
        }
        self.services.store.hash_caches().replace(directory, |sink| memo.write(sink))
    }

    /// Keeps the hashes of named contexts' files for the next build.
    pub(super) fn save_named_memos(&self) -> std::result::Result<(), StoreError> {
        let all = self.named.all.lock().unwrap_or_else(PoisonError::into_inner);
        for named in all.iter() {
            if let Some(directory) = &named.directory {
                self.save_memo_of(directory, &named.context)?;
            }
        }
        Ok(())
    }
}
