//! The memory for changes of steps whose store is on a file system without overlays: how much there is,
//! and how much of it is in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::pathio;

/// Minimum size for which a directory in memory is worth making, bytes.
const MIN_BYTES: u64 = 64 << 20;
/// Maximum size of a file of the kernel about memory.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The memory for changes of steps, shared by all steps of a build.
#[derive(Debug)]
pub(in crate::executor) struct MemoryBudget {
    max_bytes: u64,
    /// Bytes that steps have reserved, or that finished layers use.
    taken: AtomicU64,
}

/// A part of the budget. It is free again when this value is dropped.
#[derive(Debug)]
pub(in crate::executor) struct ReservedMemory {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl MemoryBudget {
    /// Returns a budget of this size; by default half of the memory that is available now.
    pub(in crate::executor) fn new(max_bytes: Option<u64>) -> Self {
        let max_bytes = max_bytes.unwrap_or_else(|| available_memory().unwrap_or(0) / 2);
        Self { max_bytes, taken: AtomicU64::new(0) }
    }

    /// Returns its size, bytes.
    pub(in crate::executor) const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Reserves half of what is left, so that something remains for a step that runs at the same time;
    /// `None` if that is too little.
    pub(in crate::executor) fn reserve(self: &Arc<Self>) -> Option<ReservedMemory> {
        let half = |taken: u64| self.max_bytes.saturating_sub(taken) / 2;
        let reserve = |taken| Some(taken + half(taken)).filter(|_| half(taken) >= MIN_BYTES);
        let order = Ordering::Relaxed;
        let taken = self.taken.fetch_update(order, order, reserve).ok()?;
        Some(ReservedMemory { budget: Arc::clone(self), bytes: half(taken) })
    }
}

impl ReservedMemory {
    /// Returns its size, bytes.
    pub(in crate::executor) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the free space that a step may be shown at most, bytes: seven eighths of twice the budget,
    /// which by default is half of the memory that is available. A program may refuse to begin where it
    /// sees too little space.
    pub(in crate::executor) fn max_shown_bytes(&self) -> u64 {
        self.budget.max_bytes / 4 * 7
    }

    /// Keeps only `used` bytes of it, until the end of the build. Returns false, and frees all of it, if
    /// too little of the budget would remain for steps.
    pub(in crate::executor) fn keep(mut self, used: u64) -> bool {
        let (budget, bytes) = (Arc::clone(&self.budget), self.bytes);
        let keep = |taken: u64| {
            let kept = taken.saturating_sub(bytes).saturating_add(used);
            Some(kept).filter(|kept| *kept <= budget.max_bytes / 2)
        };
        let order = Ordering::Relaxed;
        let is_kept = budget.taken.fetch_update(order, order, keep).is_ok();
        if is_kept {
            self.bytes = 0;
        }
        is_kept
    }
}

impl Drop for ReservedMemory {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Returns the memory that new files can take, bytes: that of the machine (proc_meminfo(5),
/// `MemAvailable`), or less if a cgroup limits it (cgroups(7)). Cached files that were not used lately
/// count as free.
fn available_memory() -> Option<u64> {
    let machine = of_meminfo(&read("/proc/meminfo".as_ref())?)?;
    let cgroups = read("/proc/self/cgroup".as_ref()).unwrap_or_default();
    let limits = cgroup_files(&cgroups).into_iter().filter_map(|files| files.left());
    Some(limits.fold(machine, u64::min))
}

fn read(path: &Path) -> Option<String> {
    let bytes = pathio::read(path, MAX_FILE_BYTES).ok()?;
    String::from_utf8(bytes).ok()
}

fn of_meminfo(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Files of a cgroup about its memory, with one number each but the last.
struct CgroupFiles {
    limit: PathBuf,
    usage: PathBuf,
    statistics: PathBuf,
    /// Key of the line in `statistics` with the size of cached files that were not used lately.
    cached: &'static str,
}

impl CgroupFiles {
    /// Returns the memory that is left, bytes; `None` if there is no limit.
    fn left(&self) -> Option<u64> {
        let number = |path: &Path| read(path)?.trim().parse::<u64>().ok();
        let statistics = read(&self.statistics).unwrap_or_default();
        let cached = statistics.lines().find_map(|line| {
            let (key, value) = line.split_once(' ')?;
            (key == self.cached).then(|| value.parse::<u64>().ok()).flatten()
        });
        let used = number(&self.usage).unwrap_or(0).saturating_sub(cached.unwrap_or(0));
        Some(number(&self.limit)?.saturating_sub(used))
    }
}

/// Returns the files of each cgroup that this process is in, as `/proc/self/cgroup` names them. In a
/// container, that may name cgroups that it does not see: its own is then the root of the hierarchy.
fn cgroup_files(cgroups: &str) -> Vec<CgroupFiles> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (hierarchy, limit, usage, cached) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                let (limit, usage) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
                ("/sys/fs/cgroup/memory", limit, usage, "total_inactive_file")
            }
            _ => continue,
        };
        for cgroup in Path::new(path).ancestors() {
            let directory = Path::new(hierarchy).join(cgroup.strip_prefix("/").unwrap_or(cgroup));
            let [limit, usage, statistics] =
                [limit, usage, "memory.stat"].map(|name| directory.join(name));
            files.push(CgroupFiles { limit, usage, statistics, cached });
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_share_the_budget_and_layers_leave_half_of_it() {
        let budget = Arc::new(MemoryBudget::new(Some(1024 << 20)));
        let first = budget.reserve().unwrap();
        let second = budget.reserve().unwrap();
        assert_eq!([first.bytes() >> 20, second.bytes() >> 20], [512, 256]);
        assert!(first.keep(100 << 20));
        drop(second);
        let third = budget.reserve().unwrap();
        assert_eq!(third.bytes() >> 20, 462);
        assert!(!third.keep(450 << 20), "more than half of the budget");
        assert_eq!(budget.reserve().unwrap().bytes() >> 20, 462, "its memory is free again");
    }

    #[test]
    fn small_budget_is_not_used() {
        assert!(Arc::new(MemoryBudget::new(Some(MIN_BYTES))).reserve().is_none());
        assert!(Arc::new(MemoryBudget::new(Some(2 * MIN_BYTES))).reserve().is_some());
        assert!(Arc::new(MemoryBudget::new(Some(0))).reserve().is_none());
    }

    #[test]
    fn cached_files_count_as_free() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            pathio::write(&directory.path().join(name), content.as_bytes()).unwrap();
            directory.path().join(name)
        };
        let files = CgroupFiles {
            limit: file("limit", "1000\n"),
            usage: file("usage", "900\n"),
            statistics: file("statistics", "anon 1\ninactive_file 300\nactive_file 2\n"),
            cached: "inactive_file",
        };
        assert_eq!(files.left(), Some(400));
        assert_eq!(CgroupFiles { limit: file("limit", "max\n"), ..files }.left(), None);
    }

    #[test]
    fn available_memory_is_that_of_the_machine_and_of_all_cgroups() {
        let meminfo = "MemTotal:  100 kB\nMemFree:   10 kB\nMemAvailable:   24 kB\n";
        assert_eq!(of_meminfo(meminfo), Some(24 << 10));
        let shown = |cgroups| {
            let files = cgroup_files(cgroups).into_iter();
            files.map(|files| files.limit.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            shown("0::/a/b\n"),
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            shown("4:cpu:/x\n3:memory,hugetlb:/x\n1:name=systemd:/\n"),
            [
                "/sys/fs/cgroup/memory/x/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
    }
}
