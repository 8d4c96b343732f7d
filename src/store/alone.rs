//! Having the store to oneself: `prune` and repairs wait for other processes a moment, and name them.

use std::fmt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::{MAX_LOCK_TABLE_BYTES, MAX_NAMED_PROCESSES};
use crate::pathio;

use super::lock::Lease;
use super::{Store, StoreError};

/// Pause between two looks whether the store is free.
const POLL: Duration = Duration::from_millis(50);
/// A wait that is shorter is not shown.
const UNSHOWN: Duration = Duration::from_millis(500);
/// A program's name in `/proc/PID/comm` is no longer (proc(5)).
const MAX_NAME_BYTES: u64 = 64;

/// Processes that use a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users(Vec<(u32, String)>);

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(users) = self;
        if users.is_empty() {
            return f.write_str("a process that is not visible here");
        }
        for (at, (pid, name)) in users.iter().take(MAX_NAMED_PROCESSES).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}process {pid} ({name})")?;
        }
        match users.len().saturating_sub(MAX_NAMED_PROCESSES) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Store {
    /// Waits until no other process uses the store, but no longer than `patience`; `waiting` is called
    /// once if that takes long. The store is this process's own until [`Store::prune`] or
    /// [`Store::verify`] is done.
    ///
    /// # Errors
    /// [`StoreError::InUse`], with the processes that use the store.
    pub fn wait_alone(
        &self,
        patience: Duration,
        waiting: &dyn Fn(&Users),
    ) -> Result<(), StoreError> {
        let started = Instant::now();
        let mut is_shown = false;
        while !self.in_use.try_upgrade() {
            // Two that wait for each other would never be alone.
            self.in_use.unlock();
            if started.elapsed() >= patience {
                return Err(in_use(&self.root));
            }
            if started.elapsed() >= UNSHOWN && !is_shown {
                is_shown = true;
                waiting(&users(&self.root));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Returns the error of a store that other processes use.
pub(super) fn in_use(root: &Path) -> StoreError {
    StoreError::InUse { root: root.to_owned(), users: users(root) }
}

/// Finds the other processes that hold the store's lock (proc_locks(5)). An empty list if the kernel
/// does not say, as for processes of another pid namespace.
fn users(root: &Path) -> Users {
    let Ok(lock) = rustix::fs::stat(Lease::of_store(root)) else { return Users::default() };
    let table = pathio::read_to_string(Path::new("/proc/locks"), MAX_LOCK_TABLE_BYTES);
    let mut pids = holders(&table.unwrap_or_default(), lock.st_ino);
    pids.retain(|pid| *pid != std::process::id());
    let name = |pid: u32| {
        let path = format!("/proc/{pid}/comm");
        let name = pathio::read_to_string(Path::new(&path), MAX_NAME_BYTES).unwrap_or_default();
        let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
        if name.is_empty() { "unknown".to_owned() } else { name }
    };
    Users(pids.into_iter().map(|pid| (pid, name(pid))).collect())
}

/// Returns the processes that hold a `flock` on a file with this inode number.
fn holders(table: &str, inode: u64) -> Vec<u32> {
    let mut pids: Vec<u32> = table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (kind, _advisory, _access) = (words.next()?, words.next()?, words.next()?);
            let (pid, file) = (words.next()?, words.next()?);
            let has_inode = file.rsplit(':').next()?.parse() == Ok(inode);
            let pid = pid.parse::<u32>().ok().filter(|pid| *pid > 0)?;
            (kind == "FLOCK" && has_inode).then_some(pid)
        })
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_of_a_lock_are_found_in_the_kernels_table() {
        let table = "1: FLOCK  ADVISORY  WRITE 1491 fe:00:77 0 EOF\n\
            1: -> FLOCK  ADVISORY  WRITE 1400 fe:00:77 0 EOF\n\
            2: POSIX  ADVISORY  WRITE 1492 fe:00:77 0 EOF\n\
            3: FLOCK  ADVISORY  READ 1485 fe:00:77 0 EOF\n\
            4: FLOCK  ADVISORY  READ 0 fe:00:77 0 EOF\n\
            5: FLOCK  ADVISORY  READ 1493 fe:00:78 0 EOF\n";
        assert_eq!(holders(table, 77), [1485, 1491]);
        assert_eq!(holders("", 77), Vec::<u32>::new());
    }

    #[test]
    fn users_are_named_in_one_line() {
        let users = |n: u32| Users((1..=n).map(|pid| (pid, "rbuild".to_owned())).collect());
        assert_eq!(users(2).to_string(), "process 1 (rbuild), process 2 (rbuild)");
        assert!(users(10).to_string().ends_with("process 4 (rbuild) and 6 more"));
        assert_eq!(users(0).to_string(), "a process that is not visible here");
    }
}
