//! `RUN --mount=`.

use crate::diag::Spanned;

use super::Word;

/// One `--mount`; values are as written, variables not expanded yet, so numbers and booleans that
/// hold no variable have been checked but are still text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `type=`; bind when absent.
    pub kind: MountType,
    /// The value of `type=` when it holds a variable: `kind` is bind until that is expanded
    /// ([`MountType::from_name`]), and keys have not been checked against the type.
    pub kind_variable: Option<Word>,
    /// `target=`, `dst=`, `destination=`.
    pub target: Option<Word>,
    /// `source=`, `src=`.
    pub source: Option<Word>,
    /// `from=`.
    pub from: Option<Word>,
    /// `readonly`/`ro` is true, `readwrite`/`rw` is false; absent: the type's own default.
    pub read_only: Option<Spanned<bool>>,
    /// `id=`.
    pub id: Option<Word>,
    /// `sharing=`.
    pub sharing: Option<Spanned<Sharing>>,
    /// `required`.
    pub required: Option<Spanned<bool>>,
    /// `size=`, as written.
    pub size: Option<Word>,
    /// `mode=`, octal.
    pub mode: Option<Word>,
    /// `uid=`.
    pub uid: Option<Word>,
    /// `gid=`.
    pub gid: Option<Word>,
    /// `env=`.
    pub env: Option<Word>,
}

/// `--mount=type=`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MountType {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that survives the build.
    Cache,
    /// An empty directory in memory.
    Tmpfs,
    /// A file or variable that is in no layer.
    Secret,
    /// The caller's ssh agent.
    Ssh,
}

impl MountType {
    /// Every type.
    pub const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// The name, as in `type=bind`.
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

    /// The type of that name, upper or lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

/// `sharing=` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// Several steps write at once.
    Shared,
    /// Each step at one time has its own.
    Private,
    /// One step waits for the other.
    Locked,
}

impl Sharing {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Shared, Self::Private, Self::Locked];

    /// The name, as in `sharing=shared`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }

    /// The mode of that name, upper or lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(name))
    }
}
