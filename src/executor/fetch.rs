//! What ADD and contexts fetch from: downloads and checkouts, each once a build.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;

use crate::context::git::{self, CheckoutOptions, GitError, GitRequest, GitSettings, Revision};
use crate::diag::{Diagnostic, Span, codes};
use crate::oci::Digest;
use crate::pathio::PathError;
use crate::plan::{GitSource, LockInput, LockedValue, UrlSource};
use crate::registry::RegistryError;
use crate::store::unpack::UnpackError;
use crate::store::{DownloadRecord, StoreError, WorkDirectory};

use super::download::{self, ChecksumBy, DownloadError};
use super::git_agent::{GitAgent, git_agent};
use super::shared::Steps;
use super::{BuildError, LockViolation, Outcome, error};

/// Why something outside could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A download failed.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A repository gave nothing.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A context's archive is no good.
    #[error("cannot unpack the context {shown}")]
    Archive {
        /// The context, without credentials.
        shown: String,
        /// Why.
        source: Box<UnpackError>,
    },
    /// It is not what the lock file says.
    #[error(transparent)]
    Locked(#[from] Box<LockViolation>),
    /// The network is not to be used.
    #[error("{what} would have to be fetched, which --offline forbids")]
    Offline {
        /// What was wanted.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
}

type Result<T> = std::result::Result<T, FetchError>;

impl FetchError {
    /// The same as an error of the build, at the place that names what was to be fetched.
    pub(super) fn at(self, span: Option<Span>) -> BuildError {
        match self {
            Self::Git(GitError::Stopped) => BuildError::Stopped,
            Self::Store(error) => error.into(),
            Self::Io(error) => error.into(),
            Self::Locked(violation) => violation.at(span),
            Self::Git(_) | Self::Download(_) | Self::Archive { .. } | Self::Offline { .. } => {
                match span {
                    Some(span) => self.diagnostic(span).into(),
                    None => BuildError::Fetch(Box::new(self)),
                }
            }
        }
    }

    fn diagnostic(&self, span: Span) -> Diagnostic {
        let code = match self {
            Self::Download(DownloadError::Checksum { .. })
            | Self::Git(GitError::Checksum { .. }) => codes::WRONG_CHECKSUM,
            Self::Archive { .. } => codes::BAD_ARCHIVE,
            Self::Locked(_) => codes::NOT_AS_LOCKED,
            Self::Offline { .. } => codes::NOT_FETCHED,
            Self::Download(DownloadError::Fetch { source, .. })
                if matches!(**source, RegistryError::Offline { .. }) =>
            {
                codes::NOT_FETCHED
            }
            Self::Download(_) | Self::Git(_) | Self::Store(_) | Self::Io(_) => codes::FETCH_FAILED,
        };
        let refused = if let Self::Download(error) = self { error.refusal() } else { None };
        let message = refused.unwrap_or_else(|| error::chain(self));
        Diagnostic::error(code, span, message).maybe_help(self.help())
    }

    /// What may help.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Download(DownloadError::Checksum { by: ChecksumBy::LockFile(_), .. }) => {
                "if the new content is right, `rbuild lock --update` takes it over"
            }
            Self::Locked(violation) => violation.help(),
            Self::Download(DownloadError::Fetch { source, .. })
                if matches!(**source, RegistryError::Status { status: 404 | 410, .. }) =>
            {
                "look at the address: the file may have another name, or its version may be gone"
            }
            Self::Offline { .. } => "a build without --offline fetches it",
            Self::Download(DownloadError::Checksum { .. })
            | Self::Git(GitError::Checksum { .. }) => {
                "if the new content is right, put its checksum in place of the old one"
            }
            Self::Git(GitError::NoReference { nearest: Some(name), .. }) => {
                return Some(format!("did you mean `{name}`?"));
            }
            Self::Git(GitError::NoReference { .. }) => {
                "after `#` comes a branch, a tag, or a whole commit"
            }
            Self::Git(GitError::NoAgent { .. }) => "give it one with --ssh default, or use https",
            Self::Git(GitError::NoProgram { .. }) => {
                "install git, or use the https address of an archive of the repository"
            }
            Self::Git(_)
            | Self::Download(_)
            | Self::Archive { .. }
            | Self::Store(_)
            | Self::Io(_) => return None,
        };
        Some(help.to_owned())
    }
}

