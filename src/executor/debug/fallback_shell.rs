//! A fallback shell for images that have none: the machine's busybox, if it is statically linked.
//!
//! It is copied into memory, which is mounted read-only in the step's own `/dev`. The image's
//! directories stay unchanged, and the session sees no file of the machine.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::oci::DEFAULT_PATH;
use crate::sandbox::{self, Mount, MountSource, SandboxError};

/// Mount point in the session.
const DIRECTORY: &str = "/dev/rbuild";
/// Path of the shell in the session.
pub(in crate::executor) const PROGRAM: &str = "/dev/rbuild/sh";
/// Maximum size of a busybox; usual ones have one or two megabytes.
const MAX_BYTES: u64 = 32 << 20;
/// Paths that are tried after those in PATH.
const USUAL: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"];
/// Applets that are useful in a session. An applet that this busybox lacks reports that itself.
const APPLETS: &str = "sh ash [ awk base64 basename cat chgrp chmod chown clear cmp cp cut date dd df \
    diff dirname dmesg du echo ed env expr false file find free getopt grep egrep fgrep groups \
    gunzip gzip head hexdump hostname id ifconfig ip kill killall less ln ls lsof md5sum mkdir mkfifo \
    mktemp more mount mv nc netstat nproc nslookup od pgrep ping printenv printf ps pwd readlink \
    realpath reset rm rmdir route sed seq sha1sum sha256sum sha512sum sleep sort stat strings stty \
    tac tail tar tee telnet test time timeout top touch tr traceroute true truncate tty umount \
    uname uniq unzip vi watch wc wget which who whoami xargs xxd xz yes zcat";

/// Finds a statically linked busybox on this machine.
pub(in crate::executor) fn find(path: Option<&str>) -> Option<PathBuf> {
    let listed = path.unwrap_or_default().split(':').filter(|directory| directory.starts_with('/'));
    let listed = listed.map(|directory| Path::new(directory).join("busybox"));
    listed
        .chain(USUAL.map(PathBuf::from))
        .find(|file| read(file).is_ok_and(|program| is_static(&program)))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns whether this is a 64-bit ELF program that names no interpreter (elf(5)).
fn is_static(program: &[u8]) -> bool {
    /// `PT_INTERP` in elf(5): path of the dynamic loader.
    const INTERPRETER: u32 = 3;
    let word = |at: usize| {
        program.get(at..at.checked_add(2)?)?.first_chunk().map(|b| u16::from_le_bytes(*b))
    };
    let headers = || {
        let at = usize::try_from(u64::from_le_bytes(*program.get(32..40)?.first_chunk()?)).ok()?;
        let (size, count) = (usize::from(word(54)?), usize::from(word(56)?));
        let kinds = (0..count).map(move |n| {
            let at = at.checked_add(n.checked_mul(size)?)?;
            let kind = program.get(at..at.checked_add(4)?)?.first_chunk()?;
            Some(u32::from_le_bytes(*kind))
        });
        // An unreadable header counts as an interpreter.
        Some(kinds.map(|kind| kind.unwrap_or(INTERPRETER)).collect::<Vec<u32>>())
    };
    program.starts_with(b"\x7fELF\x02\x01")
        && headers().is_some_and(|kinds| !kinds.is_empty() && !kinds.contains(&INTERPRETER))
}

/// Returns PATH with the fallback programs at its end.
pub(in crate::executor) fn path_with(path: &str) -> String {
    let path = if path.is_empty() { DEFAULT_PATH } else { path };
    format!("{path}:{DIRECTORY}")
}

/// Returns a mount of the busybox and links for its applets.
pub(in crate::executor) fn mount(busybox: &Path) -> Result<Mount, SandboxError> {
    let directory = sandbox::memory_directory()?;
    fill(directory.as_fd(), busybox).map_err(|source| SandboxError::Setup {
        op: format!("provide {}", busybox.display()),
        source,
    })?;
    let source = MountSource::Whole { mount: Arc::new(directory) };
    Ok(Mount { target: DIRECTORY.into(), source, read_only: true })
}

fn fill(directory: BorrowedFd<'_>, busybox: &Path) -> std::io::Result<()> {
    let program = read(busybox)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, "busybox", flags, Mode::from_raw_mode(0o755))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o755))?;
    std::io::Write::write_all(&mut File::from(file), &program)?;
    for applet in APPLETS.split_ascii_whitespace() {
        rustix::fs::symlinkat("busybox", directory, applet)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_an_interpreter_are_refused() {
        let program = |kinds: &[u32]| {
            let mut bytes = vec![0; 64];
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            bytes[32] = 64;
            bytes[54] = 56;
            bytes[56] = u8::try_from(kinds.len()).unwrap();
            for kind in kinds {
                bytes.extend(kind.to_le_bytes());
                bytes.extend([0; 52]);
            }
            bytes
        };
        assert!(is_static(&program(&[1, 1, 2])));
        assert!(!is_static(&program(&[6, 3, 1])));
        assert!(!is_static(&program(&[])));
        assert!(!is_static(&program(&[1])[..64]), "cut off");
        assert!(!is_static(b"#!/bin/sh\n"));
    }
}
