//! Limits on memory and processors of a command, by a control group of its own (cgroups(7)).
//!
//! Version 2 is used where it has the controllers, else version 1. A group is locked (flock(2)) as long as
//! its rbuild lives: a group that can be locked was left behind by one that was killed, and is removed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::limits::{MAX_CGROUP_FILE_BYTES, MAX_LEFT_CGROUPS};
use crate::pathio;

use super::cgroup_files::{Hierarchies, Place, Setting, settings};
use super::error::SandboxError;

/// The start of the names of groups.
const PREFIX: &str = "rbuild-step-";
/// The file that moves a process into a group.
const PROCESSES: &str = "cgroup.procs";

/// Limits of a command. `None` means that of rbuild itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Maximum memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Maximum memory and swap together, bytes.
    pub memory_swap: Option<SwapLimit>,
    /// Relative weight, 1024 by default.
    pub cpu_shares: Option<u64>,
    /// Period of the quota, microseconds.
    pub cpu_period_us: Option<u64>,
    /// Time on processors in each period, microseconds.
    pub cpu_quota_us: Option<u64>,
    /// Processors, as in `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as in `0,1`.
    pub cpuset_mems: Option<String>,
    /// The group below which those of commands are made, from the root of the hierarchy.
    pub parent: Option<String>,
}

/// Maximum memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapLimit {
    /// As many bytes.
    Bytes(u64),
    /// No limit on swap.
    Unlimited,
}

/// The group of one command, in each hierarchy that limits it. It is removed when this value is dropped.
#[derive(Debug)]
pub struct StepCgroup {
    groups: Vec<Group>,
    memory_bytes: Option<u64>,
}

/// A group in one hierarchy.
#[derive(Debug)]
struct Group {
    path: PathBuf,
    /// Locked as long as rbuild lives.
    _directory: OwnedFd,
    processes: Arc<OwnedFd>,
    /// The file that counts processes killed for lack of memory.
    kills: Option<&'static str>,
}

impl StepCgroup {
    /// Makes groups with these limits.
    ///
    /// # Errors
    /// [`SandboxError::NoResourceLimit`], which names the limit that this machine cannot enforce.
    pub fn new(limits: &ResourceLimits) -> Result<Self, SandboxError> {
        let mounted =
            pathio::read_to_string(Path::new("/proc/self/mountinfo"), MAX_CGROUP_FILE_BYTES);
        let own = pathio::read_to_string(Path::new("/proc/self/cgroup"), MAX_CGROUP_FILE_BYTES);
        let texts = mounted.and_then(|mounted| Ok((mounted, own?)));
        let (mounted, own) = texts.map_err(|error| no_limit("resources", &error))?;
        let hierarchies = Hierarchies::read(&mounted, &own);
        let mut by_place: BTreeMap<Place, Vec<Setting>> = BTreeMap::new();
        for setting in settings(limits) {
            let found = hierarchies.find(setting.controller, limits.parent.as_deref());
            let place = found.ok_or_else(|| {
                let reason =
                    format!("no control group has the controller `{}`", setting.controller);
                no_limit(setting.option, &reason)
            })?;
            by_place.entry(place).or_default().push(setting);
        }
        if let (true, Some(parent)) = (by_place.is_empty(), &limits.parent) {
            let found = hierarchies.find("memory", Some(parent));
            let place = found
                .ok_or_else(|| no_limit("--cgroup-parent", &"no control groups are mounted"))?;
            by_place.insert(place, Vec::new());
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let mut made = Self { groups: Vec::new(), memory_bytes: limits.memory_bytes };
        for (place, settings) in by_place {
            made.groups.push(group(&place, &name, &settings)?);
        }
        Ok(made)
    }

    /// Returns the files into which a child writes to enter the groups.
    #[must_use]
    pub fn entries(&self) -> Vec<Arc<OwnedFd>> {
        self.groups.iter().map(|group| Arc::clone(&group.processes)).collect()
    }

    /// Returns the limit on memory, if the kernel has killed a process because of it.
    #[must_use]
    pub fn exceeded_memory(&self) -> Option<u64> {
        let has_killed = |group: &Group| {
            let path = group.path.join(group.kills?);
            let text = pathio::read_to_string(&path, MAX_CGROUP_FILE_BYTES).ok()?;
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
            (count.trim() != "0").then_some(())
        };
        self.groups.iter().find_map(has_killed)?;
        self.memory_bytes
    }
}

impl Drop for StepCgroup {
    fn drop(&mut self) {
        for group in &self.groups {
            remove(&group.path);
        }
    }
}

/// Removes a group. The kernel may still be ending its processes.
fn remove(path: &Path) {
    /// Number of attempts, a millisecond apart.
    const ATTEMPTS: u32 = 200;
    for _ in 0..ATTEMPTS {
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Err(Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(1)),
            // What cannot be removed now, the next rbuild removes.
            Ok(()) | Err(_) => return,
        }
    }
}

fn no_limit(option: &str, why: &dyn std::fmt::Display) -> SandboxError {
    SandboxError::NoResourceLimit { option: option.to_owned(), reason: why.to_string() }
}

