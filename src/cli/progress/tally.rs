//! The few lines after a build: how many steps, how long, how large the image is, and what is new
//! in it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::build::{BuiltImage, Event, Outcome, StepId};
use crate::diag::size;
use crate::oci::DiffId;

use super::text::shown;

/// Of an instruction so much is shown here: above, the log has all of it.
const MAX_NAME_CHARS: usize = 100;

/// Counts while the build goes on.
#[derive(Debug, Default)]
pub(super) struct Tally {
    steps: BTreeMap<StepId, Seen>,
}

/// An instruction that can have a layer.
#[derive(Debug)]
struct Seen {
    name: String,
    outcome: Option<Outcome>,
    layer: Option<(DiffId, u64)>,
}

/// What came of the counting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// Instructions that have layers, in all stages that were needed.
    pub(super) n_steps: usize,
    pub(super) n_cached: usize,
    /// The layers of the image that this build made, base first.
    pub(super) new: Vec<NewLayer>,
}

/// A layer that was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewLayer {
    pub(super) step: StepId,
    /// As in `[build 2/5] RUN make`.
    pub(super) name: String,
    pub(super) diff_id: DiffId,
    /// Of its uncompressed tar.
    pub(super) n_bytes: u64,
}

impl Tally {
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            // Number 1 is FROM, which makes nothing.
            Event::Started { step, name, place: Some(place) } if place.number > 1 => {
                let seen = Seen { name: name.clone(), outcome: None, layer: None };
                self.steps.insert(*step, seen);
            }
            Event::Made { step, layer, n_bytes } => {
                if let Some(seen) = self.steps.get_mut(step) {
                    seen.layer = Some((*layer, *n_bytes));
                }
            }
            Event::Finished { step, outcome, .. } => {
                if let Some(seen) = self.steps.get_mut(step) {
                    seen.outcome = Some(*outcome);
                }
            }
            Event::Planned { .. }
            | Event::Started { .. }
            | Event::Executing { .. }
            | Event::Explained { .. }
            | Event::Output { .. }
            | Event::Progress { .. }
            | Event::Warning { .. }
            | Event::Note { .. }
            | Event::Wrote { .. }
            | Event::Pushed { .. } => {}
        }
    }

    /// What it was, when these images are the result.
    pub(super) fn totals(&self, images: &[BuiltImage]) -> Totals {
        let ended = |outcome| self.steps.values().filter(move |s| s.outcome == Some(outcome));
        let mut made: BTreeMap<DiffId, NewLayer> = BTreeMap::new();
        for (step, seen) in &self.steps {
            let (Some((diff_id, n_bytes)), Some(Outcome::Done)) = (seen.layer, seen.outcome) else {
                continue;
            };
            let name = seen.name.clone();
            made.entry(diff_id).or_insert(NewLayer { step: *step, name, diff_id, n_bytes });
        }
        let layers = images.iter().flat_map(|image| &image.layers);
        let new = layers.filter_map(|layer| made.remove(&layer.diff_id)).collect();
        let n_cached = ended(Outcome::Cached).count();
        Totals { n_steps: n_cached + ended(Outcome::Done).count(), n_cached, new }
    }
}

impl Totals {
    /// For people.
    pub(super) fn lines(&self, images: &[BuiltImage], took: Duration) -> Vec<String> {
        let steps = match (self.n_steps, self.n_cached) {
            (0, _) => "no steps".to_owned(),
            (1, 0) => "1 step".to_owned(),
            (1, _) => "1 step, cached".to_owned(),
            (n, 0) => format!("{n} steps"),
            (n, cached) if n == cached => format!("{n} steps, all cached"),
            (n, cached) => format!("{n} steps, {cached} cached"),
        };
        let images: Vec<String> = match images {
            [only] => vec![image(only)],
            several => {
                several.iter().map(|one| format!("{} for {}", image(one), one.platform)).collect()
            }
        };
        let new = match self.new.len() {
            0 => String::new(),
            n => format!(", {n} new:"),
        };
        let head = format!("{steps}, {:.1}s; {}{new}", took.as_secs_f64(), images.join(", "));
        let layers = self.new.iter().map(|layer| {
            format!("{:>9}  {}", size(layer.n_bytes), shortened(&shown(&layer.name, false)))
        });
        [head].into_iter().chain(layers).collect()
    }
}

