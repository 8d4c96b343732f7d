//! The program that a step's child executes first, and that executes the step's command.
//!
//! While execve(2) resolves a path, a `#!` line or an ELF interpreter, `/proc/self/exe` still
//! refers to the *calling* program. If that were rbuild, a command of `/proc/self/exe` would give a
//! step a handle on the host's binary (CVE-2019-5736 in runc). So the child first becomes this
//! program of a few hundred bytes: a sealed file in memory (memfd_create(2)), which no process can
//! write to and which disappears with the last process that uses it.
//!
//! The candidate paths are part of the file. So the command's arguments and environment reach it
//! unchanged, and the limit on their size stays the same.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::{Errno, Result};

use super::elf_image::{self, Segment};
use super::error::SandboxError;
use super::spec::RunSpec;
use super::sys::{launcher, mount};
use super::{c_strings, detached_mount};

/// The exit status of a launcher that the command itself started.
#[cfg(test)]
pub(super) const STARTED_BY_COMMAND: u8 = 126;

/// The address at which the file is mapped: above `vm.mmap_min_addr`, and aligned for pages of up
/// to 64 KiB.
const ADDRESS: u64 = 0x40_0000;
const ALIGNMENT: u64 = 0x1_0000;

/// Creates the launcher that tries `programs` in order. Returns a descriptor for execveat(2).
///
/// # Errors
/// The kernel's error; `ACCESS` if neither a file in memory nor one in a tmpfs may be executable.
pub(super) fn make(programs: &[CString]) -> Result<OwnedFd> {
    let image = image(programs);
    match sealed(&image) {
        // `vm.memfd_noexec=2` (Linux 6.3) forbids executable files in memory (memfd_create(2)).
        Err(Errno::ACCESS | Errno::PERM) => in_tmpfs(&image),
        made => made,
    }
}

/// Returns the paths at which execvp(3) would look for the program.
pub(super) fn programs(spec: &RunSpec) -> std::result::Result<Vec<CString>, SandboxError> {
    let Some(program) = spec.argv.first().filter(|program| !program.is_empty()) else {
        return Err(SandboxError::NotFound {
            argv0: spec.argv.first().cloned().unwrap_or_default(),
        });
    };
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![c_strings::named("execute", program)?]);
    }
    let path = spec.env.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value.as_os_str());
    path.as_bytes()
        .split(|byte| *byte == b':')
        .map(|directory| match directory {
            b"" => Path::new(".").join(program),
            directory => Path::new(OsStr::from_bytes(directory)).join(program),
        })
        .map(|candidate| c_strings::named("execute", candidate.as_os_str()))
        .collect()
}

/// The search path of a command whose environment has no `PATH`: docker's default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Creates a memfd with content `image`, and seals it against all changes (fcntl(2), "File
/// Sealing").
fn sealed(image: &[u8]) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(c"rbuild-launcher", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 the flag is unknown, and all memfds are executable.
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"rbuild-launcher", flags)?,
        made => made?,
    };
    write_all(&file, image)?;
    let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    match rustix::fs::fcntl_add_seals(&file, all | SealFlags::EXEC | SealFlags::SEAL) {
        // `F_SEAL_EXEC`, which forbids a change of the execute bits, exists since Linux 6.3.
        Err(Errno::INVAL) => rustix::fs::fcntl_add_seals(&file, all | SealFlags::SEAL)?,
        sealed => sealed?,
    }
    Ok(file)
}

/// Creates the file in a read-only tmpfs that is mounted nowhere.
fn in_tmpfs(image: &[u8]) -> Result<OwnedFd> {
    let tmpfs = detached_mount::new_tmpfs()?;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&tmpfs, c"launcher", new, Mode::from(0o555))?;
    write_all(&file, image)?;
    drop(file);
    mount::restrict_tree(tmpfs.as_fd(), mount::READ_ONLY | mount::NO_SUID | mount::NO_DEV)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&tmpfs, c"launcher", flags, Mode::empty())
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let len = rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))?;
        bytes = bytes.get(len..).unwrap_or_default();
    }
    Ok(())
}

/// Returns the launcher as an ELF file: headers, code, paths.
fn image(programs: &[CString]) -> Vec<u8> {
    let code = launcher::code();
    let headers = elf_image::headers_bytes(2);
    let paths: usize = programs.iter().map(|path| path.as_bytes_with_nul().len()).sum();
    let len =
        usize::from(headers).saturating_add(code.len()).saturating_add(paths).saturating_add(1);
    let mut image = file_headers(headers, u64::try_from(len).unwrap_or(u64::MAX));
    image.extend_from_slice(code);
    for path in programs {
        image.extend_from_slice(path.as_bytes_with_nul());
    }
    image.push(0);
    image
}

/// Returns headers for one segment with the whole file, readable and executable.
fn file_headers(headers: u16, len: u64) -> Vec<u8> {
    let whole_file = Segment {
        kind: elf_image::LOAD,
        flags: elf_image::READ_EXECUTE,
        offset: 0,
        address: ADDRESS,
        file_bytes: len,
        memory_bytes: len,
        alignment: ALIGNMENT,
    };
    let entry = ADDRESS.saturating_add(u64::from(headers));
    elf_image::headers(entry, &[whole_file, Segment::STACK])
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests start programs")]

    use std::os::fd::AsRawFd as _;
    use std::process::Command;

    use super::*;

    fn paths(paths: &[&str]) -> Vec<CString> {
        paths.iter().map(|path| CString::new(*path).unwrap()).collect()
    }

    #[test]
    fn image_is_one_page_at_most_for_a_usual_path() {
        let image = image(&paths(&["/usr/local/sbin/sh", "/usr/bin/sh"]));
        assert!(image.len() < 1024, "{}", image.len());
        assert!(image.ends_with(b"/usr/local/sbin/sh\0/usr/bin/sh\0\0"));
    }

    #[test]
    fn launcher_cannot_be_written_to_or_grown() {
        let file = sealed(&image(&paths(&["/bin/true"]))).unwrap();
        assert_eq!(rustix::io::pwrite(&file, b"x", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&file, 1 << 20), Err(Errno::PERM));
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let open = std::fs::OpenOptions::new().append(true).open(&path);
        assert!(open.is_err() || std::io::Write::write(&mut open.unwrap(), b"x").is_err());
    }

    #[test]
    fn launcher_started_without_a_status_pipe_exits_at_once() {
        let file = sealed(&image(&paths(&["/bin/true"]))).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        // The shell closes its copy of descriptor 3, if there is any.
        let status = Command::new("/bin/sh").arg("-c").arg(format!("{path} 3>&-")).status();
        assert_eq!(status.unwrap().code(), Some(STARTED_BY_COMMAND.into()));
    }

    #[test]
    fn launcher_in_a_tmpfs_has_the_same_bytes() {
        if !super::super::caps::has_sys_admin() {
            assert!(std::env::var_os("RBUILD_REQUIRE").is_none(), "required: the right to mount");
            return;
        }
        let image = image(&paths(&["/bin/true"]));
        let file = in_tmpfs(&image).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(std::fs::read(&path).unwrap(), image);
        let written = std::fs::OpenOptions::new().write(true).open(&path).unwrap_err();
        assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
}
