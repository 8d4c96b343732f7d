//! `--progress=quiet`: errors only, with annotations where a CI system reads them.

use crate::diag::Style;
use crate::executor::Event;

use super::ci_annotations::CiCommands;
use super::out::Out;
use super::sink::{Failure, Sink};

/// The display that shows errors only.
#[derive(Debug)]
pub(super) struct Quiet {
    pub(super) ci: Option<CiCommands>,
    pub(super) style: Style,
}

impl Sink for Quiet {
    fn begin(&mut self, out: &mut Out<'_>) {
        self.ci.iter().for_each(|ci| ci.begin(out));
    }

    fn dockerfile(&mut self, name: &str, _text: &str, _out: &mut Out<'_>) {
        self.ci.iter_mut().for_each(|ci| ci.set_dockerfile(name));
    }

    fn event(&mut self, _event: &Event, _out: &mut Out<'_>) {}

    fn failed(&mut self, failure: &Failure<'_>, out: &mut Out<'_>) {
        out.lines(&failure.text, self.style == Style::Colour);
        self.ci.iter().for_each(|ci| ci.failure(failure.error, out));
    }

    fn finish(&mut self, out: &mut Out<'_>) {
        self.ci.iter().for_each(|ci| ci.end(out));
    }

    fn is_quiet(&self) -> bool {
        true
    }
}
