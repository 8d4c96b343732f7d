//! gzip on several threads; the output does not depend on their number.
//!
//! The input is cut into chunks of a fixed size, and each becomes a member; a gzip file is any
//! number of members in sequence (RFC 1952, 2.2). Registries and engines know such layers: eStargz
//! has a member for each file
//! (<https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md>).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use libdeflater::{CompressionLvl, Compressor};

use crate::pool;

use super::pack::PackWriter;

/// The number of input bytes in a member. Changing it changes the digest of every compressed layer.
/// A member cannot refer back to the previous one: at 128 KiB that costs 1 % of the size, at 512
/// KiB 0.2 %.
const MEMBER_BYTES: usize = 512 * 1024;

/// A chunk, and the bytes of its member. A writer uses the same ones for chunk after chunk: the
/// first use of new memory costs as much as compressing a twentieth of it.
struct Member {
    chunk: Vec<u8>,
    packed: Vec<u8>,
}

impl Member {
    fn new() -> Self {
        Self { chunk: Vec::with_capacity(MEMBER_BYTES), packed: Vec::new() }
    }
}

/// A chunk for a thread to compress.
struct CompressJob {
    member: Member,
    reply: SyncSender<io::Result<Member>>,
}

/// A writer that compresses into gzip members.
pub(super) struct GzipWriter<W> {
    out: W,
    compressor: GzipWorkers,
    /// The replies in the order of the chunks.
    pending: VecDeque<Receiver<io::Result<Member>>>,
    /// The member whose chunk is being filled.
    member: Member,
    /// The member that was written last.
    spare: Option<Member>,
    is_empty: bool,
}

enum GzipWorkers {
    Here(Deflater),
    Threads { jobs: Sender<CompressJob>, n_threads: usize },
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(out: W, level: u32, jobs: NonZeroUsize) -> Self {
        let threads = if jobs.get() == 1 { None } else { start(level, jobs.get()) };
        let compressor = threads.unwrap_or_else(|| GzipWorkers::Here(Deflater::new(level)));
        let (pending, member) = (VecDeque::new(), Member::new());
        Self { out, compressor, pending, member, spare: None, is_empty: true }
    }

    fn end_member(&mut self) -> io::Result<()> {
        self.is_empty = false;
        match &mut self.compressor {
            GzipWorkers::Here(deflater) => {
                deflater.compress(&mut self.member)?;
                self.member.chunk.clear();
                self.out.write_all(&self.member.packed)
            }
            GzipWorkers::Threads { jobs, n_threads } => {
                let most_pending = *n_threads + 1;
                let (reply, packed) = sync_channel(1);
                let next = self.spare.take().unwrap_or_else(Member::new);
                let member = std::mem::replace(&mut self.member, next);
                jobs.send(CompressJob { member, reply }).map_err(|_gone| thread_died())?;
                self.pending.push_back(packed);
                self.write_packed(most_pending)
            }
        }
    }

    /// Writes finished members until at most `most_pending` are outstanding.
    fn write_packed(&mut self, most_pending: usize) -> io::Result<()> {
        while self.pending.len() > most_pending {
            let Some(packed) = self.pending.pop_front() else { break };
            let mut member = packed.recv().map_err(|_gone| thread_died())??;
            self.out.write_all(&member.packed)?;
            member.chunk.clear();
            self.spare = Some(member);
        }
        Ok(())
    }
}

