//! gzip on several threads, the same bytes for any number of them.
//!
//! The input is cut into pieces of a fixed size, and each becomes a member of its own; a gzip file is
//! any number of members one after the other (RFC 1952, 2.2). Layers in this form are nothing new to
//! registries and engines: eStargz has a member for each file.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use libdeflater::{CompressionLvl, Compressor};

use crate::pool;

use super::pack::PackWriter;

/// Bytes of input in a member. The output depends on it: changing it changes every digest. A
/// member cannot refer to the one before: at 128 KiB that costs 1 % of the size, here 0.2 %.
const MEMBER_BYTES: usize = 512 * 1024;

/// A piece on its way to a thread.
struct Job {
    piece: Vec<u8>,
    reply: SyncSender<io::Result<Vec<u8>>>,
}

/// Compresses what is written to it.
pub(super) struct GzipWriter<W> {
    out: W,
    compressor: Workers,
    /// Replies in the order of the pieces.
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    piece: Vec<u8>,
    is_empty: bool,
}

enum Workers {
    Here(Deflater),
    Threads { jobs: Sender<Job>, n_threads: usize },
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(out: W, level: u32, jobs: NonZeroUsize) -> Self {
        let threads = if jobs.get() == 1 { None } else { start(level, jobs.get()) };
        let compressor = threads.unwrap_or_else(|| Workers::Here(Deflater::new(level)));
        let piece = Vec::with_capacity(MEMBER_BYTES);
        Self { out, compressor, pending: VecDeque::new(), piece, is_empty: true }
    }

    fn end_member(&mut self) -> io::Result<()> {
        self.is_empty = false;
        match &mut self.compressor {
            Workers::Here(deflater) => {
                let packed = deflater.member(&self.piece)?;
                self.piece.clear();
                self.out.write_all(&packed)
            }
            Workers::Threads { jobs, n_threads } => {
                let most_pending = *n_threads * 2;
                let (reply, packed) = sync_channel(1);
                let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(MEMBER_BYTES));
                jobs.send(Job { piece, reply }).map_err(|_gone| thread_died())?;
                self.pending.push_back(packed);
                self.write_packed(most_pending)
            }
        }
    }

    /// Writes finished members until at most `most_pending` are under way.
    fn write_packed(&mut self, most_pending: usize) -> io::Result<()> {
        while self.pending.len() > most_pending {
            let Some(packed) = self.pending.pop_front() else { break };
            let packed = packed.recv().map_err(|_gone| thread_died())??;
            self.out.write_all(&packed)?;
        }
        Ok(())
    }
}

fn thread_died() -> io::Error {
    io::Error::other("a compressing thread ended early")
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let space = MEMBER_BYTES - self.piece.len();
        let taken = bytes.get(..space).unwrap_or(bytes);
        self.piece.extend_from_slice(taken);
        if self.piece.len() == MEMBER_BYTES {
            self.end_member()?;
        }
        Ok(taken.len())
    }

    /// Does nothing: a member that ends early would make the bytes depend on when it is called.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> PackWriter<W> for GzipWriter<W> {
    fn finish(mut self: Box<Self>) -> io::Result<W> {
        // A file has one member at least, if an empty one.
        if self.is_empty || !self.piece.is_empty() {
            self.end_member()?;
        }
        self.write_packed(0)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Starts threads that deflate until the sender is dropped; fewer if no more can be started, and
/// none if not even one can.
fn start(level: u32, n_threads: usize) -> Option<Workers> {
    let (jobs, inbox) = channel::<Job>();
    // Several threads take from one queue, and the standard one has a single reader.
    let inbox = Arc::new(Mutex::new(inbox));
    let mut n_started = 0;
    for _ in 0..n_threads {
        let inbox = Arc::clone(&inbox);
        let started = pool::background_with(inbox, move |inbox| {
            let mut deflater = Deflater::new(level);
            while let Some(job) = take(&inbox) {
                let packed = deflater.member(&job.piece);
                // Nobody waits any more when the writer was dropped: that is no error.
                drop(job.reply.send(packed));
            }
        });
        if started.is_err() {
            break;
        }
        n_started += 1;
    }
    (n_started > 0).then_some(Workers::Threads { jobs, n_threads: n_started })
}

fn take(inbox: &Mutex<Receiver<Job>>) -> Option<Job> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Makes members; it keeps nothing from one to the next.
struct Deflater {
    usual: Compressor,
    /// For what is packed already: it only wraps.
    wrapping: Compressor,
}

impl Deflater {
    fn new(level: u32) -> Self {
        let level = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
        let usual = Compressor::new(level.unwrap_or_else(CompressionLvl::best));
        Self { usual, wrapping: Compressor::new(CompressionLvl::fastest()) }
    }

    fn member(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        if looks_random(piece) && self.gains_nothing(piece)? {
            return pack(&mut self.wrapping, piece);
        }
        pack(&mut self.usual, piece)
    }

    /// Whether some parts of the piece come out as long as they went in.
    fn gains_nothing(&mut self, piece: &[u8]) -> io::Result<bool> {
        for part in piece.chunks(PROBE_BYTES).step_by(PROBE_EVERY) {
            let packed = pack(&mut self.usual, part)?;
            if packed.len() < part.len() - part.len() / 64 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Of a piece that looks random, every eighth part of this length is tried.
const PROBE_BYTES: usize = 8 * 1024;
const PROBE_EVERY: usize = 8;

/// Pieces shorter than this are packed without a look.
const MIN_RANDOM_BYTES: usize = 16 * 1024;

/// Whether every byte is about as frequent as every other, as in what is packed or encrypted, where
/// searching for repetitions is most of the work and finds none. Of the bytes, one in seven counts;
/// only whole numbers, so that the answer is the same everywhere.
fn looks_random(piece: &[u8]) -> bool {
    if piece.len() < MIN_RANDOM_BYTES {
        return false;
    }
    let mut counts = [0_u64; 256];
    for byte in piece.iter().step_by(7) {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let n_counted: u64 = counts.iter().sum();
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    // Equal counts give n^2 / 256, chance adds n, and a sixteenth is left for what packers leave.
    squares * 256 <= n_counted * n_counted / 16 * 17 + 256 * n_counted
}

fn pack(compressor: &mut Compressor, piece: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = vec![0; compressor.gzip_compress_bound(piece.len())];
    let n_bytes = compressor.gzip_compress(piece, &mut packed).map_err(io::Error::other)?;
    packed.truncate(n_bytes);
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_already_is_told_from_what_is_not() {
        let mut random = vec![0; 300_000];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        let text: Vec<u8> = (0..60_000).flat_map(|n: u32| n.to_string().into_bytes()).collect();
        let digits: Vec<u8> = random.iter().flat_map(|b| format!("{b:03}").into_bytes()).collect();
        let zstd = zstd::encode_all(&*digits, 3).unwrap();
        // Every byte as often as any other, and yet it repeats.
        let ramp: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let mut deflater = Deflater::new(4);
        for (piece, random, stored) in [
            (&random, true, true),
            (&text, false, false),
            (&zstd, true, true),
            (&ramp, true, false),
        ] {
            assert_eq!(looks_random(piece), random);
            let packed = deflater.member(piece).unwrap();
            assert_eq!(packed.len() > piece.len(), stored, "{} {}", piece.len(), packed.len());
        }
    }
}
