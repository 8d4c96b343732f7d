//! Paths inside a file tree.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A path relative to a tree's root: names joined by `/`, none of them empty, `.` or `..`; the root
/// itself is empty. A name may contain any bytes but `/` and NUL (path_resolution(7)).
///
/// The order is depth-first: a directory comes before its contents, and these before its next
/// sibling, as if `/` were the smallest byte.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Box<[u8]>);

/// The error of bytes that are not a path inside a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not a path inside the tree")]
pub struct PathError {
    shown: String,
}

impl TreePath {
    /// Returns the path of the root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses a path as archives and Dockerfiles write it. Drops leading, trailing and doubled
    /// slashes and `.`.
    ///
    /// # Errors
    /// [`PathError`] for `..` and NUL: this function resolves nothing.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        let error = || PathError { shown: String::from_utf8_lossy(bytes).into_owned() };
        let mut path = Vec::with_capacity(bytes.len());
        for name in bytes.split(|byte| *byte == b'/').filter(|n| !n.is_empty() && *n != b".") {
            if name == b".." || name.contains(&0) {
                return Err(error());
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        Ok(Self(path.into_boxed_slice()))
    }

    /// Parses a path with `..`, which removes the name before it and stops at the root. Ignores
    /// links (Go's `path.Join("/", p)`, <https://pkg.go.dev/path#Join>).
    #[must_use]
    pub fn clean(bytes: &[u8]) -> Self {
        let mut names: Vec<&[u8]> = Vec::new();
        for name in bytes.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        Self(names.join(&b'/').into_boxed_slice())
    }

    /// Returns whether a path, as archives write it, leads above its starting directory.
    #[must_use]
    pub fn climbs(bytes: &[u8]) -> bool {
        let mut names = bytes.split(|byte| *byte == b'/').filter(|n| !matches!(*n, b"" | b"."));
        let step =
            |depth: usize, name| if name == b".." { depth.checked_sub(1) } else { Some(depth + 1) };
        names.try_fold(0, step).is_none()
    }

    /// Returns the bytes, without leading or trailing slash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path for calls relative to a directory descriptor (openat(2)); `.` for the root.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.0)) }
    }

    /// Returns whether this is the root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the names from the root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// Returns the last name; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.names().next_back()
    }

    /// Returns the parent directory; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0.get(..end).unwrap_or_default().into()))
    }

    /// Returns the path of `name` in this directory; `name` must be a single name.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        debug_assert!(!name.is_empty() && !name.contains(&b'/'), "one name, not a path");
        if self.is_root() {
            return Self(name.into());
        }
        Self([&*self.0, b"/", name].concat().into_boxed_slice())
    }

    /// Returns the path of `below` under this directory.
    #[must_use]
    pub fn join_path(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Self([&*self.0, b"/", &*below.0].concat().into_boxed_slice()),
        }
    }

    /// Returns the rest of this path below `directory`: the root for `directory` itself, `None` if
    /// the path is elsewhere.
    #[must_use]
    pub fn below(&self, directory: &Self) -> Option<Self> {
        if directory.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&*directory.0)? {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.into())),
            _ => None,
        }
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        self.0.iter().map(key).cmp(other.0.iter().map(key))
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    /// Writes the path with a leading slash; bytes that are not UTF-8 are replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn paths_are_normalised() {
        for (text, want) in [("", ""), ("/", ""), ("./a//b/", "a/b"), ("/a/./b", "a/b")] {
            assert_eq!(path(text).as_bytes(), want.as_bytes());
        }
        for (text, want) in [("../a", "a"), ("a/../../b", "b"), ("a/b/..", "a")] {
            assert_eq!(TreePath::clean(text.as_bytes()), path(want));
        }
        let error = TreePath::new(b"a/../b").unwrap_err();
        assert_eq!(error.to_string(), "`a/../b` is not a path inside the tree");
    }

    #[test]
    fn order_is_depth_first() {
        let mut paths = ["a.b", "a/c", "a", "a/b/c", "b", "a-b"].map(path);
        paths.sort();
        assert_eq!(paths, ["a", "a/b/c", "a/c", "a-b", "a.b", "b"].map(path));
    }

    #[test]
    fn below_and_parent_are_inverse_to_join() {
        let (directory, file) = (path("a/b"), path("a/b/c"));
        assert_eq!(file.below(&directory), Some(path("c")));
        assert_eq!(file.parent(), Some(directory.clone()));
        assert_eq!(directory.join(b"c"), file);
        assert_eq!(path("a/bc").below(&directory), None);
        assert_eq!(directory.below(&TreePath::root()), Some(directory));
    }
}
