//! The files of control groups: pure functions over limits, `/proc/self/cgroup` and mount points
//! (cgroups(7); Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of Linux).

use std::path::{Path, PathBuf};

use super::cgroup::{ResourceLimits, SwapLimit};

/// A value in a file of a group, in both versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The option that asks for it.
    pub(super) option: &'static str,
    pub(super) controller: &'static str,
    /// File and value in version 1.
    pub(super) v1: (&'static str, String),
    /// File and value in version 2.
    pub(super) v2: (&'static str, String),
}

/// The period of a quota without `--cpu-period`, the kernel's default, microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// Returns what is written for the limits, in an order that the kernel accepts: the limit on memory and
/// swap is never below that on memory.
pub(super) fn settings(limits: &ResourceLimits) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut add = |option, controller, v1: (&'static str, String), v2: (&'static str, String)| {
        all.push(Setting { option, controller, v1, v2 });
    };
    if let Some(bytes) = limits.memory_bytes {
        let bytes = bytes.to_string();
        let v1 = ("memory.limit_in_bytes", bytes.clone());
        add("--memory", "memory", v1, ("memory.max", bytes));
    }
    let memory = limits.memory_bytes.unwrap_or(0);
    if let Some(swap) = limits.memory_swap {
        let (v1, v2) = match swap {
            SwapLimit::Bytes(bytes) => {
                (bytes.to_string(), bytes.saturating_sub(memory).to_string())
            }
            SwapLimit::Unlimited => ("-1".to_owned(), "max".to_owned()),
        };
        let v1 = ("memory.memsw.limit_in_bytes", v1);
        add("--memory-swap", "memory", v1, ("memory.swap.max", v2));
    }
    if let Some(shares) = limits.cpu_shares {
        let v1 = ("cpu.shares", shares.to_string());
        add("--cpu-shares", "cpu", v1, ("cpu.weight", weight(shares).to_string()));
    }
    cpu_time(limits, &mut add);
    let sets = [
        ("--cpuset-cpus", "cpuset.cpus", &limits.cpuset_cpus),
        ("--cpuset-mems", "cpuset.mems", &limits.cpuset_mems),
    ];
    for (option, file, value) in sets {
        if let Some(value) = value {
            add(option, "cpuset", (file, value.clone()), (file, value.clone()));
        }
    }
    all
}

type Add<'a> =
    dyn FnMut(&'static str, &'static str, (&'static str, String), (&'static str, String)) + 'a;

fn cpu_time(limits: &ResourceLimits, add: &mut Add<'_>) {
    let period = limits.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
    let quota = limits.cpu_quota_us.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
    // Version 2 has one file for both.
    let v2 = ("cpu.max", format!("{quota} {period}"));
    if limits.cpu_period_us.is_some() {
        add("--cpu-period", "cpu", ("cpu.cfs_period_us", period.to_string()), v2.clone());
    }
    if let Some(quota) = limits.cpu_quota_us {
        add("--cpu-quota", "cpu", ("cpu.cfs_quota_us", quota.to_string()), v2);
    }
}

/// Converts shares, 2 to 262144, to a weight, 1 to 10000, as runc does (`ConvertCPUSharesToCgroupV2Value`).
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    (shares - 2) * 9_999 / 262_142 + 1
}

/// A hierarchy of groups that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// Controllers of version 1; `None` for version 2.
    controllers: Option<Vec<String>>,
    /// The mount point.
    mount: PathBuf,
    /// The path of the group that is mounted there.
    root: PathBuf,
    /// The path of rbuild's own group.
    own: PathBuf,
}

/// The directory of a group, in which others are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    /// The mount point of its hierarchy.
    pub(super) mount: PathBuf,
    pub(super) is_v2: bool,
}

/// All hierarchies of groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    /// Reads the texts of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and `/proc/self/cgroup`.
    pub(super) fn read(mounts: &str, own: &str) -> Self {
        Self(mounts.lines().filter_map(|line| hierarchy(line, own)).collect())
    }

    /// Returns the directory in which a group with a controller is made: `parent`, or one that depends on
    /// rbuild's own group.
    pub(super) fn find(&self, controller: &str, parent: Option<&str>) -> Option<Place> {
        let of_v1 = self
            .0
            .iter()
            .find(|one| one.controllers.iter().flatten().any(|known| known == controller));
        let found = of_v1.or_else(|| self.0.iter().find(|one| one.controllers.is_none()))?;
        let (mount, is_v2) = (found.mount.clone(), found.controllers.is_none());
        Some(Place { directory: found.directory(parent)?, mount, is_v2 })
    }
}

