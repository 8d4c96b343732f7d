//! The headers of the ELF files that rbuild makes: its launcher and its loader (elf(5)).

/// Sizes of an ELF header and of a program header in bytes (`Elf64_Ehdr` and `Elf64_Phdr`).
const HEADER_BYTES: u16 = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;

/// `e_machine`: `EM_AARCH64` or `EM_X86_64`.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// The values of `p_type` and `p_flags` that these files have.
pub(super) const LOAD: u32 = 1;
const GNU_STACK: u32 = 0x6474_e551;
pub(super) const READ_EXECUTE: u32 = 5;
pub(super) const READ_WRITE: u32 = 6;

/// A segment, as its program header describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) alignment: u64,
}

impl Segment {
    /// Makes the stack not executable.
    pub(super) const STACK: Self = Self {
        kind: GNU_STACK,
        flags: READ_WRITE,
        offset: 0,
        address: 0,
        file_bytes: 0,
        memory_bytes: 0,
        alignment: 16,
    };
}

/// Returns the size of all headers of a file with `n_segments`.
pub(super) const fn headers_bytes(n_segments: u16) -> u16 {
    HEADER_BYTES.saturating_add(PROGRAM_HEADER_BYTES.saturating_mul(n_segments))
}

/// Returns the ELF header and the program headers of an executable with fixed addresses.
pub(super) fn headers<const N: usize>(entry: u64, segments: &[Segment; N]) -> Vec<u8> {
    let mut image = Vec::new();
    elf_header(&mut image, entry, u16::try_from(N).unwrap_or(u16::MAX));
    for segment in segments {
        image.extend_from_slice(&segment.kind.to_ne_bytes());
        image.extend_from_slice(&segment.flags.to_ne_bytes());
        let Segment { offset, address, file_bytes, memory_bytes, alignment, .. } = *segment;
        for value in [offset, address, address, file_bytes, memory_bytes, alignment] {
            image.extend_from_slice(&value.to_ne_bytes());
        }
    }
    image
}

fn elf_header(image: &mut Vec<u8>, entry: u64, n_segments: u16) {
    // Class 64 bit, the byte order of this machine, version 1 (`e_ident`).
    let order = if cfg!(target_endian = "big") { 2 } else { 1 };
    image.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, order, 1]);
    image.resize(16, 0);
    let executable = 2_u16;
    image.extend_from_slice(&executable.to_ne_bytes());
    image.extend_from_slice(&MACHINE.to_ne_bytes());
    image.extend_from_slice(&1_u32.to_ne_bytes());
    image.extend_from_slice(&entry.to_ne_bytes());
    image.extend_from_slice(&u64::from(HEADER_BYTES).to_ne_bytes());
    let (no_sections, no_flags) = (0_u64, 0_u32);
    image.extend_from_slice(&no_sections.to_ne_bytes());
    image.extend_from_slice(&no_flags.to_ne_bytes());
    for half in [HEADER_BYTES, PROGRAM_HEADER_BYTES, n_segments, 64, 0, 0] {
        image.extend_from_slice(&half.to_ne_bytes());
    }
}
