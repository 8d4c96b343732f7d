//! Paths inside a tree.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A path relative to a tree's root: names joined by `/`, none of them empty, `.` or `..`; the
/// root itself is empty. Any bytes but `/` and NUL may stand in a name.
///
/// The order is depth-first: a directory comes before what it holds, and all that it holds before
/// its next sibling, as if `/` were the smallest byte.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Box<[u8]>);

/// Bytes that are no path inside a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not a path inside the tree")]
pub struct PathError {
    shown: String,
}

impl TreePath {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes a path as archives and Dockerfiles write it: slashes at the ends, doubled slashes and
    /// `.` go away.
    ///
    /// # Errors
    /// [`PathError`] for `..` and NUL: nothing is resolved here.
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

    /// Takes a path that may climb: `..` removes the name before it and stops at the root, without
    /// a look at links (Go's `path.Join("/", p)`).
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

    /// Whether a path as archives write it leads above where it starts.
    #[must_use]
    pub fn climbs(bytes: &[u8]) -> bool {
        let mut names = bytes.split(|byte| *byte == b'/').filter(|n| !matches!(*n, b"" | b"."));
        let step =
            |depth: usize, name| if name == b".." { depth.checked_sub(1) } else { Some(depth + 1) };
        names.try_fold(0, step).is_none()
    }

    /// The bytes, without a slash at either end.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for calls relative to a directory descriptor; `.` for the root.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.0)) }
    }

    /// Whether it is the root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The last name; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.names().next_back()
    }

    /// The directory that holds it; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0.get(..end).unwrap_or_default().into()))
    }

    /// The path of `name` in this directory; `name` must be one name.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        debug_assert!(!name.is_empty() && !name.contains(&b'/'), "one name, not a path");
        if self.is_root() {
            return Self(name.into());
        }
        Self([&*self.0, b"/", name].concat().into_boxed_slice())
    }

    /// The path of `below` under this directory.
    #[must_use]
    pub fn join_path(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Self([&*self.0, b"/", &*below.0].concat().into_boxed_slice()),
        }
    }

    /// The rest of this path below `directory`; the root for `directory` itself, `None` if it is
    /// elsewhere.
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
    /// With a slash in front, bytes that are no UTF-8 replaced.
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
