//! Reads ELF programs as Linux's `fs/binfmt_elf.c` does (elf(5)). Input is untrusted: all sizes are
//! bounded, all arithmetic is checked.

use std::ffi::{CStr, CString};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// The page size of x86-64.
pub(super) const PAGE: u64 = 0x1000;
/// The end of the address space that programs use by default (`TASK_SIZE`).
pub(super) const ADDRESS_SPACE_END: u64 = 0x7fff_ffff_f000;

/// Sizes of an ELF header and of a program header in bytes (`Elf64_Ehdr` and `Elf64_Phdr`).
const HEADER_BYTES: usize = 64;
pub(super) const PROGRAM_HEADER_BYTES: u16 = 56;
/// Maximum number of program headers, so that a script has a bounded size. Linkers make about 15.
pub(super) const MAX_PROGRAM_HEADERS: u16 = 64;
/// Maximum length of the path in `PT_INTERP` (`PATH_MAX`), including its null byte.
const MAX_INTERPRETER_BYTES: u64 = 4096;
/// Maximum alignment that is honoured: the largest page.
const MAX_ALIGNMENT: u64 = 1 << 30;

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const X86_64: u16 = 62;
const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;

/// Bits of `p_flags`.
pub(super) const EXECUTE: u32 = 1;
pub(super) const WRITE: u32 = 2;
pub(super) const READ: u32 = 4;

/// The reason why a file cannot be executed as an ELF program or as a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::sandbox) enum ProgramError {
    /// The file is neither an ELF file nor a script.
    #[error("the file is neither an ELF program nor a script")]
    UnknownFormat,
    /// The file is for another class, byte order or machine than 64-bit x86-64.
    #[error("the program is for another machine")]
    OtherMachine,
    /// The file has no meaning as a program.
    #[error("{0}")]
    Malformed(&'static str),
    /// The file could not be read.
    #[error("cannot read the program")]
    Io(#[from] Errno),
}

impl ProgramError {
    /// Returns the error of execve(2) for a program. For the interpreter of an ELF program,
    /// execve(2) returns `LIBBAD` in place of `NOEXEC`.
    pub(in crate::sandbox) fn errno(self) -> Errno {
        match self {
            Self::UnknownFormat | Self::OtherMachine | Self::Malformed(_) => Errno::NOEXEC,
            Self::Io(errno) => errno,
        }
    }
}

/// Reads bytes of a file from an offset on. Returns their number, zero at the end of the file.
pub(super) type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<usize, Errno>;

/// The facts of an ELF program that are needed to map and start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Program {
    position_independent: bool,
    entry: u64,
    headers_offset: u64,
    n_headers: u16,
    interpreter: Option<CString>,
    segments: Vec<Segment>,
    executable_stack: bool,
}

/// A segment that is mapped: `PT_LOAD`. Its memory lies below [`ADDRESS_SPACE_END`] and is not
/// empty, it is at least as large as its part of the file, and the offset can be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_bytes: u64,
    pub(super) memory_bytes: u64,
    alignment: u64,
}

impl Program {
    /// Reads a program from its file.
    ///
    /// # Errors
    /// Every [`ProgramError`].
    pub(in crate::sandbox) fn read(file: BorrowedFd<'_>) -> Result<Self, ProgramError> {
        Self::read_with(&|offset, bytes| rustix::io::pread(file, bytes, offset))
    }

    pub(super) fn read_with(read: ReadAt<'_>) -> Result<Self, ProgramError> {
        let mut header = [0; HEADER_BYTES];
        let len = read_full(read, 0, &mut header)?;
        let header = header.get(..len).unwrap_or_default();
        let mut program = Self::from_header(header)?;
        let bytes = usize::from(program.n_headers.saturating_mul(PROGRAM_HEADER_BYTES));
        let mut table = vec![0; bytes];
        if read_full(read, program.headers_offset, &mut table)? < bytes {
            return Err(ProgramError::Malformed("the program headers are outside the file"));
        }
        for header in table.chunks_exact(usize::from(PROGRAM_HEADER_BYTES)) {
            program.add(header, read)?;
        }
        if program.segments.is_empty() {
            return Err(ProgramError::Malformed("the program has no segment to load"));
        }
        Ok(program)
    }

