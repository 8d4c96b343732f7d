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
// E04xx: steps as they are executed. W0xxx: warnings. Build checks have the names that BuildKit
// gives them.
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
    NOT_AS_LOCKED = "E0411", "an input is not what rbuild.lock says, or is not in it";
    NOT_FETCHED = "E0412", "--offline forbids to fetch an input that is not in the store";
    TOO_LARGE = "E0413", "the image or a layer of it is larger than --max-size or --max-layer-size allows";
    RESERVED_NAME = "E0414", "a step makes a file whose name begins with .wh., which no image can have";
    UNMAPPED_ID = "E0415", "a user or group id is outside of those that the user's /etc/subuid and /etc/subgid grant";
    NO_SANDBOX = "E0416", "the sandbox of a step cannot be set up on this machine";
    EMPTY_CONTINUATION = "W0001", "a blank line stands inside a continued instruction";
    LINT_AS_ERROR = "E0501", "a build check fails and check=error=true asks to stop";
    FOREIGN_FRONTEND = "W0002", "a # syntax directive names another frontend, which is not used";
    STAGE_NAME_CASING = "StageNameCasing", "stage names should be lower case";
    FROM_AS_CASING = "FromAsCasing", "`as` should be written in the same case as `from`";
    NO_EMPTY_CONTINUATION = "NoEmptyContinuation", "an empty line inside a continued instruction will become an error";
    CONSISTENT_INSTRUCTION_CASING = "ConsistentInstructionCasing", "all instructions of a file should be written in the same case";
    DUPLICATE_STAGE_NAME = "DuplicateStageName", "stage names should be unique";
    RESERVED_STAGE_NAME = "ReservedStageName", "reserved words should not be used as stage names";
    JSON_ARGS_RECOMMENDED = "JSONArgsRecommended", "CMD and ENTRYPOINT should be in JSON form, so that signals reach the program";
    MAINTAINER_DEPRECATED = "MaintainerDeprecated", "MAINTAINER is deprecated: a label names the author";
    UNDEFINED_ARG_IN_FROM = "UndefinedArgInFrom", "FROM should use declared ARGs only";
    WORKDIR_RELATIVE_PATH = "WorkdirRelativePath", "a relative WORKDIR depends on the base image";
    UNDEFINED_VAR = "UndefinedVar", "variables should be defined before they are used";
    MULTIPLE_INSTRUCTIONS_DISALLOWED = "MultipleInstructionsDisallowed", "only the last CMD, ENTRYPOINT or HEALTHCHECK of a stage counts";
    LEGACY_KEY_VALUE_FORMAT = "LegacyKeyValueFormat", "names and values should be joined by `=`, not by a blank";
    INVALID_BASE_IMAGE_PLATFORM = "InvalidBaseImagePlatform", "the base image is not for the platform that was asked for";
    REDUNDANT_TARGET_PLATFORM = "RedundantTargetPlatform", "`--platform=$TARGETPLATFORM` is what FROM does anyway";
    SECRETS_USED_IN_ARG_OR_ENV = "SecretsUsedInArgOrEnv", "secrets should not be in ARG or ENV";
    INVALID_DEFAULT_ARG_IN_FROM = "InvalidDefaultArgInFrom", "the defaults of global ARGs should give a valid image name";
    FROM_PLATFORM_FLAG_CONST_DISALLOWED = "FromPlatformFlagConstDisallowed", "`FROM --platform` should not be a constant";
    COPY_IGNORED_FILE = "CopyIgnoredFile", "COPY or ADD names a file that the ignore file excludes";
    INVALID_DEFINITION_DESCRIPTION = "InvalidDefinitionDescription", "a comment that describes an ARG or a stage should begin with its name";
    EXPOSE_PROTO_CASING = "ExposeProtoCasing", "the protocol of EXPOSE should be lower case";
    COPY_DESTINATION_SLASH = "CopyDestinationSlash", "the destination of several sources should end with a slash";
    EXPOSE_INVALID_FORMAT = "ExposeInvalidFormat", "EXPOSE should name neither an IP address nor a host port";
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
