//! What a step printed: all of it, or where that is much, its beginning and its end.

use std::collections::VecDeque;

use super::Step;

/// Where only ends are kept, each is about so long;
const END_BYTES: usize = 512 << 10;
/// and when those of all steps together are longer than this, those of later steps
const MAX_ENDS_BYTES: usize = 24 << 20;
/// have only this.
const SHORT_END_BYTES: usize = 32 << 10;

/// A piece, with seconds since the step's start.
pub(crate) type Piece = (f64, Vec<u8>);

/// What was printed, piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    pieces: Vec<Piece>,
    n_bytes: usize,
    tail: VecDeque<Piece>,
    n_tail_bytes: usize,
    n_left_out: usize,
}

impl Step {
    /// Its command starts: its time counts from here.
    pub(crate) const fn execute(&mut self, seconds: f64) {
        (self.executed, self.started) = (true, seconds);
    }
}

impl Printed {
    /// All of it, or the beginning.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The end, if something was left out or could have been.
    pub(crate) fn tail(&self) -> impl Iterator<Item = &Piece> {
        self.tail.iter()
    }

    /// Bytes between the beginning and the end.
    pub(crate) const fn n_left_out(&self) -> usize {
        self.n_left_out
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.n_kept() == 0
    }

    const fn n_kept(&self) -> usize {
        self.n_bytes + self.n_tail_bytes
    }

    /// Adds what came.
    pub(crate) fn push(&mut self, at: f64, bytes: Vec<u8>) {
        self.n_bytes += bytes.len();
        self.pieces.push((at, bytes));
    }

    /// Adds what came, and lets go of what is far from both ends; `n_kept` is what all steps keep.
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
    fn of_much_the_ends_are_kept() {
        let mut printed = Printed::default();
        let mut n_kept = 0;
        let n_pieces = 30_000;
        for _ in 0..n_pieces {
            printed.push_end(0.0, vec![b'x'; 100], &mut n_kept);
        }
        assert_eq!(n_kept, printed.n_kept());
        assert!((2 * END_BYTES - 200..=2 * END_BYTES).contains(&n_kept), "{n_kept}");
        assert_eq!(n_kept + printed.n_left_out(), n_pieces * 100);
        let mut other = Printed::default();
        n_kept = MAX_ENDS_BYTES + 1;
        (0..n_pieces).for_each(|_| other.push_end(0.0, vec![b'x'; 100], &mut n_kept));
        assert!(other.n_kept() <= 2 * SHORT_END_BYTES, "{}", other.n_kept());
    }
}