fn thread_died() -> io::Error {
    io::Error::other("a compressing thread ended early")
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let space = MEMBER_BYTES - self.member.chunk.len();
        let taken = bytes.get(..space).unwrap_or(bytes);
        self.member.chunk.extend_from_slice(taken);
        if self.member.chunk.len() == MEMBER_BYTES {
            self.end_member()?;
        }
        Ok(taken.len())
    }

    /// Does nothing: ending a member early would make the output depend on the calls of `flush`.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> PackWriter<W> for GzipWriter<W> {
    fn finish(mut self: Box<Self>) -> io::Result<W> {
        // A gzip file has at least one member, even if it is empty.
        if self.is_empty || !self.member.chunk.is_empty() {
            self.end_member()?;
        }
        self.write_packed(0)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Starts threads that compress until the sender is dropped; fewer if the system allows no more,
/// `None` if it allows none.
fn start(level: u32, n_threads: usize) -> Option<GzipWorkers> {
    let (jobs, inbox) = channel::<CompressJob>();
    // Several threads share one queue, and the standard one has a single receiver.
    let inbox = Arc::new(Mutex::new(inbox));
    let mut n_started = 0;
    for _ in 0..n_threads {
        let inbox = Arc::clone(&inbox);
        let started = pool::background_with(inbox, move |inbox| {
            let mut deflater = Deflater::new(level);
            while let Some(CompressJob { mut member, reply }) = next_job(&inbox) {
                let packed = deflater.compress(&mut member).map(|()| member);
                // The receiver is gone if the writer was dropped, which is not an error.
                drop(reply.send(packed));
            }
        });
        if started.is_err() {
            break;
        }
        n_started += 1;
    }
    (n_started > 0).then_some(GzipWorkers::Threads { jobs, n_threads: n_started })
}

fn next_job(inbox: &Mutex<Receiver<CompressJob>>) -> Option<CompressJob> {
    pool::lock(inbox).recv().ok()
}

/// Compresses members, each independent of the others.
struct Deflater {
    usual: Compressor,
    /// For the probed parts of data that may be compressed already.
    probing: Compressor,
    /// For data that is compressed already, which is only stored.
    storing: Compressor,
}

impl Deflater {
    fn new(level: u32) -> Self {
        Self {
            usual: compressor(level),
            probing: compressor(PROBE_LEVEL),
            storing: compressor(STORE_LEVEL),
        }
    }

    fn compress(&mut self, member: &mut Member) -> io::Result<()> {
        let Member { chunk, packed } = member;
        if looks_random(chunk) && self.gains_nothing(chunk)? {
            return pack(&mut self.storing, chunk, packed);
        }
        pack(&mut self.usual, chunk, packed)
    }

    /// Returns whether the probed parts of the chunk shrink by less than a 64th in total. A single
    /// part may shrink by more: between the photos of a layer are headers and colour profiles.
    fn gains_nothing(&mut self, chunk: &[u8]) -> io::Result<bool> {
        let parts = chunk.chunks(PROBE_BYTES).step_by(PROBE_EVERY);
        let n_probed: usize = parts.clone().map(<[u8]>::len).sum();
        let (mut n_saved, mut packed) = (0, Vec::new());
        for part in parts {
            pack(&mut self.probing, part, &mut packed)?;
            n_saved += part.len().saturating_sub(packed.len());
            if n_saved > n_probed / 64 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns a compressor of this level, or of the highest.
fn compressor(level: u32) -> Compressor {
    let level = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
    Compressor::new(level.unwrap_or_else(CompressionLvl::best))
}

/// The level of libdeflate that only stores (`libdeflate.h`, `libdeflate_alloc_compressor`).
const STORE_LEVEL: u32 = 0;

/// The level for probed parts, whatever the level of the output is: the fastest that searches for
/// repetitions.
const PROBE_LEVEL: u32 = 1;

/// The length of a probed part of a chunk; every eighth part is probed.
const PROBE_BYTES: usize = 8 * 1024;
const PROBE_EVERY: usize = 8;

/// Chunks shorter than this are compressed without a check.
const MIN_RANDOM_BYTES: usize = 16 * 1024;

/// Returns whether all byte values are about equally frequent, as in compressed or encrypted data.
/// In such data the search for repetitions takes most of the time and finds none. Counts every
/// seventh byte, and uses integers only, so the result is the same on every machine.
fn looks_random(chunk: &[u8]) -> bool {
    if chunk.len() < MIN_RANDOM_BYTES {
        return false;
    }
    let mut counts = [0_u64; 256];
    for byte in chunk.iter().step_by(7) {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let n_counted: u64 = counts.iter().sum();
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    // Equal counts give n^2 / 256 and chance adds n. A quarter is allowed for what compressors leave:
    // most photos need a tenth, while text and machine code have several times as much.
    squares * 256 <= n_counted * n_counted / 4 * 5 + 256 * n_counted
}

/// Replaces `packed` with the member of a chunk.
fn pack(compressor: &mut Compressor, chunk: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
    packed.resize(compressor.gzip_compress_bound(chunk.len()), 0);
    let n_bytes = compressor.gzip_compress(chunk, packed).map_err(io::Error::other)?;
    packed.truncate(n_bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn random(n_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; n_bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn member(deflater: &mut Deflater, chunk: &[u8]) -> Vec<u8> {
        let mut member = Member::new();
        member.chunk.extend_from_slice(chunk);
        deflater.compress(&mut member).unwrap();
        member.packed
    }

    /// Random bytes with more zeros, as in JPEG files. A Huffman code shrinks them by less than 1 %.
    fn photo_like(n_bytes: usize) -> Vec<u8> {
        let mut bytes = random(n_bytes);
        bytes.iter_mut().step_by(40).for_each(|byte| *byte = 0);
        bytes
    }

    #[test]
    fn compressed_data_is_stored_and_other_data_is_compressed() {
        let random = random(300_000);
        let text: Vec<u8> = (0..60_000).flat_map(|n: u32| n.to_string().into_bytes()).collect();
        let digits: Vec<u8> = random.iter().flat_map(|b| format!("{b:03}").into_bytes()).collect();
        let zstd = zstd::encode_all(&*digits, 3).unwrap();
        // Every byte as often as any other, and yet it repeats.
        let ramp: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        // The second photo begins with a header that shrinks, in a probed part.
        let mut photos = photo_like(500_000);
        photos.get_mut(262_144..262_444).unwrap().fill(0);
        // Many such headers are worth the time, and so is a sixteenth of text.
        let mut headers = photo_like(500_000);
        for part in headers.chunks_mut(65_536) {
            part.iter_mut().take(300).for_each(|byte| *byte = 0);
        }
        let (before, after) = random.split_at(120_000);
        let mixed = [before, text.get(..20_000).unwrap(), after].concat();
        for level in [1, 4, 9] {
            let mut deflater = Deflater::new(level);
            for (chunk, random, stored) in [
                (&random, true, true),
                (&text, false, false),
                (&zstd, true, true),
                (&ramp, true, false),
                (&photos, true, true),
                (&headers, true, false),
                (&mixed, true, false),
            ] {
                assert_eq!(looks_random(chunk), random, "{}", chunk.len());
                let packed = member(&mut deflater, chunk);
                assert_eq!(packed.len() > chunk.len(), stored, "{} {}", chunk.len(), packed.len());
            }
        }
    }

    #[test]
    fn stored_members_unpack_with_another_reader_and_grow_by_little() {
        for chunk in [random(MEMBER_BYTES), photo_like(MEMBER_BYTES), random(MIN_RANDOM_BYTES)] {
            let packed = member(&mut Deflater::new(4), &chunk);
            let n_more = packed.len().checked_sub(chunk.len()).unwrap();
            assert!(n_more * 1000 < chunk.len().max(32_768), "{n_more}");
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == chunk);
        }
    }
}
