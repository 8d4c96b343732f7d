//! The output of a step, read from a record: all of it, or its beginning and its end.

use std::collections::VecDeque;

/// Length of the beginning and of the end, where only these are kept.
const END_BYTES: usize = 512 << 10;
/// Total length from which [`SHORT_END_BYTES`] applies to later steps.
const MAX_ENDS_BYTES: usize = 24 << 20;
/// Length of the beginning and of the end of later steps.
const SHORT_END_BYTES: usize = 32 << 10;

/// Output, with its time in seconds since the start of the step.
pub(crate) type OutputChunk = (f64, Vec<u8>);

/// The output of a step in chunks.
#[derive(Debug, Default)]
pub(crate) struct StepOutput {
    chunks: Vec<OutputChunk>,
    n_bytes: usize,
    tail: VecDeque<OutputChunk>,
    n_tail_bytes: usize,
    n_left_out: usize,
}

impl StepOutput {
    /// Returns all chunks, or those of the beginning.
    pub(crate) fn chunks(&self) -> &[OutputChunk] {
        &self.chunks
    }

    /// Returns the chunks of the end. Chunks before it may be missing.
    pub(crate) fn tail(&self) -> impl Iterator<Item = &OutputChunk> {
        self.tail.iter()
    }

    /// Returns the number of bytes left out between the beginning and the end.
    pub(crate) const fn n_left_out(&self) -> usize {
        self.n_left_out
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.n_kept() == 0
    }

    const fn n_kept(&self) -> usize {
        self.n_bytes + self.n_tail_bytes
    }

    /// Appends output without limit.
    pub(crate) fn push(&mut self, at: f64, bytes: Vec<u8>) {
        self.n_bytes += bytes.len();
        self.chunks.push((at, bytes));
    }

    /// Appends output, and drops the middle. `n_kept` counts the bytes that all steps keep.
    pub(crate) fn push_end(&mut self, at: f64, bytes: Vec<u8>, n_kept: &mut usize) {
        let max = if *n_kept > MAX_ENDS_BYTES { SHORT_END_BYTES } else { END_BYTES };
        let n_before = self.n_kept();
        if self.tail.is_empty() && self.n_bytes + bytes.len() <= max {
            self.push(at, bytes);
        } else {
            self.push_tail(at, bytes, max);
        }
        *n_kept = (*n_kept + self.n_kept()).saturating_sub(n_before);
    }

    fn push_tail(&mut self, at: f64, bytes: Vec<u8>, max: usize) {
        self.n_tail_bytes += bytes.len();
        self.tail.push_back((at, bytes));
        while self.n_tail_bytes > max
            && self.tail.len() > 1
            && let Some((_, bytes)) = self.tail.pop_front()
        {
            self.n_tail_bytes -= bytes.len();
            self.n_left_out += bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_long_output_are_kept() {
        let mut output = StepOutput::default();
        let mut n_kept = 0;
        let n_chunks = 30_000;
        for _ in 0..n_chunks {
            output.push_end(0.0, vec![b'x'; 100], &mut n_kept);
        }
        assert_eq!(n_kept, output.n_kept());
        assert!((2 * END_BYTES - 200..=2 * END_BYTES).contains(&n_kept), "{n_kept}");
        assert_eq!(n_kept + output.n_left_out(), n_chunks * 100);
        let mut other = StepOutput::default();
        n_kept = MAX_ENDS_BYTES + 1;
        (0..n_chunks).for_each(|_| other.push_end(0.0, vec![b'x'; 100], &mut n_kept));
        assert!(other.n_kept() <= 2 * SHORT_END_BYTES, "{}", other.n_kept());
    }
}
