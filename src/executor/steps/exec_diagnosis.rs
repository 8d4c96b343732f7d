//! Diagnosis of a program in a failed step's rootfs: why the kernel did not execute it.

use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{Mode, OFlags};

use crate::tree::TreePath;

use crate::executor::mounts::mount_point::{IN_ROOT, open_regular};

/// Number of bytes read from a program. An ELF header names its interpreter within them.
const HEAD_BYTES: usize = 4096;

/// The diagnosis of a file that a command tried to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) enum ProgramDiagnosis {
    /// The file does not exist, or is not a regular file.
    Absent,
    /// The file is not executable.
    NotExecutable,
    /// A script whose first line ends with CRLF.
    WindowsScript {
        /// Interpreter in the first line, without the `\r`.
        interpreter: String,
    },
    /// The interpreter of a script, or the loader of a program, does not exist.
    NoInterpreter {
        /// Path of the missing file.
        interpreter: String,
        /// True for a script, false for an ELF program.
        is_script: bool,
    },
    /// The program is for another processor.
    OtherMachine {
        /// Architecture as in platforms; else the number `e_machine` (elf(5)).
        machine: String,
    },
    /// No defect was found.
    Fine,
}

/// The paths in which a command looks for programs.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor) struct ProgramSearch<'a> {
    /// The step's root.
    pub(in crate::executor) root: BorrowedFd<'a>,
    /// Working directory of the step.
    pub(in crate::executor) cwd: &'a str,
    /// Value of `PATH`.
    pub(in crate::executor) search: &'a str,
}

/// Diagnoses the program that a command calls `name`: a path, or a name in a directory of PATH.
pub(in crate::executor) fn diagnose(search_in: ProgramSearch<'_>, name: &str) -> ProgramDiagnosis {
    let ProgramSearch { root, cwd, search } = search_in;
    let found = if name.starts_with('/') {
        head(root, name)
    } else if name.contains('/') {
        head(root, &format!("{cwd}/{name}"))
    } else {
        search.split(':').find_map(|directory| head(root, &format!("{directory}/{name}")))
    };
    let Some((head, executable)) = found else { return ProgramDiagnosis::Absent };
    if !executable {
        return ProgramDiagnosis::NotExecutable;
    }
    let is_there = |path: &str| file_exists(root, path);
    judge(&head, std::env::consts::ARCH, &is_there)
}

fn file_exists(root: BorrowedFd<'_>, path: &str) -> bool {
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), IN_ROOT).is_ok()
}

/// Reads the first bytes of a regular file, and whether it is executable.
fn head(root: BorrowedFd<'_>, path: &str) -> Option<(Vec<u8>, bool)> {
    let path = TreePath::clean(path.as_bytes());
    let file = open_regular(root, path.as_path()).ok()??;
    let meta = file.metadata().ok()?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some((bytes, meta.permissions().mode() & 0o111 != 0))
}

/// Returns the diagnosis for the first bytes of an executable file on a machine of this
/// architecture.
fn judge(head: &[u8], machine: &str, is_there: &dyn Fn(&str) -> bool) -> ProgramDiagnosis {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let word = line.trim_start().split([' ', '\t']).next().unwrap_or_default();
        let interpreter = word.trim_end_matches('\r').to_owned();
        return if line.ends_with('\r') {
            ProgramDiagnosis::WindowsScript { interpreter }
        } else if is_there(&interpreter) {
            ProgramDiagnosis::Fine
        } else {
            ProgramDiagnosis::NoInterpreter { interpreter, is_script: true }
        };
    }
    let Some(elf) = ElfHeader::read(head) else { return ProgramDiagnosis::Fine };
    match elf.machine_name() {
        Some(name) if name.0 == machine => {}
        Some(name) => return ProgramDiagnosis::OtherMachine { machine: name.1.to_owned() },
        None => {
            return ProgramDiagnosis::OtherMachine { machine: format!("machine {}", elf.machine) };
        }
    }
    match elf.interpreter(head) {
        Some(interpreter) if !is_there(&interpreter) => {
            ProgramDiagnosis::NoInterpreter { interpreter, is_script: false }
        }
        _ => ProgramDiagnosis::Fine,
    }
}

/// The ELF header of a program (elf(5); System V ABI, chapters 4 and 5).
#[derive(Debug, Clone, Copy)]
struct ElfHeader {
    is_64: bool,
    is_big: bool,
    machine: u16,
}