impl Hierarchy {
    fn directory(&self, parent: Option<&str>) -> Option<PathBuf> {
        let group = match parent {
            Some(parent) => Path::new("/").join(parent.trim_start_matches('/')),
            // A group with processes cannot give controllers to others, except for the root (cgroups(7), "no
            // internal processes"). rbuild is in its own, so the new one is made beside that.
            None if self.controllers.is_none() => self.own.parent().unwrap_or(&self.own).to_owned(),
            None => self.own.clone(),
        };
        // In a container, the mount shows the container's own group as the root.
        let below = group.strip_prefix(&self.root).or_else(|_| group.strip_prefix("/")).ok()?;
        Some(self.mount.join(below))
    }
}

fn hierarchy(line: &str, own: &str) -> Option<Hierarchy> {
    let (fields, kind) = line.split_once(" - ")?;
    let mut fields = fields.split(' ');
    let (root, mount) = (fields.nth(3)?, fields.next()?);
    let mut kind = kind.split(' ');
    let (name, options) = (kind.next()?, kind.nth(1)?);
    let controllers = match name {
        "cgroup2" => None,
        "cgroup" => Some(options.split(',').map(str::to_owned).collect::<Vec<String>>()),
        _ => return None,
    };
    let own = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match &controllers {
            None => names.is_empty(),
            Some(controllers) => {
                !names.is_empty()
                    && names.split(',').all(|name| controllers.iter().any(|one| one == name))
            }
        };
        is_it.then_some(path)
    })?;
    Some(Hierarchy { controllers, mount: mount.into(), root: root.into(), own: own.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
        31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const OWN_V1: &str = "5:memory:/user/a\n4:cpu,cpuacct:/\n0::/\n";
    const V2: &str = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn hierarchies_are_found_in_both_versions() {
        let find = |mounts: &str, own: &str, controller: &str, parent: Option<&str>| {
            let found = Hierarchies::read(mounts, own).find(controller, parent);
            found.map(|place| (place.directory, place.is_v2))
        };
        for (mounts, own, controller, parent, want) in [
            (V1, OWN_V1, "memory", None, Some(("/sys/fs/cgroup/memory/user/a", false))),
            (V1, OWN_V1, "cpu", None, Some(("/sys/fs/cgroup/cpu,cpuacct/", false))),
            (V1, OWN_V1, "cpu", Some("/x"), Some(("/sys/fs/cgroup/cpu,cpuacct/x", false))),
            (V1, OWN_V1, "cpuset", None, Some(("/sys/fs/cgroup/unified/", true))),
            (V2, "0::/a.slice/b\n", "memory", None, Some(("/sys/fs/cgroup/a.slice", true))),
            (V2, "0::/a.slice\n", "memory", Some("b/c"), Some(("/sys/fs/cgroup/b/c", true))),
            ("", "0::/\n", "memory", None, None),
        ] {
            let want = want.map(|(path, is_v2)| (PathBuf::from(path), is_v2));
            assert_eq!(find(mounts, own, controller, parent), want, "{own} {controller}");
        }
    }

    #[test]
    fn container_sees_its_own_group_as_the_root() {
        let mounts = "9 8 0:1 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = Hierarchies::read(mounts, "1:memory:/docker/x/y\n").find("memory", None);
        assert_eq!(found.unwrap().directory, PathBuf::from("/sys/fs/cgroup/memory/y"));
    }

    #[test]
    fn limits_have_their_files() {
        let limits = ResourceLimits {
            memory_bytes: Some(100),
            memory_swap: Some(SwapLimit::Bytes(150)),
            cpu_shares: Some(1024),
            cpu_period_us: Some(50_000),
            cpu_quota_us: Some(25_000),
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: None,
            parent: None,
        };
        let line = |setting: Setting| {
            let Setting { option, controller, v1, v2 } = setting;
            format!("{option} {controller}: {}={} {}={}\n", v1.0, v1.1, v2.0, v2.1)
        };
        let lines: String = settings(&limits).into_iter().map(line).collect();
        insta::assert_snapshot!(lines, @"
        --memory memory: memory.limit_in_bytes=100 memory.max=100
        --memory-swap memory: memory.memsw.limit_in_bytes=150 memory.swap.max=50
        --cpu-shares cpu: cpu.shares=1024 cpu.weight=39
        --cpu-period cpu: cpu.cfs_period_us=50000 cpu.max=25000 50000
        --cpu-quota cpu: cpu.cfs_quota_us=25000 cpu.max=25000 50000
        --cpuset-cpus cpuset: cpuset.cpus=0-1 cpuset.cpus=0-1
        ");
        assert_eq!(
            [weight(0), weight(2), weight(262_144), weight(u64::MAX)],
            [1, 1, 10_000, 10_000]
        );
        assert_eq!(settings(&ResourceLimits::default()), []);
    }
}
