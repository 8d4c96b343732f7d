//! A large layer of a RUN on its way to a registry: it is compressed while it is hashed, and sent while it
//! is compressed. Its DiffID is known only at the end.

use std::io::{self, Read};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::executor::LayerUpload;
use crate::pool;
use crate::registry::SendingLock;
use crate::store::{ArrivingReader, PackedRecord};

/// Connects the thread that compresses a layer with the one that sends it.
#[derive(Debug)]
pub(super) struct LayerStream {
    /// The short name of the step that made the layer.
    step: String,
    state: Mutex<StreamState>,
    changed: Condvar,
}

/// The bytes of a layer, and the repository for them.
type StreamBytes = (ArrivingReader, LayerUpload);

#[derive(Debug)]
enum StreamState {
    /// The changes of the step are not listed yet.
    Undecided,
    /// The compressed bytes can be sent; `Some` until a thread takes them.
    Open(Option<StreamBytes>),
    /// A thread sends them. Once the DiffID is known, no other thread may send the layer.
    Sending(Option<SendingLock>),
    /// They are not sent before the layer is finished.
    Unsent,
    /// The layer is finished, and the blob is complete if the upload may be.
    Ended(Option<CompleteBlob>),
}

/// The blob of a layer whose upload was not given up.
#[derive(Debug)]
pub(super) struct CompleteBlob {
    pub(super) record: PackedRecord,
    /// Released when the upload has ended.
    _alone: SendingLock,
}

impl LayerStream {
    pub(super) fn new(step: String) -> Self {
        Self { step, state: Mutex::new(StreamState::Undecided), changed: Condvar::new() }
    }

    /// Returns the short name of the step that made the layer.
    pub(super) fn step(&self) -> &str {
        &self.step
    }

    /// Lets a thread send the bytes of `reader`.
    pub(super) fn open(&self, reader: ArrivingReader, to: LayerUpload) {
        self.change(|_undecided| StreamState::Open(Some((reader, to))));
    }

    /// Gives the upload up. Its thread notices that at its next read.
    pub(super) fn give_up(&self) {
        self.change(|state| match state {
            StreamState::Ended(_) => state,
            StreamState::Undecided
            | StreamState::Open(_)
            | StreamState::Sending(_)
            | StreamState::Unsent => StreamState::Unsent,
        });
    }

    /// Called when the DiffID is known, with a function that locks the layer for the registry. Gives the
    /// upload up if another thread has the lock, or if the upload has not begun: the layer can then be sent
    /// as any other.
    pub(super) fn identify(&self, lock: impl FnOnce() -> Option<SendingLock>) {
        self.change(|state| match state {
            StreamState::Sending(None) => match lock() {
                Some(alone) => StreamState::Sending(Some(alone)),
                None => StreamState::Unsent,
            },
            StreamState::Undecided | StreamState::Open(_) => StreamState::Unsent,
            StreamState::Sending(Some(_)) | StreamState::Unsent | StreamState::Ended(_) => state,
        });
    }

    /// Ends the stream, with the blob if it is complete.
    pub(super) fn end(&self, record: Option<PackedRecord>) {
        self.change(|state| match (state, record) {
            (StreamState::Sending(Some(alone)), Some(record)) => {
                StreamState::Ended(Some(CompleteBlob { record, _alone: alone }))
            }
            (ended @ StreamState::Ended(_), _) => ended,
            _ => StreamState::Ended(None),
        });
    }

    /// Returns the bytes to send; `None` if they are not to be sent yet. Waits until that is known.
    pub(super) fn take(&self) -> Option<StreamBytes> {
        let mut state = self.state();
        loop {
            match &mut *state {
                StreamState::Undecided => state = pool::wait(&self.changed, state),
                StreamState::Open(bytes) => {
                    let bytes = bytes.take();
                    *state = StreamState::Sending(None);
                    return bytes;
                }
                StreamState::Sending(_) | StreamState::Unsent | StreamState::Ended(_) => {
                    return None;
                }
            }
        }
    }

    /// Waits for the end of the stream; returns the blob if the upload can be completed.
    pub(super) fn wait(&self) -> Option<CompleteBlob> {
        let mut state = self.state();
        loop {
            if let StreamState::Ended(blob) = &mut *state {
                return blob.take();
            }
            state = pool::wait(&self.changed, state);
        }
    }

    /// Returns whether the upload goes on.
    fn is_wanted(&self) -> bool {
        matches!(*self.state(), StreamState::Sending(_) | StreamState::Ended(Some(_)))
    }

    fn change(&self, change: impl FnOnce(StreamState) -> StreamState) {
        let mut state = self.state();
        *state = change(mem::replace(&mut *state, StreamState::Unsent));
        drop(state);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, StreamState> {
        pool::lock(&self.state)
    }
}

/// Reads the bytes of a stream until its upload is given up or the build is cancelled.
pub(super) struct WantedReader<'a> {
    pub(super) reader: ArrivingReader,
    pub(super) stream: &'a LayerStream,
    pub(super) keeps_going: &'a dyn Fn() -> bool,
}

impl Read for WantedReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if !self.stream.is_wanted() || !(self.keeps_going)() {
            return Err(io::Error::other("stopped"));
        }
        self.reader.read(to)
    }
}