    /// Returns the path of the dynamic linker.
    pub(in crate::sandbox) fn interpreter(&self) -> Option<&CStr> {
        self.interpreter.as_deref()
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn position_independent(&self) -> bool {
        self.position_independent
    }

    pub(super) fn entry(&self) -> u64 {
        self.entry
    }

    pub(super) fn n_headers(&self) -> u16 {
        self.n_headers
    }

    /// Returns whether the program asks for an executable stack. Without `PT_GNU_STACK`, a 64-bit
    /// program gets none (`elf_read_implies_exec` of Linux 5.8).
    pub(super) fn executable_stack(&self) -> bool {
        self.executable_stack
    }

    /// Returns the address of the program headers in memory, or 0 if no segment contains them. The
    /// last such segment counts, and `PT_PHDR` does not (`load_elf_binary` of Linux 5.18).
    pub(super) fn headers_address(&self) -> u64 {
        let containing = self.segments.iter().rev().find_map(|segment| {
            let within = self.headers_offset.checked_sub(segment.offset)?;
            (within < segment.file_bytes).then(|| segment.address.saturating_add(within))
        });
        containing.unwrap_or(0)
    }

    /// Returns the addresses that all segments span, in whole pages.
    pub(super) fn span(&self) -> Range<u64> {
        let starts = self.segments.iter().map(|segment| segment.address);
        let ends = self.segments.iter().map(|segment| segment.end());
        page_start(starts.min().unwrap_or(0))..page_end(ends.max().unwrap_or(0))
    }

    /// Returns the largest alignment of a segment, at least a page. Values that are not powers of
    /// two do not count (`maximum_alignment`).
    pub(super) fn alignment(&self) -> u64 {
        let alignments = self.segments.iter().map(|segment| segment.alignment);
        let valid = alignments.filter(|value| value.is_power_of_two() && *value <= MAX_ALIGNMENT);
        valid.max().unwrap_or(PAGE).max(PAGE)
    }

    fn from_header(header: &[u8]) -> Result<Self, ProgramError> {
        if !header.starts_with(MAGIC) {
            return Err(ProgramError::UnknownFormat);
        }
        let short = ProgramError::Malformed("the ELF header is incomplete");
        let halves = |at| u16_at(header, at).ok_or(short);
        let words = |at| u64_at(header, at).ok_or(short);
        let (kind, machine, header_bytes) = (halves(16)?, halves(18)?, halves(54)?);
        if header.get(4..6) != Some(&[CLASS_64, LITTLE_ENDIAN]) || machine != X86_64 {
            return Err(ProgramError::OtherMachine);
        }
        if kind != EXECUTABLE && kind != SHARED {
            return Err(ProgramError::Malformed("the ELF file is not a program"));
        }
        let n_headers = halves(56)?;
        if header_bytes != PROGRAM_HEADER_BYTES || !(1..=MAX_PROGRAM_HEADERS).contains(&n_headers) {
            return Err(ProgramError::Malformed("the size of the program headers is invalid"));
        }
        Ok(Self {
            position_independent: kind == SHARED,
            entry: words(24)?,
            headers_offset: words(32)?,
            n_headers,
            interpreter: None,
            segments: Vec::new(),
            executable_stack: false,
        })
    }

    /// Adds what one program header says.
    fn add(&mut self, header: &[u8], read: ReadAt<'_>) -> Result<(), ProgramError> {
        let short = ProgramError::Malformed("a program header is incomplete");
        let kind = u32_at(header, 0).ok_or(short)?;
        let words = |at| u64_at(header, at).ok_or(short);
        let segment = Segment {
            flags: u32_at(header, 4).ok_or(short)?,
            offset: words(8)?,
            address: words(16)?,
            file_bytes: words(32)?,
            memory_bytes: words(40)?,
            alignment: words(48)?,
        };
        match kind {
            PT_LOAD if segment.memory_bytes > 0 || segment.file_bytes > 0 => {
                self.segments.push(segment.checked()?);
            }
            PT_INTERP if self.interpreter.is_none() => {
                self.interpreter = Some(interpreter(segment, read)?);
            }
            PT_GNU_STACK => self.executable_stack = segment.flags & EXECUTE != 0,
            _ => {}
        }
        Ok(())
    }
}

impl Segment {
    /// Returns the address after the segment's memory.
    pub(super) fn end(self) -> u64 {
        self.address.saturating_add(self.memory_bytes)
    }

    fn checked(self) -> Result<Self, ProgramError> {
        let end = self.address.checked_add(self.memory_bytes);
        let in_memory = end.is_some_and(|end| end <= ADDRESS_SPACE_END);
        if !in_memory || self.file_bytes > self.memory_bytes {
            return Err(ProgramError::Malformed("a segment has an invalid size"));
        }
        let in_file = self.offset.checked_add(self.file_bytes);
        let in_file = in_file.is_some_and(|end| i64::try_from(page_end(end)).is_ok());
        let mappable = self.offset % PAGE == self.address % PAGE;
        if self.file_bytes > 0 && !(in_file && mappable) {
            return Err(ProgramError::Malformed("a segment has an invalid offset"));
        }
        Ok(self)
    }
}

fn interpreter(segment: Segment, read: ReadAt<'_>) -> Result<CString, ProgramError> {
    let invalid = ProgramError::Malformed("the path of the program's interpreter is invalid");
    if !(2..=MAX_INTERPRETER_BYTES).contains(&segment.file_bytes) {
        return Err(invalid);
    }
    let mut path = vec![0; usize::try_from(segment.file_bytes).map_err(|_error| invalid)?];
    if read_full(read, segment.offset, &mut path)? < path.len() || path.last() != Some(&0) {
        return Err(invalid);
    }
    // The kernel, too, opens the path up to the first null byte.
    CStr::from_bytes_until_nul(&path).map(CStr::to_owned).map_err(|_error| invalid)
}

/// Reads until `bytes` is full or the file ends; returns the number of bytes.
pub(super) fn read_full(read: ReadAt<'_>, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = u64::try_from(filled).ok().and_then(|filled| offset.checked_add(filled));
        // No file extends so far: `pread` would fail with an error that execve(2) does not have.
        let Some(at) = at.filter(|at| i64::try_from(*at).is_ok()) else {
            break;
        };
        match read(at, rest) {
            Ok(0) => break,
            Ok(len) => filled = filled.saturating_add(len),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

pub(super) fn page_start(address: u64) -> u64 {
    address & !(PAGE - 1)
}

pub(super) fn page_end(address: u64) -> u64 {
    page_start(address.saturating_add(PAGE - 1))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|value| u16::from_le_bytes(*value))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|value| u32::from_le_bytes(*value))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|value| u64::from_le_bytes(*value))
}