/// `PT_INTERP` in elf(5): path of the dynamic loader.
const INTERPRETER: u64 = 3;
/// `e_machine`, Rust's name, the name in platforms. 32-bit architectures that a 64-bit machine also
/// runs are left out.
const MACHINES: [(u16, &str, &str); 6] = [
    (62, "x86_64", "amd64"),
    (183, "aarch64", "arm64"),
    (243, "riscv64", "riscv64"),
    (22, "s390x", "s390x"),
    (21, "powerpc64", "ppc64le"),
    (258, "loongarch64", "loong64"),
];

impl ElfHeader {
    fn read(head: &[u8]) -> Option<Self> {
        let [0x7f, b'E', b'L', b'F', class, order, ..] = head else { return None };
        let mut elf = Self { is_64: *class == 2, is_big: *order == 2, machine: 0 };
        elf.machine = u16::try_from(elf.number(head, 18, 2)?).ok()?;
        Some(elf)
    }

    fn machine_name(&self) -> Option<(&'static str, &'static str)> {
        let known = MACHINES.iter().find(|(number, ..)| *number == self.machine)?;
        Some((known.1, known.2))
    }

    /// Reads the number of `width` bytes at an offset.
    fn number(&self, head: &[u8], at: u64, width: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = head.get(at..at.checked_add(width)?)?;
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if self.is_big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }

    /// Returns the loader that a dynamically linked program names.
    fn interpreter(&self, head: &[u8]) -> Option<String> {
        let word = if self.is_64 { 8 } else { 4 };
        let (table_at, size_at, count_at) = if self.is_64 { (32, 54, 56) } else { (28, 42, 44) };
        let table = self.number(head, table_at, word)?;
        let (size, count) = (self.number(head, size_at, 2)?, self.number(head, count_at, 2)?);
        let (offset_at, length_at) = if self.is_64 { (8, 32) } else { (4, 16) };
        let entry = (0..count)
            .filter_map(|number| table.checked_add(number.checked_mul(size)?))
            .find(|entry| self.number(head, *entry, 4) == Some(INTERPRETER))?;
        let offset = self.number(head, entry.checked_add(offset_at)?, word)?;
        let length = self.number(head, entry.checked_add(length_at)?, word)?;
        let (from, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        let name = head.get(from..from.checked_add(length)?)?;
        let name = name.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a 64-bit program whose loader is `/lib/ld.so`.
    fn program(machine: u16) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
        bytes.extend(machine.to_le_bytes());
        bytes.resize(32, 0);
        bytes.extend(64_u64.to_le_bytes());
        bytes.resize(54, 0);
        bytes.extend([56, 0, 1, 0]);
        bytes.resize(64, 0);
        bytes.extend(3_u64.to_le_bytes());
        bytes.extend(120_u64.to_le_bytes());
        bytes.resize(96, 0);
        bytes.extend(11_u64.to_le_bytes());
        bytes.resize(120, 0);
        bytes.extend(b"/lib/ld.so\0");
        bytes
    }

    #[test]
    fn first_bytes_show_why_a_file_does_not_run() {
        let orphan = |interpreter: &str, is_script| ProgramDiagnosis::NoInterpreter {
            interpreter: interpreter.to_owned(),
            is_script,
        };
        let windows = ProgramDiagnosis::WindowsScript { interpreter: "/bin/sh".to_owned() };
        let foreign =
            |machine: &str| ProgramDiagnosis::OtherMachine { machine: machine.to_owned() };
        let loader = orphan("/lib/ld.so", false);
        for (head, want) in [
            (b"#!/bin/sh\necho".to_vec(), ProgramDiagnosis::Fine),
            (b"#!/bin/sh".to_vec(), ProgramDiagnosis::Fine),
            (b"#! /bin/bash -e\n".to_vec(), orphan("/bin/bash", true)),
            (b"#!/bin/sh\r\necho\r\n".to_vec(), windows.clone()),
            (b"#!/bin/sh -e\r\n".to_vec(), windows),
            (program(62), loader),
            (program(183), foreign("arm64")),
            (program(1234), foreign("machine 1234")),
            (b"\x7fELF\x02\x01".to_vec(), ProgramDiagnosis::Fine),
            (program(62)[..70].to_vec(), ProgramDiagnosis::Fine),
            (b"echo".to_vec(), ProgramDiagnosis::Fine),
            (Vec::new(), ProgramDiagnosis::Fine),
        ] {
            let found = judge(&head, "x86_64", &|path| path == "/bin/sh");
            assert_eq!(found, want, "{}", String::from_utf8_lossy(&head));
        }
    }
}
