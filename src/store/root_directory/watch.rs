//! Notices that a step changed nothing, so that its directory need not be scanned (inotify(7)).
//!
//! Every directory is watched. A change by way of a name in a watched directory leaves an event there: of
//! the file's content and attributes, and of names. The first change that a step makes is of that kind.
//! Later ones may not be, as in directories that it has created, so the events say only whether there was
//! a change, and not which.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

/// Size of the buffer for events, bytes: some hundred events.
const EVENT_BYTES: usize = 16 << 10;
/// Maximum number of reads: a queue has 16,384 events by default, of at most 272 bytes.
const MAX_READS: usize = 512;

/// The watches of all directories of a root.
#[derive(Debug)]
pub(super) struct Watch {
    queue: OwnedFd,
    /// True if a directory is not watched, because the system's limit is reached
    /// (`/proc/sys/fs/inotify/max_user_watches`), or events could not be read.
    has_gaps: AtomicBool,
}

impl Watch {
    /// Returns watches of no directories; `None` if the system permits none.
    pub(super) fn new() -> Option<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        Some(Self { queue, has_gaps: AtomicBool::new(false) })
    }

    /// Watches a directory.
    pub(super) fn add(&self, directory: BorrowedFd<'_>) {
        if self.has_gaps.load(Ordering::Relaxed) {
            return;
        }
        // A write by way of a mapping leaves no event before the file is closed.
        let changes = WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF;
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        if inotify::add_watch(&self.queue, path, changes | WatchFlags::ONLYDIR).is_err() {
            self.has_gaps.store(true, Ordering::Relaxed);
        }
    }

    /// Discards the events so far, and returns whether there were none. Returns false if a directory is
    /// not watched.
    pub(super) fn was_quiet(&self) -> bool {
        let mut events = vec![0; EVENT_BYTES];
        let mut was_quiet = true;
        for _ in 0..MAX_READS {
            match rustix::io::read(&self.queue, &mut events) {
                Ok(_) | Err(Errno::INTR) => was_quiet = false,
                Err(Errno::AGAIN) => return was_quiet && !self.has_gaps.load(Ordering::Relaxed),
                Err(_) => break,
            }
        }
        self.has_gaps.store(true, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make their own files")]

    use std::fs::{self, File, OpenOptions, Permissions};
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    /// Returns a directory whose directories are all watched.
    fn watched() -> (tempfile::TempDir, Watch) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("d/e")).unwrap();
        for name in ["file", "d/file", "d/e/file"] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::hard_link(root.join("d/e/file"), root.join("other")).unwrap();
        let watch = Watch::new().unwrap();
        for name in ["", "d", "d/e"] {
            watch.add(File::open(root.join(name)).unwrap().as_fd());
        }
        assert!(watch.was_quiet());
        (directory, watch)
    }

    #[test]
    fn each_kind_of_change_is_noticed() {
        let write = |path: &Path| OpenOptions::new().write(true).open(path).unwrap();
        type Change<'a> = (&'a str, &'a dyn Fn(&Path));
        let changes: [Change<'_>; 14] = [
            ("content", &|root| write(&root.join("d/e/file")).write_all_at(b"x", 0).unwrap()),
            ("another name", &|root| write(&root.join("other")).write_all_at(b"x", 0).unwrap()),
            ("by descriptor", &|root| {
                let file = File::open(root.join("file")).unwrap();
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                write(path.as_ref()).write_all(b"x").unwrap();
            }),
            ("length", &|root| {
                write(&root.join("d/file")).set_len(1).unwrap();
            }),
            ("mode", &|root| {
                fs::set_permissions(root.join("d/e"), Permissions::from_mode(0o700)).unwrap();
            }),
            ("time", &|root| {
                write(&root.join("file")).set_modified(std::time::UNIX_EPOCH).unwrap();
            }),
            ("new file", &|root| drop(File::create(root.join("d/e/new")).unwrap())),
            ("new directory", &|root| fs::create_dir(root.join("d/new")).unwrap()),
            ("new link", &|root| symlink("x", root.join("d/link")).unwrap()),
            ("new name", &|root| fs::hard_link(root.join("file"), root.join("d/e/name")).unwrap()),
            ("removed", &|root| fs::remove_file(root.join("d/e/file")).unwrap()),
            ("renamed", &|root| fs::rename(root.join("d/file"), root.join("d/e/file")).unwrap()),
            ("moved directory", &|root| fs::rename(root.join("d/e"), root.join("e")).unwrap()),
            ("own mode", &|root| fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap()),
        ];
        for (name, change) in changes {
            let (directory, watch) = watched();
            change(directory.path());
            assert!(!watch.was_quiet(), "{name}");
            assert!(watch.was_quiet(), "{name}: once");
        }
    }

    #[test]
    fn reading_is_no_change() {
        let (directory, watch) = watched();
        let root = directory.path();
        fs::read(root.join("d/e/file")).unwrap();
        fs::read_dir(root.join("d")).unwrap().for_each(drop);
        fs::metadata(root.join("d/e")).unwrap();
        assert!(watch.was_quiet());
    }

    #[test]
    fn watch_with_a_gap_is_never_quiet() {
        let (directory, watch) = watched();
        watch.add(File::open(directory.path().join("file")).unwrap().as_fd());
        assert!(!watch.was_quiet() && !watch.was_quiet(), "a file is no directory");
    }

    #[test]
    fn more_events_than_the_queue_holds_are_a_change() {
        let (directory, watch) = watched();
        for number in 0..20_000 {
            let name = directory.path().join(if number % 2 == 0 { "a" } else { "b" });
            File::create(name).unwrap().write_all(b"x").unwrap();
        }
        assert!(!watch.was_quiet());
        assert!(watch.was_quiet());
    }
}
