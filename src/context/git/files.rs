//! Normalizes the files of a checkout, and finds directories in it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};

use crate::pathio::{self, Context as _, PathError};

use super::{GitError, Result};

/// Returns the directory `subdir` of `root`, or `root` itself for `None`. Refuses links, which
/// could lead outside.
///
/// # Errors
/// [`GitError::NoDirectory`] if it does not exist or is not a directory.
pub fn directory_in(root: &Path, subdir: Option<&str>) -> Result<PathBuf> {
    let subdir = subdir.unwrap_or_default();
    let no_directory = || GitError::NoDirectory { directory: subdir.to_owned() };
    let mut path = root.to_owned();
    for component in Path::new(subdir).components() {
        match component {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) => path.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(no_directory()),
        }
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) | Err(_) => return Err(no_directory()),
        }
    }
    Ok(path)
}

/// Sets the mode that git stores for every file, regardless of the umask, and one modification
/// time. Removes `.git`, also in submodules, unless it is kept.
pub(super) fn normalize(root: &Path, keep_git_dir: bool, mtime_s: i64) -> Result<()> {
    let time = Timespec { tv_sec: mtime_s, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let mut directories = vec![root.to_owned()];
    let mut entries = walkdir::WalkDir::new(root).min_depth(1).into_iter();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| PathError::new("list", root, error))?;
        let path = entry.path();
        let kind = entry.file_type();
        if entry.file_name() == ".git" && !keep_git_dir {
            if kind.is_dir() {
                entries.skip_current_dir();
                pathio::remove_dir_all(path)?;
            } else {
                pathio::remove_file(path)?;
            }
            continue;
        }
        if kind.is_dir() {
            directories.push(path.to_owned());
            continue;
        }
        if kind.is_file() {
            let meta = entry.metadata().map_err(|error| PathError::new("look at", path, error))?;
            let mode = match meta.permissions().mode() {
                mode if mode & 0o100 != 0 => 0o755,
                // Git's object files are read-only.
                mode if mode & 0o200 == 0 => 0o444,
                _ => 0o644,
            };
            set_mode(path, mode)?;
        }
        set_times(path, &times)?;
    }
    // Directories last: changes in a directory update its time.
    for directory in directories.iter().rev() {
        set_mode(directory, 0o755)?;
        set_times(directory, &times)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    Ok(rustix::fs::chmod(path, mode).context("change the mode of", path)?)
}

fn set_times(path: &Path, times: &Timestamps) -> Result<()> {
    let set = rustix::fs::utimensat(CWD, path, times, AtFlags::SYMLINK_NOFOLLOW);
    Ok(set.context("set the time of", path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdirectory_cannot_leave_the_repository() {
        let root = tempfile::tempdir().unwrap();
        pathio::create_dir_all(&root.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("link")).unwrap();
        for (subdir, want) in [
            (None, Some("")),
            (Some("/a/./b/"), Some("a/b")),
            (Some("link"), None),
            (Some("a/../../x"), None),
            (Some("c"), None),
        ] {
            let found = directory_in(root.path(), subdir).ok();
            let want = want.map(|path| root.path().join(path));
            assert_eq!(found, want, "{subdir:?}");
        }
    }
}
