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
        let compressor = match jobs.get() {
            1 => Workers::Here(Deflater::new(level)),
            n_threads => Workers::Threads { jobs: start(level, n_threads), n_threads },
        };
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
        let room = MEMBER_BYTES - self.piece.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
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

/// Starts threads that deflate until the sender is dropped.
fn start(level: u32, n_threads: usize) -> Sender<Job> {
    let (jobs, inbox) = channel::<Job>();
    // Several threads take from one queue, and the standard one has a single reader.
    let inbox = Arc::new(Mutex::new(inbox));
    for _ in 0..n_threads {
        let inbox = Arc::clone(&inbox);
        pool::background(move || {
            let mut deflater = Deflater::new(level);
            while let Some(job) = take(&inbox) {
                let packed = deflater.member(&job.piece);
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

/// Makes members; it keeps nothing from one to the next.
struct Deflater(Compressor);

impl Deflater {
    fn new(level: u32) -> Self {
        let level = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
        Self(Compressor::new(level.unwrap_or_else(CompressionLvl::best)))
    }

    fn member(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        let mut packed = vec![0; self.0.gzip_compress_bound(piece.len())];
        let n_bytes = self.0.gzip_compress(piece, &mut packed).map_err(io::Error::other)?;
        packed.truncate(n_bytes);
        Ok(packed)
    }
}
