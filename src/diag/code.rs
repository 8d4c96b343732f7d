//! The stable codes of diagnostics.

use std::fmt;

/// The stable code of a diagnostic, such as `E0101`, with a one-line summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    name: &'static str,
    summary: &'static str,
}

impl Code {
    /// Returns the name, as in `error[E0101]`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.name
    }

    /// Returns a one-line description, for documentation and SARIF.
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
            //! One constant for each code.
            use super::Code;
            $(#[doc = $summary]
            pub const $constant: Code = Code { name: $name, summary: $summary };)*
        }

        /// Returns all codes: errors and warnings by number, then the build checks.
        #[must_use]
        pub const fn all() -> &'static [Code] {
            &[$(constants::$constant),*]
        }
    };
}

// E01xx: lines and syntax. E02xx: words and variables. E03xx: stages and their graph. E04xx: steps
// during execution. E05xx: build checks as errors. E06xx: definitions of bake. W0xxx: warnings. Build checks have BuildKit's
// names (https://docs.docker.com/reference/build-checks/).
codes! {
    EMPTY_FILE = "E0101", "the Dockerfile has no instruction";
    NO_STAGE = "E0102", "an instruction precedes the first FROM, or FROM is missing";
    UNKNOWN_INSTRUCTION = "E0103", "the first word of a line is not an instruction";
    LINE_TOO_LONG = "E0104", "a line is longer than 65535 bytes";
    BAD_DIRECTIVE = "E0105", "a parser directive has a bad value or is repeated";
    UNTERMINATED_HEREDOC = "E0106", "a heredoc has no line with its terminator";
    MISSING_ARGUMENT = "E0107", "an instruction lacks a required argument";
    UNKNOWN_FLAG = "E0108", "an instruction does not support this flag";
    BAD_FLAG = "E0109", "a flag has a bad value or is repeated";
    BAD_JSON_FORM = "E0110", "a JSON array is required, or it contains an element that is not a string";
    BAD_ARGUMENT = "E0111", "an argument of an instruction is invalid";
    BAD_MOUNT = "E0112", "a --mount has an unknown or unsupported key, or a bad value";
    BAD_ONBUILD = "E0113", "an instruction is not allowed in ONBUILD";
    BAD_STAGE_NAME = "E0114", "a stage name is invalid";
    BAD_PORT = "E0115", "EXPOSE has a bad port or protocol";
    BAD_HEALTHCHECK = "E0116", "HEALTHCHECK has a bad option or type";
    NOT_UTF8 = "E0117", "the Dockerfile is not UTF-8";
    UNCLOSED_QUOTE = "E0201", "a quote is not closed";
    BAD_SUBSTITUTION = "E0202", "a ${…} expression is invalid";
    REQUIRED_VARIABLE = "E0203", "a variable required by ${x:?} is unset or empty";
    BAD_BASE = "E0301", "FROM does not name a valid image";
    UNKNOWN_STAGE = "E0302", "a referenced stage does not exist or comes later";
    CYCLE = "E0303", "stages depend on each other in a circle";
    UNKNOWN_TARGET = "E0304", "the target stage does not exist";
    NOT_SUPPORTED = "E0305", "a feature is not supported yet";
    BAD_PLATFORM = "E0306", "a platform is invalid or cannot be built here";
    BAD_STOPSIGNAL = "E0307", "STOPSIGNAL does not name a signal";
    BAD_MODE = "E0308", "--chmod has a bad mode";
    BASE_UNAVAILABLE = "E0401", "the base image is unavailable";
    SOURCE_NOT_FOUND = "E0402", "COPY or ADD names a source that does not exist";
    COPY_CONFLICT = "E0403", "COPY or ADD cannot write the source to its destination";
    RUN_FAILED = "E0404", "a RUN command failed";
    BAD_USER = "E0405", "a user or group is not in the image";
    BAD_ARCHIVE = "E0406", "an archive that ADD unpacks is damaged";
    NOT_ALLOWED = "E0407", "an entitlement is required that was not granted";
    FETCH_FAILED = "E0408", "a URL or a git repository is unavailable";
    WRONG_CHECKSUM = "E0409", "a download does not match its checksum";
    MISSING_SECRET = "E0410", "a required secret or SSH agent was not provided";
    NOT_AS_LOCKED = "E0411", "an input differs from rbuild.lock, or is not in it";
    NOT_FETCHED = "E0412", "--offline prevents fetching an input that is not in the store";
    TOO_LARGE = "E0413", "the image or one of its layers is larger than --max-size or --max-layer-size allows";
    RESERVED_NAME = "E0414", "a step creates a file whose name begins with .wh., which a layer cannot contain";
    UNMAPPED_ID = "E0415", "a user or group id is outside of the ranges in /etc/subuid and /etc/subgid";
    NO_SANDBOX = "E0416", "the sandbox of a step cannot be set up on this machine";
    EMPTY_CONTINUATION = "W0001", "a continued instruction contains a blank line";
    LINT_AS_ERROR = "E0501", "a build check found a violation and check=error=true is set";
    BAKE_SYNTAX = "E0601", "a definition file of bake is not HCL, JSON or YAML";
    BAKE_DEFINITION = "E0602", "a definition of bake has a wrong value or name";
    BAKE_IGNORED = "W0003", "a definition of bake has a name without a meaning";
    FOREIGN_FRONTEND = "W0002", "a # syntax directive names another frontend, which is not used";
    STAGE_NAME_CASING = "StageNameCasing", "stage names should be lower case";
    FROM_AS_CASING = "FromAsCasing", "`as` should be written in the same case as `from`";
    NO_EMPTY_CONTINUATION = "NoEmptyContinuation", "an empty line inside a continued instruction will become an error";
    CONSISTENT_INSTRUCTION_CASING = "ConsistentInstructionCasing", "all instructions of a file should be written in the same case";
    DUPLICATE_STAGE_NAME = "DuplicateStageName", "stage names should be unique";
    RESERVED_STAGE_NAME = "ReservedStageName", "reserved words should not be used as stage names";
    JSON_ARGS_RECOMMENDED = "JSONArgsRecommended", "CMD and ENTRYPOINT should be in JSON form, so that signals reach the program";
    MAINTAINER_DEPRECATED = "MaintainerDeprecated", "MAINTAINER is deprecated; use a label to name the author";
    UNDEFINED_ARG_IN_FROM = "UndefinedArgInFrom", "FROM should use declared ARGs only";
    WORKDIR_RELATIVE_PATH = "WorkdirRelativePath", "a relative WORKDIR depends on the base image";
    UNDEFINED_VAR = "UndefinedVar", "variables should be defined before they are used";
    MULTIPLE_INSTRUCTIONS_DISALLOWED = "MultipleInstructionsDisallowed", "only the last CMD, ENTRYPOINT or HEALTHCHECK of a stage counts";
    LEGACY_KEY_VALUE_FORMAT = "LegacyKeyValueFormat", "names and values should be joined by `=`, not by a space";
    INVALID_BASE_IMAGE_PLATFORM = "InvalidBaseImagePlatform", "the base image is for another platform than the requested one";
    REDUNDANT_TARGET_PLATFORM = "RedundantTargetPlatform", "`--platform=$TARGETPLATFORM` is the default of FROM";
    SECRETS_USED_IN_ARG_OR_ENV = "SecretsUsedInArgOrEnv", "secrets should not be in ARG or ENV";
    INVALID_DEFAULT_ARG_IN_FROM = "InvalidDefaultArgInFrom", "the defaults of global ARGs should give a valid image name";
    FROM_PLATFORM_FLAG_CONST_DISALLOWED = "FromPlatformFlagConstDisallowed", "`FROM --platform` should not be a constant";
    COPY_IGNORED_FILE = "CopyIgnoredFile", "COPY or ADD names a file that the ignore file excludes";
    INVALID_DEFINITION_DESCRIPTION = "InvalidDefinitionDescription", "a comment that describes an ARG or a stage should begin with its name";
    EXPOSE_PROTO_CASING = "ExposeProtoCasing", "the protocol of EXPOSE should be lower case";
    COPY_DESTINATION_SLASH = "CopyDestinationSlash", "the destination of several sources should end with a slash";
    EXPOSE_INVALID_FORMAT = "ExposeInvalidFormat", "EXPOSE should not name an IP address or a host port";
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
