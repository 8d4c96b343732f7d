//! Tests of the pure parts: headers made here in, operations out.

use std::ffi::CStr;
use std::ops::Range;

use proptest::prelude::*;

use super::elf::{MAX_PROGRAM_HEADERS, PAGE};
use super::plan::Loading;
use super::script::{Operation, map};
use super::stack::ReadMemory;
use super::*;
use crate::sandbox::sys::loader::{DATA_ADDRESS, SCRIPT_BYTES};

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;

/// A program header: type, flags, offset, address, size in the file and in memory, alignment.
type Header = (u32, u32, u64, u64, u64, u64, u64);

const TEXT: Header = (PT_LOAD, 5, 0, 0, 0x1234, 0x1234, 0x1000);
/// Ends in the middle of a page of the file, and has two more pages.
const DATA: Header = (PT_LOAD, 6, 0x2e00, 0x3e00, 0x300, 0x2800, 0x1000);

/// Returns an ELF file of type 2 (fixed addresses) or 3.
fn elf(kind: u16, headers: &[Header]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(kind.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend([0x1100_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    let n_headers = u16::try_from(headers.len()).unwrap();
    file.extend([64, 56, n_headers, 64, 0, 0].iter().flat_map(|half: &u16| half.to_le_bytes()));
    for (kind, flags, offset, address, file_bytes, memory_bytes, alignment) in headers {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in [offset, address, address, file_bytes, memory_bytes, alignment] {
            file.extend(word.to_le_bytes());
        }
    }
    file
}

fn parse(file: &[u8]) -> Result<Program, ProgramError> {
    Program::read_with(&|offset, bytes| {
        let start = usize::try_from(offset).unwrap();
        let rest = file.get(start..).unwrap_or_default();
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    })
}

fn program(kind: u16, headers: &[Header]) -> Program {
    parse(&elf(kind, headers)).unwrap()
}

/// Returns the stack of a process that executes the loader, without arguments.
fn stack(environment: usize) -> InitialStack {
    let auxiliary = [3, 1, 7, 1, 9, 1, 31, 1, 33, 0x7fff_e000_0000, 23, 0, 11, 0, 0, 0];
    let words = [vec![1, 0x7ffe_0000_2000, 0], vec![0x7ffe_0000_3000; environment], vec![0]];
    let words = [words.concat(), auxiliary.to_vec()].concat();
    let bytes: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    let read: ReadMemory<'_> = &|address, page| {
        let rest = &bytes[usize::try_from(address - STACK).unwrap()..];
        let len = rest.len().min(page.len());
        page[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    };
    InitialStack::read(read, STACK).unwrap()
}

const STACK: u64 = 0x7ffe_0000_1000;
const IDS: Ids = Ids { user: 1, effective_user: 2, group: 3, effective_group: 4, secure: true };
const NOT_RANDOM: Random = Random { program: 0, interpreter: 0 };

fn start<'a>(program: &'a Program, interpreter: Option<&'a Program>) -> Start<'a> {
    Start {
        program: Mapped { program, descriptor: 7 },
        interpreter: interpreter.map(|program| Mapped { program, descriptor: 8 }),
        filename: c"/usr/bin/a-program-with-a-long-name",
        first_arguments: &[],
        ids: IDS,
        random: NOT_RANDOM,
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

#[test]
fn segments_are_mapped_as_the_kernel_does() {
    const BASE: u64 = 0x5555_5555_4000;
    let call = |number, arguments| Operation::Call { number, arguments };
    let (mmap, munmap, no_file) = (9, 11, u64::MAX);
    let want = [
        call(mmap, [BASE, 0x7000, 0, 0x10_0022, no_file, 0]),
        call(munmap, [BASE, 0x7000, 0, 0, 0, 0]),
        call(mmap, [BASE, 0x2000, 5, 0x12, 7, 0]),
        call(mmap, [BASE + 0x3000, 0x2000, 3, 0x12, 7, 0x2000]),
        Operation::Zero { address: BASE + 0x4100, bytes: 0xf00 },
        call(mmap, [BASE + 0x5000, 0x2000, 3, 0x32, no_file, 0]),
        Operation::Attempt { number: 3, arguments: [7, 0, 0, 0, 0, 0] },
    ];
    assert_eq!(map(&program(3, &[TEXT, DATA]), 7, BASE), want);
}

#[test]
fn memory_beyond_the_file_is_zeroed_only_in_writable_segments() {
    let check = |header: Header, want: &[Operation]| {
        let operations = map(&program(2, &[header]), 7, 0);
        assert_eq!(&operations[2..operations.len() - 1], want, "{header:x?}");
    };
    let mmap = |arguments| Operation::Call { number: 9, arguments };
    let no_file = u64::MAX;
    let (file, bss) =
        ([0x40_0000, 0x1000, 1, 0x12, 7, 0], mmap([0x40_1000, 0x1000, 3, 0x32, no_file, 0]));
    check((PT_LOAD, 4, 0, 0x40_0000, 0x10, 0x1010, 0), &[mmap(file), bss]);
    check((PT_LOAD, 4, 0, 0x40_0000, 0x10, 0x20, 0), &[mmap(file)]);
    let zero = Operation::Zero { address: 0x40_0010, bytes: 0xff0 };
    check(
        (PT_LOAD, 6, 0, 0x40_0000, 0x10, 0x20, 0),
        &[mmap([0x40_0000, 0x1000, 3, 0x12, 7, 0]), zero],
    );
    // Without a part in the file, the whole segment is anonymous; `offset` does not count.
    check(
        (PT_LOAD, 7, 1, 0x40_1010, 0, 0x20, 0),
        &[mmap([0x40_1000, 0x1000, 7, 0x32, no_file, 0])],
    );
    check(
        (PT_LOAD, 6, 0x800, 0x40_1800, 0x800, 0x800, 0),
        &[mmap([0x40_1000, 0x1000, 3, 0x12, 7, 0])],
    );
}

#[test]
fn malformed_programs_are_rejected() {
    let size = ProgramError::Malformed("a segment has an invalid size");
    let offset = ProgramError::Malformed("a segment has an invalid offset");
    let path = ProgramError::Malformed("the path of the program's interpreter is invalid");
    let table: &[(Header, ProgramError)] = &[
        ((PT_LOAD, 5, 0, 0, 2, 1, 0), size),
        ((PT_LOAD, 5, 0, u64::MAX, 1, 1, 0), size),
        ((PT_LOAD, 5, 0, 0x7fff_ffff_e000, 1, 0x1001, 0), size),
        ((PT_LOAD, 5, 1, 0x1000, 1, 1, 0), offset),
        ((PT_LOAD, 5, u64::MAX - 0xfff, 0, 0x1000, 0x1000, 0), offset),
        ((PT_LOAD, 5, 1 << 63, 0, 0x1000, 0x1000, 0), offset),
        (
            (PT_LOAD, 5, 0, 0, 0, 0, 0),
            ProgramError::Malformed("the program has no segment to load"),
        ),
        ((PT_INTERP, 4, 0, 0, 1, 1, 0), path),
        ((PT_INTERP, 4, 0, 0, 4097, 4097, 0), path),
        ((PT_INTERP, 4, u64::MAX, 0, 2, 2, 0), path),
        ((PT_INTERP, 4, 1 << 20, 0, 2, 2, 0), path),
        // Ends with the letter F of the magic number.
        ((PT_INTERP, 4, 0, 0, 4, 4, 0), path),
    ];
    for (header, want) in table {
        assert_eq!(parse(&elf(3, &[*header])), Err(*want), "{header:x?}");
    }
}

#[test]
fn malformed_elf_headers_are_rejected() {
    let check = |change: &dyn Fn(&mut Vec<u8>), want: ProgramError| {
        let mut file = elf(3, &[TEXT]);
        change(&mut file);
        assert_eq!(parse(&file), Err(want), "{}", file.escape_ascii());
        assert_eq!(want.errno(), Errno::NOEXEC);
    };
    check(&|file| file.clear(), ProgramError::UnknownFormat);
    check(&|file| file[1] = b'e', ProgramError::UnknownFormat);
    check(&|file| file[4] = 1, ProgramError::OtherMachine);
    check(&|file| file[5] = 2, ProgramError::OtherMachine);
    check(&|file| file[18] = 183, ProgramError::OtherMachine);
    check(&|file| file[16] = 1, ProgramError::Malformed("the ELF file is not a program"));
    check(&|file| file.truncate(57), ProgramError::Malformed("the ELF header is incomplete"));
    let sizes = ProgramError::Malformed("the size of the program headers is invalid");
    check(&|file| file[54] = 32, sizes);
    check(&|file| file[56] = 0, sizes);
    check(&|file| file[56] = 65, sizes);
    let outside = ProgramError::Malformed("the program headers are outside the file");
    check(&|file| file[56] = 2, outside);
    check(&|file| file[39] = 0xff, outside);
}

#[test]
fn interpreter_and_stack_are_read_from_their_headers() {
    let path = "/lib64/ld-linux-x86-64.so.2\0";
    let offset = 64 + 3 * 56;
    let len = u64::try_from(path.len()).unwrap();
    let interpreter = (PT_INTERP, 4, offset, offset, len, len, 1);
    let mut file = elf(3, &[interpreter, TEXT, (PT_GNU_STACK, 7, 0, 0, 0, 0, 16)]);
    file.extend(path.bytes());
    let program = parse(&file).unwrap();
    assert_eq!(program.interpreter(), Some(c"/lib64/ld-linux-x86-64.so.2"));
    assert!(program.executable_stack());
    assert_eq!(program.headers_address(), 64);
}

#[test]
fn alignment_of_huge_pages_is_kept() {
    let huge = (PT_LOAD, 5, 0, 0, 0x1234, 0x1234, 0x20_0000);
    let odd = (PT_LOAD, 5, 0, 0x20_0000, 0x1234, 0x1234, 3);
    let program = program(3, &[huge, odd]);
    let random = Random { program: 5, interpreter: 0 };
    let biases = placement::biases(&program, None, random, &stack(0)).unwrap();
    assert_eq!((biases.program, biases.interpreter), (0x5555_5540_0000, None));
}

#[test]
fn programs_do_not_overlap_the_loader_the_stack_or_each_other() {
    let large = program(3, &[(PT_LOAD, 6, 0, 0, 0, 0x200_0000_0000, 0)]);
    let biases = placement::biases(&large, Some(&large), NOT_RANDOM, &stack(0)).unwrap();
    assert!(biases.program + large.span().end <= placement::LOADER);
    let interpreter = biases.interpreter.unwrap();
    assert!(interpreter + large.span().end <= STACK - (1 << 32), "{interpreter:x}");
    let whole = program(3, &[(PT_LOAD, 6, 0, 0, 0, 0x7fff_ffff_0000, 0)]);
    assert_eq!(placement::biases(&whole, None, NOT_RANDOM, &stack(0)), None);
}

#[test]
fn plan_describes_the_program_in_the_auxiliary_vector() {
    let (program, interpreter) = (program(3, &[TEXT, DATA]), program(3, &[TEXT]));
    let start = start(&program, Some(&interpreter));
    let loading: Loading = plan(&start, &stack(2)).unwrap();
    let [(script_at, script), (strings_at, strings), (vector_at, vector)] = &loading.writes[..]
    else {
        panic!("{loading:x?}");
    };
    assert_eq!((*script_at, *strings_at), (DATA_ADDRESS, DATA_ADDRESS + SCRIPT_BYTES));
    assert_eq!(strings, b"a-program-with-\0/usr/bin/a-program-with-a-long-name\0");
    assert_eq!(*vector_at, STACK + 6 * 8);
    let base = 0x5555_5555_4000;
    let (filename, entry) = (strings_at + 16, base + 0x1100);
    let (linker, vdso) = (0x7e80_0000_0000, 0x7fff_e000_0000);
    let want = [3, base + 64, 7, linker, 9, entry, 31, filename, 33, vdso, 23, 1, 11, 1, 0, 0];
    assert_eq!(words(vector), want);
    assert_eq!(u64::try_from(loading.result), Ok(u64::try_from(script.len()).unwrap() / 64));
    let jump = words(&script[script.len() - 64..]);
    assert_eq!(jump[..3], [4, STACK, linker + 0x1100]);
}

#[test]
fn plan_for_a_script_moves_the_stack() {
    let program = program(2, &[(PT_LOAD, 5, 0, 0x40_0000, 0x1234, 0x1234, 0x1000)]);
    let arguments: [&CStr; 3] = [c"/bin/sh", c"-e", c"/script"];
    let start = Start { first_arguments: &arguments, ..start(&program, None) };
    let loading = plan(&start, &stack(1)).unwrap();
    let (at, stack) = &loading.writes[2];
    // Two more words keep the alignment.
    assert_eq!(*at, STACK - 16);
    let strings = DATA_ADDRESS + SCRIPT_BYTES + 16 + 36;
    let want = [3, strings, strings + 8, strings + 11, 0, 0x7ffe_0000_3000, 0];
    assert_eq!(words(stack)[..7], want);
}

#[test]
fn plan_whose_strings_do_not_fit_is_an_error() {
    let program = program(3, &[TEXT]);
    let argument = std::ffi::CString::new(vec![b'x'; 0x8000]).unwrap();
    let start = Start { first_arguments: &[&argument], ..start(&program, None) };
    assert_eq!(plan(&start, &stack(0)), Err(Errno::TOOBIG));
}

#[test]
fn longest_script_fits() {
    let headers: Vec<Header> = (0..u64::from(MAX_PROGRAM_HEADERS))
        .map(|number| (PT_LOAD, 6, 0x100, number * 0x4000 + 0x100, 0x10, 0x2000, 0))
        .collect();
    let program = program(3, &headers);
    let loading = plan(&start(&program, Some(&program)), &stack(0)).unwrap();
    let len = u64::try_from(loading.writes[0].1.len()).unwrap();
    assert!(len <= SCRIPT_BYTES, "{len}");
    assert_eq!(loading.result, 2 * (3 * 64 + 3) + 2);
}

#[test]
fn call_of_another_program_is_recognized() {
    assert_eq!(stack_pointer([0, 1, DATA_ADDRESS, SCRIPT_BYTES, 0, 0]), Some(1));
    assert_eq!(stack_pointer([0, 1, DATA_ADDRESS, SCRIPT_BYTES + 1, 0, 0]), None);
    assert_eq!(stack_pointer([0, 1, 0, SCRIPT_BYTES, 0, 0]), None);
}

#[test]
fn loader_has_a_program_header_for_each_of_its_parts() {
    if cfg!(not(target_arch = "x86_64")) {
        assert_eq!(image(), Err(Errno::NOSYS));
        return;
    }
    let image = image().unwrap();
    assert!(image.len() < 1024, "{}", image.len());
    let program = parse(&image).unwrap();
    assert_eq!(program.span(), placement::LOADER..placement::LOADER_END);
    assert!(!program.executable_stack());
}

/// Asserts that the operations replace no memory but `span`.
fn assert_within(operations: &[Operation], span: &Range<u64>) {
    for operation in operations {
        let (start, len) = match operation {
            Operation::Call { arguments: [start, len, ..], .. } => (start, len),
            Operation::Zero { address, bytes } => (address, bytes),
            Operation::Attempt { .. } | Operation::Jump { .. } => continue,
        };
        assert!(span.start <= *start && start.checked_add(*len).unwrap() <= span.end);
        assert!(*len > 0);
    }
}

fn header() -> impl Strategy<Value = Header> {
    let kind = prop_oneof![4 => Just(PT_LOAD), 1 => Just(PT_INTERP), 1 => any::<u32>()];
    let number =
        || prop_oneof![0..0x1_0000_u64, any::<u64>(), (0..64_u32).prop_map(|bit| 1 << bit)];
    // Mostly what can be mapped.
    let offset = prop_oneof![Just(None), number().prop_map(Some)];
    (kind, 0..8_u32, offset, number(), number(), number(), number()).prop_map(
        |(kind, flags, offset, address, file_bytes, more, alignment)| {
            let offset = offset.unwrap_or(address % PAGE);
            (kind, flags, offset, address, file_bytes, file_bytes.saturating_add(more), alignment)
        },
    )
}

proptest! {
    #[test]
    fn any_file_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _rejected = parse(&[b"\x7fELF\x02\x01\x01".as_slice(), &bytes].concat());
        let _rejected = Shebang::parse(&[b"#!".as_slice(), &bytes].concat());
    }

    #[test]
    fn any_program_is_mapped_within_its_span_or_rejected(
        kind in 2..4_u16,
        headers in proptest::collection::vec(header(), 1..5),
        random in any::<u64>(),
    ) {
        if let Ok(program) = parse(&elf(kind, &headers)) {
            let random = Random { program: random, interpreter: random.rotate_left(32) };
            let found = placement::biases(&program, Some(&program), random, &stack(0));
            if let Some(biases) = found {
                for bias in [Some(biases.program), biases.interpreter].into_iter().flatten() {
                    let span = program.span().start + bias..program.span().end + bias;
                    assert_within(&map(&program, 7, bias), &span);
                }
            }
            let _error = plan(&Start { random, ..start(&program, Some(&program)) }, &stack(0));
        }
    }
}