/// What this build has fetched or asked for: once each, so that all steps see the same.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    downloads: Once<String, DownloadRecord>,
    revisions: Once<RevisionKey, Revision>,
    checkouts: Once<CheckoutKey, Arc<Checkout>>,
}

/// Address, reference, checksum.
type RevisionKey = (String, Option<String>, Option<String>);
/// Address, commit, and whether `.git`, submodules and the commit's time are wanted.
type CheckoutKey = (String, String, [bool; 3]);

/// The files of a commit, on disk.
#[derive(Debug)]
pub(super) struct Checkout {
    work: WorkDirectory,
    /// When the commit was made.
    pub(super) commit_s: i64,
}

impl Checkout {
    /// The directory of it that is meant.
    pub(super) fn directory(&self, subdir: Option<&str>) -> Result<PathBuf> {
        Ok(git::directory_in(&self.work.path().join("fs"), subdir)?)
    }
}

impl Fetched {
    /// What a file has to be, if the Dockerfile or the lock file says it.
    pub(super) fn certain_digest(
        &self,
        steps: &Steps<'_>,
        url: &UrlSource,
        own: Option<Digest>,
    ) -> Result<Option<(Digest, ChecksumBy)>> {
        let locked = steps.services.locked;
        let input = LockInput::url(url);
        let certain = match (own, locked.wanted(&input)?) {
            (Some(own), _) => Some((own, ChecksumBy::Flag)),
            (None, Some(LockedValue::Digest(want))) => {
                Some((want, ChecksumBy::LockFile(locked.file())))
            }
            (None, Some(LockedValue::Commit(_)) | None) => None,
        };
        if let Some((digest, _)) = &certain {
            locked.meet(input, LockedValue::Digest(*digest))?;
        }
        Ok(certain)
    }

    /// The file behind a URL: the one that it has to be, or else the one that is there now.
    pub(super) fn file(
        &self,
        steps: &Steps<'_>,
        url: &UrlSource,
        own: Option<Digest>,
    ) -> Result<DownloadRecord> {
        if let Some((want, by)) = self.certain_digest(steps, url, own)? {
            return Ok(download::download_exactly(steps, &url.url, want, by)?);
        }
        let made = self.downloads.get(url.url.clone(), || download::download(steps, &url.url));
        let record = made?;
        let digest = LockedValue::Digest(record.blob);
        steps.services.locked.meet(LockInput::url(url), digest)?;
        Ok(record)
    }

    /// What a reference stands for now, or what it has to.
    fn revision(&self, steps: &Steps<'_>, source: &GitSource) -> Result<Revision> {
        let shown = source.shown();
        let is_certain = git::certain_commit(&request(source, &shown)).is_some();
        if steps.services.registry.is_offline() && !is_certain {
            return Err(FetchError::Offline { what: LockInput::git(source).to_string() });
        }
        let key = (source.remote.clone(), source.reference.clone(), source.checksum.clone());
        self.revisions.get(key, || {
            with_settings(steps, source, |request, settings| Ok(git::resolve(request, settings)?))
        })
    }

    /// The source at the commit that the lock file has for it, unless the Dockerfile itself says
    /// something else.
    fn locked<'a>(steps: &Steps<'_>, source: &'a GitSource) -> Result<Cow<'a, GitSource>> {
        let wanted = steps.services.locked.wanted(&LockInput::git(source))?;
        let Some(LockedValue::Commit(commit)) = wanted else { return Ok(Cow::Borrowed(source)) };
        let shown = source.shown();
        let says_itself = git::certain_commit(&request(source, &shown)).is_some();
        let agrees = source.checksum.as_ref().is_none_or(|own| commit.starts_with(own.as_str()));
        if says_itself || !agrees {
            return Ok(Cow::Borrowed(source));
        }
        let checksum = Some(commit);
        Ok(Cow::Owned(GitSource { checksum, fetch_by_commit: true, ..source.clone() }))
    }

    /// The commit that is meant; the repository is asked only if neither the source nor the lock
    /// file says it.
    pub(super) fn commit(&self, steps: &Steps<'_>, source: &GitSource) -> Result<String> {
        let locked = Self::locked(steps, source)?;
        let shown = locked.shown();
        let commit = match git::certain_commit(&request(&locked, &shown)) {
            Some(commit) => commit.to_ascii_lowercase(),
            None => self.revision(steps, &locked)?.commit,
        };
        let value = LockedValue::Commit(commit.clone());
        steps.services.locked.meet(LockInput::git(source), value)?;
        Ok(commit)
    }