/// An image in a few words: as in `image of 81.2MB in 2 layers`.
pub(super) fn image(image: &BuiltImage) -> String {
    let n_layers = image.layers.len();
    let layers = match n_layers {
        0 => return "an image without layers".to_owned(),
        1 => "1 layer".to_owned(),
        n => format!("{n} layers"),
    };
    match image.known_and_other_bytes() {
        (known, 0) => format!("image of {} in {layers}", size(known)),
        (0, packed) => format!("image of {} packed in {layers}", size(packed)),
        (known, packed) => {
            format!("image of {} and {} packed in {layers}", size(known), size(packed))
        }
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_NAME_CHARS {
        return text.to_owned();
    }
    let kept: String = text.chars().take(MAX_NAME_CHARS - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{BuiltLayer, StepPlace};
    use crate::oci::{Digest, Platform};

    fn id(name: &str) -> DiffId {
        DiffId::new(Digest::of(name.as_bytes()))
    }

    fn built(layers: &[(&str, Option<u64>)]) -> BuiltImage {
        let layers = layers.iter().map(|(name, tar_bytes)| BuiltLayer {
            diff_id: id(name),
            stored_bytes: 5_000_000,
            tar_bytes: *tar_bytes,
            made_by: None,
        });
        BuiltImage {
            platform: "linux/amd64".parse::<Platform>().unwrap(),
            layers: layers.collect(),
        }
    }

    /// Steps by what they are, how they ended, and their layers.
    fn tally(steps: &[(&str, Outcome, &str)]) -> Tally {
        let mut tally = Tally::default();
        for (number, (text, outcome, layer)) in (1..).zip(steps) {
            let step = StepId(number);
            let number = if text.starts_with("FROM") { 1 } else { 2 };
            let (stage, instruction) = ("s".to_owned(), (*text).to_owned());
            let place = StepPlace { stage, number, of: 9, instruction };
            tally.event(&Event::Started { step, name: place.to_string(), place: Some(place) });
            let took = Duration::ZERO;
            // A RUN's layer is told of after its end.
            tally.event(&Event::Finished { step, outcome: *outcome, took });
            tally.event(&Event::Made { step, layer: id(layer), n_bytes: 1_200_000 });
        }
        tally
    }

    #[test]
    fn a_build_is_told_in_few_lines() {
        let check = |tally: &Tally, images: &[BuiltImage], want: &[&str]| {
            let lines = tally.totals(images).lines(images, Duration::from_millis(4_210));
            assert_eq!(lines, want);
        };
        let two = [("a", Some(80_000_000)), ("b", Some(1_200_000))];
        let fresh = tally(&[
            ("FROM x", Outcome::Cached, "none"),
            ("RUN make", Outcome::Done, "b"),
            ("RUN test", Outcome::Done, "of another stage"),
            ("COPY a b", Outcome::Cached, "a"),
        ]);
        check(
            &fresh,
            &[built(&two)],
            &[
                "3 steps, 1 cached, 4.2s; image of 81.2MB in 2 layers, 1 new:",
                "    1.2MB  [s 2/9] RUN make",
            ],
        );
        let again = tally(&[("RUN make", Outcome::Cached, "b"), ("RUN x", Outcome::Cached, "c")]);
        check(
            &again,
            &[built(&two), built(&[("a", None)])],
            &["2 steps, all cached, 4.2s; image of 81.2MB in 2 layers for linux/amd64, image of \
               5.0MB packed in 1 layer for linux/amd64"],
        );
        check(&tally(&[]), &[built(&[])], &["no steps, 4.2s; an image without layers"]);
        let long = format!("RUN {}", "x".repeat(200));
        let lines = tally(&[(&long, Outcome::Done, "b")]).totals(&[built(&two)]);
        let lines = lines.lines(&[built(&two)], Duration::ZERO);
        assert_eq!(lines[1].chars().count(), 11 + MAX_NAME_CHARS);
    }
}
