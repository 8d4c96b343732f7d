//! What can go wrong in a COPY.

use crate::tree::TreePath;
use crate::tree::patterns::PatternError;

/// Why a COPY cannot be done. `source` numbers count from 0 in the request's list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// A source is not there.
    #[error("`{path}` does not exist{}", hint(nearest.as_deref()))]
    NotFound {
        /// Which source.
        source_index: usize,
        /// As written.
        path: String,
        /// The name in the same directory that was meant, perhaps.
        nearest: Option<String>,
    },
    /// A source is a symbolic link to nothing inside the tree.
    #[error("`{path}` is a symbolic link to {target}, which does not exist")]
    DanglingLink {
        /// Which source.
        source_index: usize,
        /// As written.
        path: String,
        /// Where it leads.
        target: TreePath,
    },
    /// A path leads through more links than the kernel would follow.
    #[error("`{path}` leads through too many symbolic links")]
    TooManyLinks {
        /// As written.
        path: String,
    },
    /// A pattern makes no sense.
    #[error("{reason}")]
    BadPattern {
        /// As written.
        pattern: String,
        /// What is wrong.
        reason: PatternError,
    },
    /// A directory would have to replace a file.
    #[error("the directory cannot be copied over {path}, which is a file")]
    DirOverFile {
        /// The file in the image.
        path: TreePath,
    },
    /// A directory would have to replace a symbolic link.
    #[error("the directory cannot be copied over {path}, which is a symbolic link to `{target}`")]
    DirOverLink {
        /// The link in the image.
        path: TreePath,
        /// Its target.
        target: String,
    },
    /// A file would have to replace a directory.
    #[error("the file cannot be copied over {path}, which is a directory")]
    FileOverDir {
        /// The directory in the image.
        path: TreePath,
    },
    /// Several files would have to become one.
    #[error("several files cannot be copied to `{destination}`, which is not a directory")]
    SeveralToOne {
        /// As written.
        destination: String,
    },
    /// The destination is below something that is not a directory.
    #[error("`{destination}` cannot be made: {path} is not a directory")]
    ThroughFile {
        /// As written.
        destination: String,
        /// The file in the image.
        path: TreePath,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
