//! Where a file lies in a directory that the driver has opened. Paths are long and a directory's files
//! share most of theirs, so it is kept once for all of them.

use std::fmt;
use std::sync::Arc;

use super::TreePath;

/// A file in a directory that the driver has opened: the context, or an archive that was unpacked.
#[derive(Clone)]
pub struct DirectoryPlace {
    files: Arc<DirectoryFiles>,
    /// Where its name begins among theirs.
    name_at: u32,
}

/// Files of one directory below the opened one.
struct DirectoryFiles {
    opened: u32,
    path: TreePath,
    /// Their names, each with a zero behind it; none when `path` is a file's own.
    names: Vec<u8>,
}

impl DirectoryPlace {
    /// The file at `path` in the directory with the driver's number `opened`.
    #[must_use]
    pub fn new(opened: u32, path: TreePath) -> Self {
        Self { files: Arc::new(DirectoryFiles { opened, path, names: Vec::new() }), name_at: 0 }
    }

    /// The files called `names` in the directory at `path`, in order.
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
            // A directory with more than 4 GiB of names has files with places of their own.
            u32::try_from(at).map_or_else(
                |_too_far| Self::new(opened, files.path.join(name)),
                |name_at| Self { files: Arc::clone(&files), name_at },
            )
        })
    }

    /// The driver's number for the opened directory.
    #[must_use]
    pub fn opened(&self) -> u32 {
        self.files.opened
    }

    /// The file's path in the opened directory.
    #[must_use]
    pub fn path(&self) -> TreePath {
        let rest = usize::try_from(self.name_at).ok().and_then(|at| self.files.names.get(at..));
        match rest.and_then(|rest| rest.split(|byte| *byte == 0).next()) {
            Some(name) if !name.is_empty() => self.files.path.join(name),
            _ => self.files.path.clone(),
        }
    }
}

impl PartialEq for DirectoryPlace {
    fn eq(&self, other: &Self) -> bool {
        self.opened() == other.opened() && self.path() == other.path()
    }
}

impl Eq for DirectoryPlace {}

impl fmt::Debug for DirectoryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in directory {}", self.path(), self.opened())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_directories_files_are_those_of_each() {
        let path = |text: &str| TreePath::new(text.as_bytes()).unwrap();
        for directory in ["", "a/b"] {
            let names = ["x", "long name", "z"];
            let directory = path(directory);
            let places = DirectoryPlace::all(3, &directory, names.iter().map(|n| n.as_bytes()));
            let single = names.map(|name| DirectoryPlace::new(3, directory.join(name.as_bytes())));
            assert_eq!(places.collect::<Vec<_>>(), single);
        }
        assert_eq!(DirectoryPlace::new(0, TreePath::root()).path(), TreePath::root());
        assert_ne!(DirectoryPlace::new(0, path("a")), DirectoryPlace::new(1, path("a")));
    }
}
