//! The keywords of instructions.

use crate::diag::nearest;

macro_rules! keywords {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// The first word of an instruction.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Keyword {
            $($variant),*
        }

        impl Keyword {
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the keyword in upper case.
            pub(super) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }
        }
    };
}

keywords! {
    Add = "ADD",
    Arg = "ARG",
    Cmd = "CMD",
    Copy = "COPY",
    Entrypoint = "ENTRYPOINT",
    Env = "ENV",
    Expose = "EXPOSE",
    From = "FROM",
    Healthcheck = "HEALTHCHECK",
    Label = "LABEL",
    Maintainer = "MAINTAINER",
    Onbuild = "ONBUILD",
    Run = "RUN",
    Shell = "SHELL",
    Stopsignal = "STOPSIGNAL",
    User = "USER",
    Volume = "VOLUME",
    Workdir = "WORKDIR",
}

impl Keyword {
    /// Finds the keyword that `word` is; ASCII case is ignored.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|keyword| keyword.name().eq_ignore_ascii_case(word))
    }

    /// Finds the keyword that is most similar to `word`.
    pub(super) fn suggestion(word: &str) -> Option<&'static str> {
        nearest(word, Self::ALL.iter().map(|keyword| keyword.name()))
    }
}
