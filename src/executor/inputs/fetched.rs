//! Downloads and checkouts for ADD and contexts, each at most once in a build.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::context::git::{self, CheckoutOptions, GitError, GitRequest, GitSettings, Revision};
use crate::oci::Digest;
use crate::plan::{GitSource, LockInput, LockedValue, UrlSource};
use crate::pool;
use crate::store::{DownloadRecord, WorkDirectory};

use super::authorization::git_authorization;
use super::download;
use super::git_agent::{GitAgent, git_agent};

use crate::executor::{ChecksumBy, FetchError, Outcome, Services};

type Result<T> = std::result::Result<T, FetchError>;

/// Everything that this build has fetched: once each, so that all steps use the same content.
#[derive(Debug, Default)]
pub(in crate::executor) struct FetchedInputs {
    downloads: OnceMap<String, DownloadRecord>,
    revisions: OnceMap<RevisionKey, Revision>,
    checkouts: OnceMap<CheckoutKey, Arc<Checkout>>,
}

/// Address, reference and checksum.
type RevisionKey = (String, Option<String>, Option<String>);
/// Address, commit, and whether `.git`, submodules and the commit's time are wanted.
type CheckoutKey = (String, String, [bool; 3]);

/// The files of a commit, on disk as long as this value lives.
#[derive(Debug)]
pub(in crate::executor) struct Checkout {
    work: WorkDirectory,
    /// Time of the commit, in seconds since 1970.
    pub(in crate::executor) commit_s: i64,
}

impl Checkout {
    /// Returns the directory of the checkout that is named `subdir`.
    pub(in crate::executor) fn directory(&self, subdir: Option<&str>) -> Result<PathBuf> {
        Ok(git::directory_in(&self.work.path().join("fs"), subdir)?)
    }
}

impl FetchedInputs {
    /// Returns the required digest of a file, if the Dockerfile or the lock file has one.
    pub(in crate::executor) fn certain_digest(
        &self,
        services: &Services<'_>,
        url: &UrlSource,
        own: Option<Digest>,
    ) -> Result<Option<(Digest, ChecksumBy)>> {
        let locked = services.locked;
        let input = LockInput::url(url);
        let certain = match (own, locked.required(&input)?) {
            (Some(own), _) => Some((own, ChecksumBy::Flag)),
            (None, Some(LockedValue::Digest(want))) => {
                Some((want, ChecksumBy::LockFile(locked.file())))
            }
            (None, Some(LockedValue::Commit(_)) | None) => None,
        };
        if let Some((digest, _)) = &certain {
            locked.record(input, LockedValue::Digest(*digest))?;
        }
        Ok(certain)
    }

    /// Returns the file at a URL: with the required digest, or else its current content.
    pub(in crate::executor) fn file(
        &self,
        services: &Services<'_>,
        url: &UrlSource,
        own: Option<Digest>,
    ) -> Result<DownloadRecord> {
        if let Some((want, by)) = self.certain_digest(services, url, own)? {
            return Ok(download::download_exactly(services, &url.url, want, by)?);
        }
        let made = self.downloads.get(url.url.clone(), || download::download(services, &url.url));
        let record = made?;
        let digest = LockedValue::Digest(record.blob);
        services.locked.record(LockInput::url(url), digest)?;
        Ok(record)
    }

    /// Resolves a reference to a commit: to the required one, or else to the current one.
    fn revision(&self, services: &Services<'_>, source: &GitSource) -> Result<Revision> {
        let shown = source.shown();
        let is_certain = git::certain_commit(&request(source, &shown)).is_some();
        if services.registry.is_offline() && !is_certain {
            return Err(FetchError::Offline { what: LockInput::git(source).to_string() });
        }
        let key = (source.remote.clone(), source.reference.clone(), source.checksum.clone());
        self.revisions.get(key, || {
            with_settings(services, source, |request, settings| {
                Ok(git::resolve(request, settings)?)
            })
        })
    }

    /// Returns the source at the commit that the lock file has for it, unless the Dockerfile itself
    /// names another one.
    fn locked<'a>(services: &Services<'_>, source: &'a GitSource) -> Result<Cow<'a, GitSource>> {
        let required = services.locked.required(&LockInput::git(source))?;
        let Some(LockedValue::Commit(commit)) = required else { return Ok(Cow::Borrowed(source)) };
        let shown = source.shown();
        let says_itself = git::certain_commit(&request(source, &shown)).is_some();
        let agrees = source.checksum.as_ref().is_none_or(|own| commit.starts_with(own.as_str()));
        if says_itself || !agrees {
            return Ok(Cow::Borrowed(source));
        }
        let checksum = Some(commit);
        Ok(Cow::Owned(GitSource { checksum, fetch_by_commit: true, ..source.clone() }))
    }

