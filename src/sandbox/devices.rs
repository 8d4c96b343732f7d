//! The contents of a step's own `/dev` (runtime-spec, config-linux.md, "Default Devices").

/// A character device in `/dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its file name in `/dev`.
    pub name: &'static str,
    /// Its major and minor number (Documentation/admin-guide/devices.txt of Linux).
    pub number: (u32, u32),
}

/// The devices of every step.
pub(super) const DEVICES: [Device; 6] = [
    NULL,
    Device { name: "zero", number: (1, 5) },
    Device { name: "full", number: (1, 7) },
    Device { name: "random", number: (1, 8) },
    Device { name: "urandom", number: (1, 9) },
    Device { name: "tty", number: (5, 0) },
];

/// The null device, which is also the input of a step without one.
pub(super) const NULL: Device = Device { name: "null", number: (1, 3) };

/// Symbolic links in `/dev` and their targets, as in docker's containers (runtime-spec,
/// runtime-linux.md, "Dev symbolic links").
pub(super) const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Directories in `/dev` that are mount points.
pub(super) const DEV_DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];
