//! The errors of a COPY.

use crate::tree::TreePath;
use crate::tree::patterns::PatternError;

/// The reason why a COPY fails. A `source_index` counts from 0 in the request's list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// A source does not exist.
    #[error("`{path}` does not exist{}", hint(nearest.as_deref()))]
    NotFound {
        /// The index of the source.
        source_index: usize,
        /// The source as written.
        path: String,
        /// A similar name in the same directory, as a suggestion.
        nearest: Option<String>,
    },
    /// A source is a symbolic link whose target does not exist in the tree.
    #[error("`{path}` is a symbolic link to {target}, which does not exist")]
    DanglingLink {
        /// The index of the source.
        source_index: usize,
        /// The source as written.
        path: String,
        /// The target of the link.
        target: TreePath,
    },
    /// A path has more symbolic links than the kernel follows (path_resolution(7)).
    #[error("too many symbolic links in `{path}`")]
    TooManyLinks {
        /// The path as written.
        path: String,
    },
    /// A pattern of a source or of `--exclude` is invalid.
    #[error("{reason}")]
    BadPattern {
        /// The pattern as written.
        pattern: String,
        /// The reason why it is invalid.
        reason: PatternError,
    },
    /// A directory would have to replace a file.
    #[error("cannot copy a directory over {path}, which is a file")]
    DirOverFile {
        /// The file in the image.
        path: TreePath,
    },
    /// A directory would have to replace a symbolic link.
    #[error("cannot copy a directory over {path}, which is a symbolic link to `{target}`")]
    DirOverLink {
        /// The link in the image.
        path: TreePath,
        /// Its target.
        target: String,
    },
    /// A file would have to replace a directory.
    #[error("cannot copy a file over {path}, which is a directory")]
    FileOverDir {
        /// The directory in the image.
        path: TreePath,
    },
    /// The sources select several files, but the destination is not a directory.
    #[error("cannot copy several files to `{destination}`, which is not a directory")]
    SeveralToOne {
        /// The destination as written.
        destination: String,
    },
    /// The destination is below something that is not a directory.
    #[error("cannot create `{destination}`: {path} is not a directory")]
    ThroughFile {
        /// The destination as written.
        destination: String,
        /// The file in the image.
        path: TreePath,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
