//! The options of `RUN --mount` (<https://docs.docker.com/reference/dockerfile/#run---mount>).

use crate::diag::Spanned;

use super::Word;

/// One `--mount`, not yet expanded: numbers are checked only where they hold no variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Value of `type`, by default `bind`.
    pub kind: MountType,
    /// Value of `type` if it holds a variable. Until that is expanded, `kind` is `bind` and the keys
    /// are not checked against the type.
    pub kind_variable: Option<Word>,
    /// Value of `target`, `dst` or `destination`.
    pub target: Option<Word>,
    /// Value of `source` or `src`.
    pub source: Option<Word>,
    /// Value of `from`: a stage, image or named context.
    pub from: Option<Word>,
    /// True for `readonly` or `ro`, false for `readwrite` or `rw`; the default depends on the type.
    pub read_only: Option<Spanned<bool>>,
    /// Value of `id`: name of a cache, secret or agent.
    pub id: Option<Word>,
    /// Value of `sharing`, for caches.
    pub sharing: Option<Spanned<Sharing>>,
    /// True if the build fails without the secret or agent.
    pub required: Option<Spanned<bool>>,
    /// Value of `size`, for tmpfs.
    pub size: Option<Word>,
    /// Value of `mode`, an octal number.
    pub mode: Option<Word>,
    /// Value of `uid`, by default 0.
    pub uid: Option<Word>,
    /// Value of `gid`, by default 0.
    pub gid: Option<Word>,
    /// Value of `env`: the variable that receives a secret.
    pub env: Option<Word>,
}

/// The type of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MountType {
    /// Files of the context, a stage or an image; writes are discarded.
    Bind,
    /// A directory that persists between builds.
    Cache,
    /// An empty directory in memory.
    Tmpfs,
    /// A file or variable that never becomes part of a layer.
    Secret,
    /// The SSH agent of the caller.
    Ssh,
}

impl MountType {
    /// All types, for lookups and help texts.
    pub const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// Returns the name, as in `type=bind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    /// Finds the type with this name; ASCII case is ignored.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

/// The access of concurrent steps to a cache mount
/// (<https://docs.docker.com/reference/dockerfile/#run---mounttypecache>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// Several steps may write at the same time.
    Shared,
    /// Concurrent steps get a cache each.
    Private,
    /// A second step waits for the first.
    Locked,
}

impl Sharing {
    /// All modes, for lookups and help texts.
    pub const ALL: [Self; 3] = [Self::Shared, Self::Private, Self::Locked];

    /// Returns the name, as in `sharing=shared`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }

    /// Finds the mode with this name; ASCII case is ignored.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(name))
    }
}