    /// Returns the commit of a source. Asks the repository only if neither the source nor the lock
    /// file has it.
    pub(in crate::executor) fn commit(
        &self,
        services: &Services<'_>,
        source: &GitSource,
    ) -> Result<String> {
        let locked = Self::locked(services, source)?;
        let shown = locked.shown();
        let commit = match git::certain_commit(&request(&locked, &shown)) {
            Some(commit) => commit.to_ascii_lowercase(),
            None => self.revision(services, &locked)?.commit,
        };
        let value = LockedValue::Commit(commit.clone());
        services.locked.record(LockInput::git(source), value)?;
        Ok(commit)
    }

    /// Returns the files of a source's commit.
    pub(in crate::executor) fn checkout(
        &self,
        services: &Services<'_>,
        source: &GitSource,
        now_s: i64,
    ) -> Result<Arc<Checkout>> {
        let commit = self.commit(services, source)?;
        let locked = Self::locked(services, source)?;
        let revision = self.revision(services, &locked)?;
        let keep_git_dir = source.keep_git_dir == Some(true);
        let options = CheckoutOptions {
            keep_git_dir,
            submodules: source.submodules,
            mtime_s: (!source.commit_time).then_some(now_s),
        };
        let flags = [keep_git_dir, source.submodules, source.commit_time];
        let key = (source.remote.clone(), revision.commit.clone(), flags);
        let made = self.checkouts.get(key, || {
            let step = services.start(format!("[internal] fetch {}", source.shown()));
            let made = check_out(services, &locked, &revision, &options);
            services.finish(step, if made.is_ok() { Outcome::Done } else { Outcome::Failed });
            made.map(Arc::new)
        });
        match made {
            Err(FetchError::Git(GitError::NoReference { .. }))
                if locked.checksum != source.checksum =>
            {
                let now = self.revision(services, source).ok();
                let now = now.map(|now| LockedValue::Commit(now.commit));
                let (input, want) = (LockInput::git(source), LockedValue::Commit(commit));
                Err(Box::new(services.locked.gone_error(input, want, now, &[])).into())
            }
            made => made,
        }
    }
}

fn check_out(
    services: &Services<'_>,
    source: &GitSource,
    revision: &Revision,
    options: &CheckoutOptions,
) -> Result<Checkout> {
    if services.registry.is_offline() {
        return Err(FetchError::Offline { what: LockInput::git(source).to_string() });
    }
    let work = services.store.work_directory()?;
    work.directory("fs")?;
    let into = work.path().join("fs");
    let commit_s = with_settings(services, source, |request, settings| {
        Ok(git::checkout(request, revision, options, &into, settings)?)
    })?;
    Ok(Checkout { work, commit_s })
}

fn request<'a>(source: &'a GitSource, shown: &'a str) -> GitRequest<'a> {
    GitRequest {
        remote: &source.remote,
        shown,
        reference: source.reference.as_deref(),
        checksum: source.checksum.as_deref(),
        fetch_by_commit: source.fetch_by_commit,
    }
}

fn with_settings<T>(
    services: &Services<'_>,
    source: &GitSource,
    work: impl FnOnce(&GitRequest<'_>, &GitSettings<'_>) -> Result<T>,
) -> Result<T> {
    let shown = source.shown();
    let authorization = git_authorization(services, &source.remote);
    let agent = git_agent(services)?;
    let store = services.store;
    let settings = GitSettings {
        environment: services.environment,
        authorization: authorization.as_deref(),
        ssh_agent: agent.as_ref().map(GitAgent::socket),
        should_continue: &|| !services.cancel.is_set(),
        space: &|n_bytes| Ok(store.check_space(n_bytes)?),
        max_bytes: store.archive_bounds().max_bytes,
    };
    work(&request(source, &shown), &settings)
}

/// Values by key that are computed once, while other threads wait.
#[derive(Debug)]
pub(in crate::executor) struct OnceMap<K, V>(Mutex<BTreeMap<K, Arc<Mutex<Option<V>>>>>);

impl<K, V> Default for OnceMap<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, V: Clone> OnceMap<K, V> {
    /// Returns the value for `key`, and calls `make` for the first caller. An error is not kept.
    pub(in crate::executor) fn get<E>(
        &self,
        key: K,
        make: impl FnOnce() -> std::result::Result<V, E>,
    ) -> std::result::Result<V, E> {
        // A panic elsewhere leaves both the map and the slots as good as they were.
        let mut slots = pool::lock(&self.0);
        let slot = Arc::clone(slots.entry(key).or_default());
        drop(slots);
        let mut slot = pool::lock(&slot);
        if let Some(value) = &*slot {
            return Ok(value.clone());
        }
        let value = make()?;
        *slot = Some(value.clone());
        Ok(value)
    }
}
