//! The contents of a step's own `/dev`.

/// A device that every container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its name in `/dev`.
    pub name: &'static str,
    /// Its major and minor number (Documentation/admin-guide/devices.txt).
    pub number: (u32, u32),
}

/// Devices that a container has.
pub(super) const DEVICES: [Device; 6] = [
    NULL,
    Device { name: "zero", number: (1, 5) },
    Device { name: "full", number: (1, 7) },
    Device { name: "random", number: (1, 8) },
    Device { name: "urandom", number: (1, 9) },
    Device { name: "tty", number: (5, 0) },
];

/// The device that a step reads when it has no input.
pub(super) const NULL: Device = Device { name: "null", number: (1, 3) };

/// Links in `/dev`, as docker makes them.
pub(super) const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Directories in `/dev`, for file systems of their own.
pub(super) const DEV_DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];
