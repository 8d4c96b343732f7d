//! The stack of a process at its first instruction: argument count, pointers to the arguments and
//! to the environment, auxiliary vector (System V ABI for x86-64, "Initial Stack").

use rustix::io::Errno;

use super::elf::{ADDRESS_SPACE_END, PAGE};

/// Size of a word of the stack.
pub(super) const WORD: u64 = 8;
/// Maximum size of the pointers. The kernel limits them and the strings to 6 MiB (execve(2)).
const MAX_BYTES: u64 = 8 << 20;

/// Types of entries of the auxiliary vector (`linux/auxvec.h`, getauxval(3)).
pub(super) const AT_NULL: u64 = 0;
pub(super) const AT_PHDR: u64 = 3;
pub(super) const AT_PHENT: u64 = 4;
pub(super) const AT_PHNUM: u64 = 5;
pub(super) const AT_BASE: u64 = 7;
pub(super) const AT_ENTRY: u64 = 9;
pub(super) const AT_UID: u64 = 11;
pub(super) const AT_EUID: u64 = 12;
pub(super) const AT_GID: u64 = 13;
pub(super) const AT_EGID: u64 = 14;
pub(super) const AT_SECURE: u64 = 23;
pub(super) const AT_EXECFN: u64 = 31;
pub(super) const AT_SYSINFO_EHDR: u64 = 33;

/// Reads memory of the process at an address. Returns the number of bytes, like
/// process_vm_readv(2).
pub(in crate::sandbox) type ReadMemory<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<usize, Errno>;

/// The initial stack of a process that executes the loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct InitialStack {
    pointer: u64,
    /// Addresses of the strings.
    arguments: Vec<u64>,
    environment: Vec<u64>,
    /// Types and values, without `AT_NULL`.
    auxiliary: Vec<(u64, u64)>,
}

impl InitialStack {
    /// Reads the stack from its lowest address on, the initial stack pointer.
    ///
    /// # Errors
    /// The error of `read`; `FAULT` if `pointer` cannot be an initial stack pointer, `TOOBIG` if
    /// a list has no end.
    pub(in crate::sandbox) fn read(read: ReadMemory<'_>, pointer: u64) -> Result<Self, Errno> {
        if !pointer.is_multiple_of(2 * WORD) || pointer >= ADDRESS_SPACE_END {
            return Err(Errno::FAULT);
        }
        let mut words = Words { read, address: pointer, page: Vec::new(), left: MAX_BYTES };
        let n_arguments = words.next()?;
        let mut arguments = Vec::new();
        for _ in 0..n_arguments {
            arguments.push(words.next()?);
        }
        if words.next()? != 0 {
            return Err(Errno::FAULT);
        }
        let mut environment = Vec::new();
        while let Some(variable) = Some(words.next()?).filter(|address| *address != 0) {
            environment.push(variable);
        }
        let mut auxiliary = Vec::new();
        loop {
            let (kind, value) = (words.next()?, words.next()?);
            if kind == AT_NULL {
                break;
            }
            auxiliary.push((kind, value));
        }
        Ok(Self { pointer, arguments, environment, auxiliary })
    }

    pub(super) fn pointer(&self) -> u64 {
        self.pointer
    }

    /// Returns the value of the first entry of type `kind` in the auxiliary vector.
    pub(super) fn auxiliary(&self, kind: u64) -> Option<u64> {
        self.auxiliary.iter().find(|entry| entry.0 == kind).map(|entry| entry.1)
    }

    /// Returns the same stack with other values in the auxiliary vector. Types that the kernel did
    /// not set are not added.
    pub(super) fn with_auxiliary(mut self, values: &[(u64, u64)]) -> Self {
        for entry in &mut self.auxiliary {
            if let Some(value) = values.iter().find(|value| value.0 == entry.0) {
                entry.1 = value.1;
            }
        }
        self
    }

    /// Returns the same stack with `strings`, addresses, in place of the first argument. It ends
    /// where the old one ended, up to one word of padding, and begins at another address.
    pub(super) fn with_first_argument(mut self, strings: &[u64]) -> Result<Self, Errno> {
        let end = self.pointer.checked_add(self.bytes()).ok_or(Errno::FAULT)?;
        let rest = self.arguments.get(1..).unwrap_or_default();
        self.arguments = [strings, rest].concat();
        let start = end.checked_sub(self.bytes()).ok_or(Errno::FAULT)?;
        // The ABI demands this alignment at a program's first instruction.
        self.pointer = start & !(2 * WORD - 1);
        Ok(self)
    }

    /// Returns all words, from the stack pointer on.
    pub(super) fn words(&self) -> Vec<u64> {
        let n_arguments = u64::try_from(self.arguments.len()).unwrap_or(u64::MAX);
        let mut words = vec![n_arguments];
        words.extend_from_slice(&self.arguments);
        words.push(0);
        words.extend_from_slice(&self.environment);
        words.push(0);
        words.extend(self.auxiliary_words());
        words
    }

    /// Returns the words of the auxiliary vector, and their address.
    pub(super) fn auxiliary_vector(&self) -> (u64, Vec<u64>) {
        let words: Vec<u64> = self.auxiliary_words().collect();
        let before = self.bytes().saturating_sub(bytes(words.len()));
        (self.pointer.saturating_add(before), words)
    }

