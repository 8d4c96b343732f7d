//! gzip on several threads, one member, the same bytes for any number of them.
//!
//! The input is cut into blocks of a fixed size; each is deflated by itself with the 32 KiB before
//! it as dictionary and ends on a byte boundary (pigz's way), so that the pieces can be joined.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Compress, FlushCompress};

use crate::pool;

use super::pack::PackWriter;

/// Bytes of input in a block. The output depends on it: changing it changes every digest.
/// At 128 KiB the ratio is that of one serial stream, and a thread's share of memory is small.
const BLOCK_BYTES: usize = 128 * 1024;

/// As far back as deflate can refer.
const WINDOW_BYTES: usize = 32 * 1024;

/// Magic, deflate, no flags, no time, no hint of the level, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A final, empty deflate block.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// A block on its way to a thread.
struct Job {
    before: Arc<Vec<u8>>,
    block: Arc<Vec<u8>>,
    reply: SyncSender<io::Result<Vec<u8>>>,
}

/// Compresses what is written to it.
pub(super) struct GzipWriter<W> {
    out: W,
    compressor: Workers,
    /// Replies in the order of the blocks.
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    before: Arc<Vec<u8>>,
    block: Vec<u8>,
    crc: crc32fast::Hasher,
    n_bytes: u64,
}

enum Workers {
    Here(Deflater),
    Threads { jobs: Sender<Job>, n_threads: usize },
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(out: W, level: u32, jobs: NonZeroUsize) -> Self {
        let compressor = match jobs.get() {
            1 => Workers::Here(Deflater::new(level)),
            n_threads => Workers::Threads { jobs: start(level, n_threads), n_threads },
        };
        Self {
            out,
            compressor,
            pending: VecDeque::new(),
            before: Arc::default(),
            block: Vec::with_capacity(BLOCK_BYTES),
            crc: crc32fast::Hasher::new(),
            n_bytes: 0,
        }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        if self.n_bytes == 0 {
            self.out.write_all(&HEADER)?;
        }
        self.crc.update(&self.block);
        self.n_bytes += u64::try_from(self.block.len()).unwrap_or(0);
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES)));
        let before = std::mem::replace(&mut self.before, Arc::clone(&block));
        match &self.compressor {
            Workers::Here(deflater) => {
                let packed = deflater.deflate(window(&before), &block)?;
                self.out.write_all(&packed)
            }
            Workers::Threads { jobs, n_threads } => {
                let most_pending = *n_threads * 2;
                let (reply, packed) = sync_channel(1);
                jobs.send(Job { before, block, reply }).map_err(|_gone| thread_died())?;
                self.pending.push_back(packed);
                self.write_packed(most_pending)
            }
        }
    }

    /// Writes finished blocks until at most `most_pending` are under way.
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
        let room = BLOCK_BYTES - self.block.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.block.extend_from_slice(taken);
        if self.block.len() == BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(taken.len())
    }

    /// Does nothing: a block that ends early would make the bytes depend on when it is called.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> PackWriter<W> for GzipWriter<W> {
    fn finish(mut self: Box<Self>) -> io::Result<W> {
        self.end_block()?;
        self.write_packed(0)?;
        if self.n_bytes == 0 {
            self.out.write_all(&HEADER)?;
        }
        self.out.write_all(&LAST_BLOCK)?;
        self.out.write_all(&self.crc.finalize().to_le_bytes())?;
        // RFC 1952: the length modulo 2^32.
        let [a, b, c, d, ..] = self.n_bytes.to_le_bytes();
        self.out.write_all(&[a, b, c, d])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn window(before: &[u8]) -> &[u8] {
    before.get(before.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default()
}

/// Starts threads that deflate until the sender is dropped.
fn start(level: u32, n_threads: usize) -> Sender<Job> {
    let (jobs, inbox) = channel::<Job>();
    // Several threads take from one queue, and the standard one has a single reader.
    let inbox = Arc::new(Mutex::new(inbox));
    for _ in 0..n_threads {
        let inbox = Arc::clone(&inbox);
        pool::background(move || {
            let deflater = Deflater::new(level);
            while let Some(job) = take(&inbox) {
                let packed = deflater.deflate(window(&job.before), &job.block);
                // Nobody waits any more when the writer was dropped: that is no error.
                drop(job.reply.send(packed));
            }
        });
    }
    jobs
}

fn take(inbox: &Mutex<Receiver<Job>>) -> Option<Job> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Deflates blocks. It keeps no state from one to the next: after `Compress::reset`, zlib-rs 0.6
/// finds other matches than a fresh one does, and the bytes would depend on which thread did what.
struct Deflater {
    level: flate2::Compression,
}

impl Deflater {
    fn new(level: u32) -> Self {
        Self { level: flate2::Compression::new(level.min(9)) }
    }

    /// Deflates `block` to whole bytes; the result continues what `before` ended with.
    fn deflate(&self, before: &[u8], block: &[u8]) -> io::Result<Vec<u8>> {
        let mut compress = Compress::new(self.level, false);
        if !before.is_empty() {
            compress.set_dictionary(before).map_err(io::Error::other)?;
        }
        // Incompressible input grows by 5 bytes per 16 KiB and the mark at the end.
        let mut packed = Vec::with_capacity(block.len() + block.len() / 1024 + 64);
        loop {
            let done = usize::try_from(compress.total_in()).map_err(io::Error::other)?;
            let rest = block.get(done..).unwrap_or_default();
            compress.compress_vec(rest, &mut packed, FlushCompress::Sync)?;
            // Room that is left over says that nothing is held back.
            if packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(BLOCK_BYTES);
        }
    }
}