    /// The files of the commit that is meant.
    pub(super) fn checkout(
        &self,
        steps: &Steps<'_>,
        source: &GitSource,
        now_s: i64,
    ) -> Result<Arc<Checkout>> {
        let commit = self.commit(steps, source)?;
        let locked = Self::locked(steps, source)?;
        let revision = self.revision(steps, &locked)?;
        let keep_git_dir = source.keep_git_dir == Some(true);
        let options = CheckoutOptions {
            keep_git_dir,
            submodules: source.submodules,
            mtime_s: (!source.commit_time).then_some(now_s),
        };
        let flags = [keep_git_dir, source.submodules, source.commit_time];
        let key = (source.remote.clone(), revision.commit.clone(), flags);
        let made = self.checkouts.get(key, || {
            let step = steps.start(format!("[internal] fetch {}", source.shown()));
            let made = check_out(steps, &locked, &revision, &options);
            steps.finish(step, if made.is_ok() { Outcome::Done } else { Outcome::Failed });
            made.map(Arc::new)
        });
        match made {
            Err(FetchError::Git(GitError::NoReference { .. }))
                if locked.checksum != source.checksum =>
            {
                let now = self.revision(steps, source).ok();
                let now = now.map(|now| LockedValue::Commit(now.commit));
                let (input, want) = (LockInput::git(source), LockedValue::Commit(commit));
                Err(Box::new(steps.services.locked.gone(input, want, now, &[])).into())
            }
            made => made,
        }
    }
}

fn check_out(
    steps: &Steps<'_>,
    source: &GitSource,
    revision: &Revision,
    options: &CheckoutOptions,
) -> Result<Checkout> {
    if steps.services.registry.is_offline() {
        return Err(FetchError::Offline { what: LockInput::git(source).to_string() });
    }
    let work = steps.services.store.work_directory()?;
    work.directory("fs")?;
    let into = work.path().join("fs");
    let commit_s = with_settings(steps, source, |request, settings| {
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
    steps: &Steps<'_>,
    source: &GitSource,
    work: impl FnOnce(&GitRequest<'_>, &GitSettings<'_>) -> Result<T>,
) -> Result<T> {
    let shown = source.shown();
    let authorization = git_authorization(steps, &source.remote);
    let agent = git_agent(steps)?;
    let store = steps.services.store;
    let settings = GitSettings {
        environment: steps.services.environment,
        authorization: authorization.as_deref(),
        ssh_agent: agent.as_ref().map(GitAgent::socket),
        should_continue: &|| !steps.services.stop.is_thrown(),
        space: &|n_bytes| Ok(store.check_space(n_bytes)?),
        max_bytes: store.archive_bounds().max_bytes,
    };
    work(&request(source, &shown), &settings)
}

/// The Authorization header for a URL's host, from the build's secrets.
pub(super) fn http_authorization(steps: &Steps<'_>, url: &str) -> Option<String> {
    names_of_host(url).find_map(|host| {
        let header = secret(steps, &format!("HTTP_AUTH_HEADER_{host}"));
        let token = || secret(steps, &format!("HTTP_AUTH_TOKEN_{host}"));
        header.or_else(|| token().map(|token| format!("Bearer {token}")))
    })
}

/// The same for a repository.
fn git_authorization(steps: &Steps<'_>, remote: &str) -> Option<String> {
    let own = names_of_host(remote).map(|host| format!(".{host}"));
    own.chain([String::new()]).find_map(|host| {
        let header = secret(steps, &format!("GIT_AUTH_HEADER{host}"));
        let token = || secret(steps, &format!("GIT_AUTH_TOKEN{host}"));
        header.or_else(|| {
            let pair = format!("x-access-token:{}", token()?);
            Some(format!("basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        })
    })
}

/// A URL's host as a secret may name it: with its port, and without.
fn names_of_host(url: &str) -> impl Iterator<Item = &str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let bare = host.rsplit_once(':').map(|(bare, _port)| bare);
    [Some(host), bare].into_iter().flatten()
}

/// A secret that the caller gave the build, as text.
fn secret(steps: &Steps<'_>, name: &str) -> Option<String> {
    let value = steps.services.lent.secrets.get(name)?;
    let value = String::from_utf8_lossy(value).trim_end_matches(['\r', '\n']).to_owned();
    Some(value).filter(|value| !value.is_empty())
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