    fn auxiliary_words(&self) -> impl Iterator<Item = u64> {
        let entries = self.auxiliary.iter().chain([&(AT_NULL, 0)]);
        entries.flat_map(|(kind, value)| [*kind, *value])
    }

    fn bytes(&self) -> u64 {
        let lists = bytes(self.arguments.len()).saturating_add(bytes(self.environment.len()));
        let auxiliary = bytes(self.auxiliary.len()).saturating_mul(2);
        // The count, the ends of both lists, and the pair that ends the vector.
        lists.saturating_add(auxiliary).saturating_add(5 * WORD)
    }
}

fn bytes(n_words: usize) -> u64 {
    u64::try_from(n_words).unwrap_or(u64::MAX).saturating_mul(WORD)
}

/// Reads one word after the other, a page at a time: a read across the end of the stack could fail
/// as a whole.
struct Words<'a> {
    read: ReadMemory<'a>,
    address: u64,
    /// The rest of the page at `address`, last word first.
    page: Vec<u64>,
    /// Number of bytes that may still be read.
    left: u64,
}

impl Words<'_> {
    fn next(&mut self) -> Result<u64, Errno> {
        self.left = self.left.checked_sub(WORD).ok_or(Errno::TOOBIG)?;
        if self.page.is_empty() {
            self.fill()?;
        }
        self.address = self.address.checked_add(WORD).ok_or(Errno::FAULT)?;
        self.page.pop().ok_or(Errno::FAULT)
    }

    fn fill(&mut self) -> Result<(), Errno> {
        let len = PAGE.saturating_sub(self.address % PAGE);
        let mut bytes = vec![0; usize::try_from(len).map_err(|_error| Errno::FAULT)?];
        let len = (self.read)(self.address, &mut bytes)?;
        let (words, _incomplete) = bytes.get(..len).ok_or(Errno::FAULT)?.as_chunks();
        self.page = words.iter().rev().map(|word| u64::from_le_bytes(*word)).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTER: u64 = 0x7ffd_0000_0ff0;

    /// Returns a process's memory with `words` from [`POINTER`] on.
    fn memory(words: &[u64]) -> impl Fn(u64, &mut [u8]) -> Result<usize, Errno> {
        let memory: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        move |address, bytes| {
            assert!(address % PAGE + u64::try_from(bytes.len()).unwrap() <= PAGE);
            let start = usize::try_from(address - POINTER).unwrap();
            let rest = memory.get(start..).ok_or(Errno::FAULT)?;
            let len = rest.len().min(bytes.len());
            bytes[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
    }

    fn stack() -> InitialStack {
        InitialStack {
            pointer: POINTER,
            arguments: vec![1, 2],
            environment: vec![3],
            auxiliary: vec![(AT_PHDR, 5), (AT_UID, 6)],
        }
    }

    #[test]
    fn stack_is_read_over_the_end_of_a_page() {
        let words = [2, 1, 2, 0, 3, 0, AT_PHDR, 5, AT_UID, 6, AT_NULL, 0, 99];
        assert_eq!(InitialStack::read(&memory(&words), POINTER), Ok(stack()));
        assert_eq!(stack().words(), words[..12]);
        assert_eq!(stack().auxiliary_vector(), (POINTER + 6 * WORD, words[6..12].to_vec()));
    }

    #[test]
    fn large_environment_is_read_and_an_endless_one_rejected() {
        let environment = |n: usize| {
            let words = [vec![0, 0], vec![7; n], vec![0, AT_NULL, 0]].concat();
            InitialStack::read(&memory(&words), POINTER)
        };
        assert_eq!(environment(500_000).unwrap().environment.len(), 500_000);
        assert_eq!(environment(2_000_000), Err(Errno::TOOBIG));
    }

    #[test]
    fn malformed_stacks_are_rejected() {
        let check = |pointer, words: &[u64], want| {
            assert_eq!(InitialStack::read(&memory(words), pointer), Err(want));
        };
        check(POINTER + 8, &[0; 8], Errno::FAULT);
        check(ADDRESS_SPACE_END + 0x10, &[0; 8], Errno::FAULT);
        check(POINTER, &[1, 2, 3, 0, 0, 0], Errno::FAULT);
        check(POINTER, &[0, 0, 0, 1, 2], Errno::FAULT);
        check(POINTER, &[u64::MAX, 2, 3, 0, 0, 0], Errno::FAULT);
        check(POINTER, &[], Errno::FAULT);
    }

    #[test]
    fn arguments_that_replace_the_first_one_keep_the_end_and_the_alignment() {
        let end = POINTER + stack().bytes();
        for (strings, padding) in [(vec![10], 0), (vec![10, 11], 8), (vec![10, 11, 12], 0)] {
            let longer = stack().with_first_argument(&strings).unwrap();
            assert_eq!(longer.arguments, [strings, vec![2]].concat());
            assert_eq!(longer.pointer % 16, 0);
            assert_eq!(longer.pointer + longer.bytes() + padding, end);
        }
    }

    #[test]
    fn only_existing_entries_of_the_vector_are_changed() {
        let changed = stack().with_auxiliary(&[(AT_UID, 60), (AT_GID, 70)]);
        assert_eq!(changed.auxiliary, [(AT_PHDR, 5), (AT_UID, 60)]);
        assert_eq!(changed.auxiliary(AT_GID), None);
    }
}
