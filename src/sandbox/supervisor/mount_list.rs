//! The mounts that a step sees in `/proc/PID/mountinfo` and `/proc/PID/mounts`. The kernel's lists have
//! those of the machine, or none in a root of chroot(2); mountpoint(1) and df(1) read them.

use std::fmt::Write as _;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use rustix::io::{Errno, Result};

use super::Supervisor;
use super::lookup::Found;
use super::mounts::path_of;

/// The first id of a mount in the list; any number will do.
const FIRST_ID: usize = 100;

impl Supervisor {
    /// Returns the list of mounts, if the file is one.
    pub(super) fn mount_list(&self, found: &Found) -> Result<Option<OwnedFd>> {
        if !found.mount.and_then(|at| self.mounts.get(at)).is_some_and(|mount| mount.is_proc) {
            return Ok(None);
        }
        let path = path_of(&found.file)?;
        let text = match path.rsplit(|byte| *byte == b'/').next() {
            Some(b"mountinfo") => self.mountinfo(),
            Some(b"mounts") => self.mounts_text(),
            _ => return Ok(None),
        };
        let mut file =
            std::fs::File::from(rustix::fs::memfd_create("mounts", MemfdFlags::CLOEXEC)?);
        let written = file.write_all(text.as_bytes()).and_then(|()| file.seek(SeekFrom::Start(0)));
        written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(Some(file.into()))
    }

    /// Returns the mount points with the types of their file systems, the root first.
    fn mount_points(&self) -> impl Iterator<Item = (String, &'static str)> {
        let kind = |target: &[u8]| match target {
            b"/proc" => "proc",
            b"/sys" => "sysfs",
            b"/dev/pts" => "devpts",
            _ => "tmpfs",
        };
        let points = self.mounts.iter().map(move |mount| {
            // Spaces are written as octal numbers (proc_pid_mountinfo(5)).
            let target = String::from_utf8_lossy(&mount.target).replace(' ', "\\040");
            (target, kind(&mount.target))
        });
        std::iter::once(("/".to_owned(), "overlay")).chain(points)
    }

    fn mountinfo(&self) -> String {
        let mut text = String::new();
        for (index, (target, kind)) in self.mount_points().enumerate() {
            let id = index.saturating_add(FIRST_ID);
            let parent = if index == 0 { FIRST_ID.saturating_sub(1) } else { FIRST_ID };
            // Writing to a string does not fail.
            let _ok =
                writeln!(text, "{id} {parent} 0:{id} / {target} rw,relatime - {kind} {kind} rw");
        }
        text
    }

    fn mounts_text(&self) -> String {
        let lines = self
            .mount_points()
            .map(|(target, kind)| format!("{kind} {target} {kind} rw,relatime 0 0\n"));
        lines.collect()
    }
}
