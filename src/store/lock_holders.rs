//! Names the processes that use a store: those that hold its lock `locks/in-use`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::limits::{MAX_LOCK_TABLE_BYTES, MAX_NAMED_PROCESSES};
use crate::pathio;

/// Maximum size that is read of `/proc/PID/comm`, which the kernel truncates to 16 bytes
/// (proc_pid_comm(5)).
const MAX_NAME_BYTES: u64 = 64;

/// Returns the path of the lock that every process holds shared while it uses the store at `root`.
pub(super) fn in_use_path(root: &Path) -> PathBuf {
    root.join("locks/in-use")
}

/// Processes that use a store: id and name of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockHolders(Vec<(u32, String)>);

impl fmt::Display for LockHolders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(holders) = self;
        if holders.is_empty() {
            return f.write_str("a process that is not visible here");
        }
        for (at, (pid, name)) in holders.iter().take(MAX_NAMED_PROCESSES).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}process {pid} ({name})")?;
        }
        match holders.len().saturating_sub(MAX_NAMED_PROCESSES) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl LockHolders {
    /// Finds the other processes that use the store at `root`, in `/proc/locks` (proc_locks(5)).
    ///
    /// The list is empty if the kernel does not show them, as for processes of another pid
    /// namespace.
    pub(super) fn of_store(root: &Path) -> Self {
        let Ok(lock) = rustix::fs::stat(in_use_path(root)) else { return Self::default() };
        let table = pathio::read_to_string(Path::new("/proc/locks"), MAX_LOCK_TABLE_BYTES);
        let mut pids = pids_with_flock(&table.unwrap_or_default(), lock.st_ino);
        pids.retain(|pid| *pid != std::process::id());
        Self(pids.into_iter().map(|pid| (pid, process_name(pid))).collect())
    }
}

fn process_name(pid: u32) -> String {
    let path = format!("/proc/{pid}/comm");
    let name = pathio::read_to_string(Path::new(&path), MAX_NAME_BYTES).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Returns the processes that hold a `flock` on a file with this inode number, sorted.
fn pids_with_flock(table: &str, inode: u64) -> Vec<u32> {
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
        assert_eq!(pids_with_flock(table, 77), [1485, 1491]);
        assert_eq!(pids_with_flock("", 77), Vec::<u32>::new());
    }

    #[test]
    fn holders_are_listed_in_one_line() {
        let holders = |n: u32| LockHolders((1..=n).map(|pid| (pid, "rbuild".to_owned())).collect());
        assert_eq!(holders(2).to_string(), "process 1 (rbuild), process 2 (rbuild)");
        assert!(holders(10).to_string().ends_with("process 4 (rbuild) and 6 more"));
        assert_eq!(holders(0).to_string(), "a process that is not visible here");
    }
}
