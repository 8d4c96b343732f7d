//! The stable names of diagnostics.

use std::fmt;

/// A diagnostic's stable name, such as `E0101`, with a summary for the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    name: &'static str,
    summary: &'static str,
}

impl Code {
    /// The name, as in `error[E0101]`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.name
    }

    /// One line that says what the code stands for.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        self.summary
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! codes {
    ($($constant:ident = $name:literal, $summary:literal;)*) => {
        pub(crate) mod constants {
            //! The codes themselves.
            use super::Code;
            $(#[doc = $summary]
            pub const $constant: Code = Code { name: $name, summary: $summary };)*
        }

        /// Every code, in order of its name.
        #[must_use]
        pub const fn all() -> &'static [Code] {
            &[$(constants::$constant),*]
        }
    };
}

// E01xx: lines and syntax. E02xx: words and variables. E03xx: stages and their graph.
// E04xx: steps as they are executed. W0xxx: warnings.
codes! {
    EMPTY_FILE = "E0101", "the Dockerfile has no instruction";
    NO_STAGE = "E0102", "an instruction stands before the first FROM, or there is none";
    UNKNOWN_INSTRUCTION = "E0103", "the first word of a line is not an instruction";
    LINE_TOO_LONG = "E0104", "a line is longer than 65535 bytes";
    BAD_DIRECTIVE = "E0105", "a parser directive has a bad value or is there twice";
    UNTERMINATED_HEREDOC = "E0106", "a heredoc has no line with its terminator";
    MISSING_ARGUMENT = "E0107", "an instruction lacks what it needs";
    UNKNOWN_FLAG = "E0108", "an instruction has no such flag";
    BAD_FLAG = "E0109", "a flag has a bad value or is repeated";
    BAD_JSON_FORM = "E0110", "a JSON array is needed, or holds something that is not a string";
    BAD_ARGUMENT = "E0111", "an instruction's argument has a bad form";
    BAD_MOUNT = "E0112", "a --mount has an unknown or unfitting key or a bad value";
    BAD_ONBUILD = "E0113", "an instruction is not allowed in ONBUILD";
    BAD_STAGE_NAME = "E0114", "a stage name has a bad form";
    BAD_PORT = "E0115", "EXPOSE has a bad port or protocol";
    BAD_HEALTHCHECK = "E0116", "HEALTHCHECK has a bad option or type";
    NOT_UTF8 = "E0117", "the Dockerfile is not UTF-8";
    UNCLOSED_QUOTE = "E0201", "a quote is not closed";
    BAD_SUBSTITUTION = "E0202", "a ${…} expression has a bad form";
    REQUIRED_VARIABLE = "E0203", "a variable required by ${x:?} is unset or empty";
    BAD_BASE = "E0301", "FROM names no valid image";
    UNKNOWN_STAGE = "E0302", "a stage that is named does not exist or comes later";
    CYCLE = "E0303", "stages depend on each other in a circle";
    UNKNOWN_TARGET = "E0304", "the target stage does not exist";
    NOT_SUPPORTED = "E0305", "this is not supported yet";
    BAD_PLATFORM = "E0306", "a platform has a bad form or cannot be built here";
    BAD_STOPSIGNAL = "E0307", "STOPSIGNAL names no signal";
    BAD_MODE = "E0308", "--chmod has a bad mode";
    BASE_UNAVAILABLE = "E0401", "the base image cannot be had";
    SOURCE_NOT_FOUND = "E0402", "COPY or ADD names a source that does not exist";
    COPY_CONFLICT = "E0403", "COPY or ADD cannot put the source there";
    RUN_FAILED = "E0404", "a RUN command failed";
    BAD_USER = "E0405", "a user or group is not in the image";
    BAD_ARCHIVE = "E0406", "an archive to be unpacked is damaged";
    NOT_ALLOWED = "E0407", "this needs a permission that was not given";
    FETCH_FAILED = "E0408", "a URL or a git repository cannot be had";
    WRONG_CHECKSUM = "E0409", "what was fetched is not what its checksum names";
    MISSING_SECRET = "E0410", "a required secret or ssh agent was not given";
    EMPTY_CONTINUATION = "W0001", "a blank line stands inside a continued instruction";
    LINT_AS_ERROR = "E0501", "a build check fails and check=error=true asks to stop";
    FOREIGN_FRONTEND = "W0002", "a # syntax directive names another frontend, which is not used";
}

#[cfg(test)]
mod tests {
    use super::all;

    #[test]
    fn codes_have_unique_names_and_summaries() {
        let mut names: Vec<&str> = all().iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
        assert!(all().iter().all(|code| !code.summary().is_empty()));
    }
}
