//! The output that a build record keeps: beginning and end of each step's, and a limited amount of
//! all together.

use std::collections::{BTreeMap, VecDeque};

use crate::executor::StepId;
use crate::limits::{
    MAX_RECORDED_OUTPUT_BYTES, RECORDED_END_BYTES, RECORDED_HEAD_BYTES, RECORDED_SHORT_BYTES,
};

/// Lines of a record about output, and which of them are kept.
#[derive(Debug, Default)]
pub(crate) struct KeptOutput {
    steps: BTreeMap<StepId, Ends>,
    /// Bytes of lines that were kept, of all steps.
    n_written: usize,
}

/// Lines about the output of a step.
#[derive(Debug, Default)]
struct Ends {
    n_head: usize,
    /// Lines that may be the end, each with its number of bytes of output.
    tail: VecDeque<(usize, Vec<u8>)>,
    n_tail: usize,
    n_left_out: usize,
}

/// Lines about the end of a step's output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Bytes of output that are left out before it.
    pub(crate) n_left_out: usize,
    /// JSON, with line ends.
    pub(crate) lines: Vec<u8>,
}

impl KeptOutput {
    /// Adds a line about `n_bytes` of output: to `lines` if it belongs to the beginning, or to the
    /// possible end.
    pub(crate) fn add(&mut self, step: StepId, n_bytes: usize, line: &[u8], lines: &mut Vec<u8>) {
        let is_over = self.n_written > MAX_RECORDED_OUTPUT_BYTES;
        let (head, end) = match is_over {
            _ if self.n_written > 2 * MAX_RECORDED_OUTPUT_BYTES => (0, 0),
            true => (RECORDED_SHORT_BYTES, RECORDED_SHORT_BYTES),
            false => (RECORDED_HEAD_BYTES, RECORDED_END_BYTES),
        };
        let ends = self.steps.entry(step).or_default();
        if ends.tail.is_empty() && ends.n_left_out == 0 && ends.n_head + line.len() <= head {
            ends.n_head += line.len();
            self.n_written += line.len();
            lines.extend_from_slice(line);
            return;
        }
        ends.n_tail += line.len();
        ends.tail.push_back((n_bytes, line.to_owned()));
        while ends.n_tail > end
            && let Some((n_bytes, line)) = ends.tail.pop_front()
        {
            ends.n_tail -= line.len();
            ends.n_left_out += n_bytes;
        }
    }

    /// Returns the end of a step's output, unless all of it belonged to the beginning.
    pub(crate) fn end(&mut self, step: StepId) -> Option<End> {
        let ends = self.steps.remove(&step)?;
        if ends.tail.is_empty() && ends.n_left_out == 0 {
            return None;
        }
        self.n_written += ends.n_tail;
        let lines = ends.tail.into_iter().flat_map(|(_, line)| line).collect();
        Some(End { n_left_out: ends.n_left_out, lines })
    }

    /// Returns the steps that have output and did not end.
    pub(crate) fn steps(&self) -> Vec<StepId> {
        self.steps.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_endless_output_has_its_beginning_and_end() {
        let mut kept = KeptOutput::default();
        let mut lines = Vec::new();
        let n_lines = 200_000;
        for at in 0..n_lines {
            kept.add(StepId(1), 50, format!("{at:0100}").as_bytes(), &mut lines);
        }
        let n_head = RECORDED_HEAD_BYTES / 100;
        assert_eq!(lines.len(), n_head * 100);
        let end = kept.end(StepId(1)).unwrap();
        let n_tail = RECORDED_END_BYTES / 100;
        assert_eq!(end.lines.len(), n_tail * 100);
        assert_eq!(end.n_left_out, (n_lines - n_head - n_tail) * 50);
        assert!(end.lines.ends_with(format!("{:0100}", n_lines - 1).as_bytes()));
        assert_eq!(kept.end(StepId(1)), None);
    }

    #[test]
    fn record_of_many_steps_with_much_output_is_bounded() {
        let mut kept = KeptOutput::default();
        let mut n_bytes = 0;
        let line = vec![b'x'; 10_000];
        for step in 0..200 {
            let mut lines = Vec::new();
            for _ in 0..1000 {
                kept.add(StepId(step), line.len(), &line, &mut lines);
            }
            n_bytes += lines.len() + kept.end(StepId(step)).map_or(0, |end| end.lines.len());
        }
        let most = MAX_RECORDED_OUTPUT_BYTES + RECORDED_HEAD_BYTES + RECORDED_END_BYTES;
        assert!(n_bytes <= most + 200 * 2 * RECORDED_SHORT_BYTES, "{n_bytes}");
    }

    #[test]
    fn short_output_is_written_at_once() {
        let mut kept = KeptOutput::default();
        let mut lines = Vec::new();
        kept.add(StepId(1), 5, b"line\n", &mut lines);
        assert_eq!((&*lines, kept.end(StepId(1))), (&b"line\n"[..], None));
    }
}