fn group(place: &Place, name: &str, settings: &[Setting]) -> Result<Group, SandboxError> {
    let option = settings.first().map_or("--cgroup-parent", |setting| setting.option);
    let failed = |(path, error): (PathBuf, io::Error)| {
        no_limit(option, &format!("{}: {error}", path.display()))
    };
    let controllers: Vec<&str> = settings.iter().map(|setting| setting.controller).collect();
    let has_cpuset = controllers.contains(&"cpuset");
    prepare(place, &controllers).map_err(failed)?;
    remove_left(&place.directory);
    let path = place.directory.join(name);
    make(&path, has_cpuset && !place.is_v2).map_err(failed)?;
    // From here on it is removed if something fails.
    let made = fill(&path, settings, place.is_v2);
    made.inspect_err(|_error| remove(&path)).map_err(|(setting, error)| match setting {
        Some((option, file)) => {
            no_limit(option, &format!("{}: {error}", path.join(file).display()))
        }
        None => failed((path.clone(), error)),
    })
}

/// Makes the groups on the way to `place` that are missing, and passes the controllers on to their members.
fn prepare(place: &Place, controllers: &[&str]) -> Result<(), (PathBuf, io::Error)> {
    let below = place.directory.strip_prefix(&place.mount).unwrap_or(Path::new(""));
    let mut path = place.mount.clone();
    let mut names = below.components();
    loop {
        // Above a delegated group nothing can be enabled, nor needs to be.
        let is_last = path == place.directory;
        if place.is_v2
            && let Err(error) = enable(&path, controllers)
            && (is_last || !path.join("cgroup.subtree_control").exists())
        {
            return Err((path, error));
        }
        let Some(name) = names.next() else { return Ok(()) };
        path.push(name);
        if !path.exists() {
            make(&path, controllers.contains(&"cpuset") && !place.is_v2)?;
        }
    }
}

/// Makes a group. One of version 1 has neither processors nor memory nodes at first (cpuset(7)), so it gets
/// those of its parent if `copies_cpuset`.
fn make(path: &Path, copies_cpuset: bool) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error: io::Error| (path.to_owned(), error);
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).map_err(|errno| failed(errno.into()))?;
    let files = ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|_| copies_cpuset);
    for file in files {
        let parent = path.parent().unwrap_or(path).join(file);
        let value = pathio::read_to_string(&parent, MAX_CGROUP_FILE_BYTES);
        let value = value.map_err(|error| failed(io::Error::other(error)))?;
        write(&path.join(file), value.trim()).map_err(failed)?;
    }
    Ok(())
}

type FillError = (Option<(&'static str, &'static str)>, io::Error);

fn fill(path: &Path, settings: &[Setting], is_v2: bool) -> Result<Group, FillError> {
    let other = |errno: Errno| (None, io::Error::from(errno));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(other)?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).map_err(other)?;
    for setting in settings {
        let (file, value) = if is_v2 { &setting.v2 } else { &setting.v1 };
        write(&path.join(file), value).map_err(|error| (Some((setting.option, *file)), error))?;
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let processes = rustix::fs::open(path.join(PROCESSES), flags, Mode::empty()).map_err(other)?;
    let has_memory = settings.iter().any(|setting| setting.controller == "memory");
    let kills = has_memory.then_some(if is_v2 { "memory.events" } else { "memory.oom_control" });
    let processes = Arc::new(processes);
    Ok(Group { path: path.to_owned(), _directory: directory, processes, kills })
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    File::from(file).write_all(value.as_bytes())
}

/// Enables controllers for the groups below `parent` (cgroups(7), "Enabling controllers").
fn enable(parent: &Path, controllers: &[&str]) -> io::Result<()> {
    let path = parent.join("cgroup.subtree_control");
    let enabled = pathio::read_to_string(&path, MAX_CGROUP_FILE_BYTES).map_err(io::Error::other)?;
    for controller in controllers {
        if enabled.split_ascii_whitespace().any(|one| one == *controller) {
            continue;
        }
        write(&path, &format!("+{controller}")).map_err(|error| {
            let why = match Errno::from_io_error(&error) {
                Some(Errno::BUSY) => "it has processes of its own; name another one with --cgroup-parent",
                Some(Errno::ACCESS | Errno::ROFS | Errno::PERM) => {
                    "it is not delegated to this user: start rbuild with `systemd-run --user --scope -p \
                     Delegate=yes`, or as root"
                }
                Some(Errno::NOENT) => "it does not have the controller",
                Some(_) | None => return error,
            };
            io::Error::new(error.kind(), format!("cannot enable `{controller}`: {why}"))
        })?;
    }
    Ok(())
}

/// Removes groups whose rbuild was killed.
fn remove_left(parent: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::open(parent, flags, Mode::empty()).and_then(Dir::new);
    let Ok(listed) = listed else { return };
    let names = listed.filter_map(Result::ok).filter_map(|entry| {
        entry.file_name().to_str().ok().filter(|name| name.starts_with(PREFIX)).map(str::to_owned)
    });
    for name in names.take(MAX_LEFT_CGROUPS) {
        let path = parent.join(name);
        let Ok(directory) = rustix::fs::open(&path, flags, Mode::empty()) else { continue };
        if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _removed = rustix::fs::unlinkat(CWD, &path, AtFlags::REMOVEDIR);
        }
    }
}
