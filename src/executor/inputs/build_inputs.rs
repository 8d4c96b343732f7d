//! The inputs of one build: its context, its named contexts, and what it fetched. Each is opened when a
//! step first needs it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::context::{Context, HashCache, IgnoreRules};
use crate::executor::{
    BuildError, BuildOptions, ContextFiles, ContextSource, FetchError, FetchedContext, Services,
};
use crate::pathio::PathError;
use crate::pool;
use crate::store::StoreError;
use crate::tree::Tree;

use super::contexts::{CONTEXT_DIRECTORY, fetch};
use super::fetched::{FetchedInputs, OnceMap};

type Result<T> = std::result::Result<T, FetchError>;

/// The inputs of one build.
#[derive(Debug)]
pub(in crate::executor) struct BuildInputs<'a> {
    pub(in crate::executor) services: &'a Services<'a>,
    pub(in crate::executor) options: &'a BuildOptions,
    /// Downloads and checkouts of ADD and of contexts.
    pub(in crate::executor) fetched: FetchedInputs,
    next_directory: AtomicU32,
    context: OnceLock<Context>,
    /// Locked while the files of the context that these sources can name are read.
    reading: OnceMap<Vec<String>, Arc<Mutex<()>>>,
    is_reading_ahead_ended: AtomicBool,
    named: OnceMap<String, Arc<NamedDirectory>>,
    all_named: Mutex<Vec<Arc<NamedDirectory>>>,
}

/// An opened named context.
#[derive(Debug)]
pub(in crate::executor) struct NamedDirectory {
    pub(in crate::executor) context: Context,
    number: u32,
    /// Directory whose file hashes the store keeps; `None` for a fetched context.
    directory: Option<PathBuf>,
    /// Keeps the fetched files on disk.
    fetched: Option<FetchedContext>,
}

impl NamedDirectory {
    /// Returns the files as an archive lists them, if they come from one.
    fn tree(&self) -> Option<&Tree> {
        self.fetched.as_ref().and_then(FetchedContext::listed_files)
    }

    /// Returns the part of the tree that these sources can name.
    pub(in crate::executor) fn files(
        &self,
        sources: &[&str],
    ) -> std::result::Result<Tree, PathError> {
        self.tree().map_or_else(|| self.context.tree(sources), |tree| Ok(tree.clone()))
    }

    /// Returns whether the files have owners of their own, as those of an archive do.
    pub(in crate::executor) fn has_owners(&self) -> bool {
        self.tree().is_some()
    }
}

impl<'a> BuildInputs<'a> {
    /// Returns the inputs of a build; opens and fetches nothing yet.
    pub(in crate::executor) fn new(services: &'a Services<'a>, options: &'a BuildOptions) -> Self {
        Self {
            services,
            options,
            fetched: FetchedInputs::default(),
            next_directory: AtomicU32::new(CONTEXT_DIRECTORY + 1),
            context: OnceLock::new(),
            reading: OnceMap::default(),
            is_reading_ahead_ended: AtomicBool::new(false),
            named: OnceMap::default(),
            all_named: Mutex::default(),
        }
    }

    /// Returns a new number for a directory that files may lie in.
    pub(in crate::executor) fn next_directory(&self) -> u32 {
        self.next_directory.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the build context, which is opened on first use.
    pub(in crate::executor) fn context(&self) -> std::result::Result<&Context, BuildError> {
        if let Some(context) = self.context.get() {
            return Ok(context);
        }
        let context = self.open(&self.options.context, CONTEXT_DIRECTORY);
        let context = context.map_err(|error| error.at(None))?;
        Ok(self.context.get_or_init(|| context))
    }

    /// Returns the part of the build context that these sources can name. A second thread waits for the
    /// first, and reads no file again.
    pub(in crate::executor) fn context_files(
        &self,
        sources: &[&str],
    ) -> std::result::Result<Tree, BuildError> {
        let key = sources.iter().copied().map(str::to_owned).collect();
        let lock = self.reading.get(key, || Ok::<_, BuildError>(Arc::default()))?;
        let _alone = pool::lock(&lock);
        Ok(self.context()?.tree(sources)?)
    }

    /// Ends the reading of files before a step needs them. Steps read no file afterwards.
    pub(in crate::executor) fn end_reading_ahead(&self) {
        self.is_reading_ahead_ended.store(true, Ordering::Relaxed);
        if let Some(context) = self.context.get() {
            context.stop();
        }
    }

    pub(in crate::executor) fn is_reading_ahead_ended(&self) -> bool {
        self.is_reading_ahead_ended.load(Ordering::Relaxed)
    }

    /// Returns a named context, which is opened or fetched on first use.
    pub(in crate::executor) fn named_context(&self, name: &str) -> Result<Arc<NamedDirectory>> {
        self.named.get(name.to_owned(), || {
            let opened = Arc::new(self.open_named(name)?);
            // A push that was interrupted leaves the list as it was.
            let mut all = pool::lock(&self.all_named);
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
                let context = self.open(source, number)?;
                let directory = source.lasting.then(|| source.path.clone());
                Ok(NamedDirectory { context, number, directory, fetched: None })
            }
            ContextFiles::Remote(source) => {
                let now_s = self.options.file_time_s();
                let fetched = fetch(self.services, &self.fetched, source, (number, now_s))?;
                let hashes = HashCache::none();
                let context =
                    Context::open(fetched.path(), IgnoreRules::default(), number, hashes)?
                        .with_max_file(self.services.store.archive_bounds().max_bytes);
                Ok(NamedDirectory { context, number, directory: None, fetched: Some(fetched) })
            }
        }
    }

    /// Opens a context's directory with the file hashes that the store remembers for it.
    fn open(&self, source: &ContextSource, number: u32) -> Result<Context> {
        let store = self.services.store;
        let hashes = if source.lasting {
            let now_ns = self.options.now_s.saturating_mul(1_000_000_000);
            HashCache::new(
                store.hash_caches().open(&source.path)?,
                now_ns,
                &store.spill_directory(),
            )
        } else {
            HashCache::none()
        };
        let context = Context::open(&source.path, source.ignore.clone(), number, hashes)?;
        Ok(context.with_max_file(store.archive_bounds().max_bytes))
    }

    /// Returns the opened named context whose directory has this number.
    pub(in crate::executor) fn named_directory(&self, number: u32) -> Option<Arc<NamedDirectory>> {
        let all = pool::lock(&self.all_named);
        all.iter().find(|named| named.number == number).cloned()
    }

    /// Saves the file hashes of all opened contexts for the next build.
    pub(in crate::executor) fn save_hashes(&self) -> std::result::Result<(), BuildError> {
        if let Some(context) = self.context.get() {
            self.save_hashes_of(&self.options.context.path, context)?;
        }
        let all = pool::lock(&self.all_named);
        for named in all.iter() {
            if let Some(directory) = &named.directory {
                self.save_hashes_of(directory, &named.context)?;
            }
        }
        Ok(())
    }

    /// Saves the file hashes of one context, if any is new.
    fn save_hashes_of(
        &self,
        directory: &Path,
        context: &Context,
    ) -> std::result::Result<(), StoreError> {
        let hashes = context.hashes();
        if !hashes.has_new_entries() {
            return Ok(());
        }
        self.services.store.hash_caches().replace(directory, |sink| hashes.write(sink))
    }
}
