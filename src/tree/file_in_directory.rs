//! The location of a file in a directory that the driver has opened. The files of a directory share
//! most of their long paths, so the common part is stored once for all of them.

use std::fmt;
use std::sync::Arc;

use super::TreePath;

/// A file in a directory that the driver has opened: the context, or an unpacked archive.
#[derive(Clone)]
pub struct FileInDirectory {
    files: Arc<DirectoryFiles>,
    /// The offset of its name in `files.names`.
    name_at: u32,
}

/// The files of one directory below the opened one.
struct DirectoryFiles {
    opened: u32,
    path: TreePath,
    /// The names, each followed by a zero byte; empty when `path` is the path of a file.
    names: Vec<u8>,
}

impl FileInDirectory {
    /// Returns the location `path` in the directory that the driver has numbered `opened`.
    #[must_use]
    pub fn new(opened: u32, path: TreePath) -> Self {
        Self { files: Arc::new(DirectoryFiles { opened, path, names: Vec::new() }), name_at: 0 }
    }

    /// Returns the locations of the files `names` in the directory `path`, in order.
    pub fn all<'a>(
        opened: u32,
        path: &TreePath,
        names: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> impl Iterator<Item = Self> {
        let mut bytes = Vec::with_capacity(names.clone().map(|name| name.len() + 1).sum());
        for name in names.clone() {
            bytes.extend_from_slice(name);
            bytes.push(0);
        }
        let files = Arc::new(DirectoryFiles { opened, path: path.clone(), names: bytes });
        let mut next_at = 0;
        names.map(move |name| {
            let at = next_at;
            next_at += name.len() + 1;
            // Beyond 4 GiB of names in one directory, each file stores its own path.
            u32::try_from(at).map_or_else(
                |_too_far| Self::new(opened, files.path.join(name)),
                |name_at| Self { files: Arc::clone(&files), name_at },
            )
        })
    }

    /// Returns the driver's number for the opened directory.
    #[must_use]
    pub fn opened(&self) -> u32 {
        self.files.opened
    }

    /// Returns the file's path in the opened directory.
    #[must_use]
    pub fn path(&self) -> TreePath {
        let rest = usize::try_from(self.name_at).ok().and_then(|at| self.files.names.get(at..));
        match rest.and_then(|rest| rest.split(|byte| *byte == 0).next()) {
            Some(name) if !name.is_empty() => self.files.path.join(name),
            _ => self.files.path.clone(),
        }
    }
}

impl PartialEq for FileInDirectory {
    fn eq(&self, other: &Self) -> bool {
        self.opened() == other.opened() && self.path() == other.path()
    }
}

impl Eq for FileInDirectory {}

impl fmt::Debug for FileInDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in directory {}", self.path(), self.opened())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_locations_equal_single_ones() {
        let path = |text: &str| TreePath::new(text.as_bytes()).unwrap();
        for directory in ["", "a/b"] {
            let names = ["x", "long name", "z"];
            let directory = path(directory);
            let places = FileInDirectory::all(3, &directory, names.iter().map(|n| n.as_bytes()));
            let single = names.map(|name| FileInDirectory::new(3, directory.join(name.as_bytes())));
            assert_eq!(places.collect::<Vec<_>>(), single);
        }
        assert_eq!(FileInDirectory::new(0, TreePath::root()).path(), TreePath::root());
        assert_ne!(FileInDirectory::new(0, path("a")), FileInDirectory::new(1, path("a")));
    }
}
