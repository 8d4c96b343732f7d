//! The last lines of a build: number of steps, time, size of the image, and its new layers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cli::display::text::shown;
use crate::diag::size;
use crate::executor::{BuiltImage, BuiltLayer, Event, Outcome, StepId, StepPlace};
use crate::oci::DiffId;

/// Maximum length of an instruction in these lines. The log above has all of it.
const MAX_NAME_CHARS: usize = 100;

/// Counts steps while the build runs.
#[derive(Debug, Default)]
pub(super) struct TotalsCounter {
    steps: BTreeMap<StepId, CountedStep>,
}

/// An instruction that can have a layer.
#[derive(Debug)]
struct CountedStep {
    name: String,
    place: StepPlace,
    outcome: Option<Outcome>,
    layer: Option<(DiffId, u64)>,
}

/// Totals of a build.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Number of instructions that have layers, in all stages that were needed.
    pub(crate) n_steps: usize,
    pub(crate) n_cached: usize,
    /// Layers of the image that this build created, base first.
    pub(crate) new: Vec<NewLayer>,
}

/// A layer that the build created.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewLayer {
    pub(crate) step: StepId,
    /// The step as logs show it: `[build 2/5] RUN make`.
    pub(crate) name: String,
    pub(crate) diff_id: DiffId,
    /// Length of the uncompressed tar.
    pub(crate) n_bytes: u64,
}

impl TotalsCounter {
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Started { step, name, place: Some(place) } if !place.is_from() => {
                let (name, place) = (name.clone(), place.clone());
                let seen = CountedStep { name, place, outcome: None, layer: None };
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
            | Event::Isolated { .. }
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

    /// Returns the totals of a build with these images.
    pub(crate) fn totals(&self, images: &[BuiltImage]) -> Totals {
        let ended = |outcome| self.steps.values().filter(move |s| s.outcome == Some(outcome));
        let mut new: Vec<NewLayer> = Vec::new();
        for layer in images.iter().flat_map(|image| &image.layers) {
            let made = self.new_layer(layer);
            // Images for several platforms may share stages.
            new.extend(made.filter(|made| new.iter().all(|known| known.step != made.step)));
        }
        let n_cached = ended(Outcome::Cached).count();
        Totals { n_steps: n_cached + ended(Outcome::Done).count(), n_cached, new }
    }

    /// Returns the layer with the step of the image, if this build created it. Steps of other stages
    /// may have equal layers, so the digest alone does not identify the step.
    fn new_layer(&self, layer: &BuiltLayer) -> Option<NewLayer> {
        let place = &layer.made_by.as_ref()?.place;
        let (step, own) = self.steps.iter().find(|(_, seen)| {
            let is_same = (&seen.place.stage, seen.place.number) == (&place.stage, place.number);
            is_same && seen.layer.is_some_and(|(diff_id, _)| diff_id == layer.diff_id)
        })?;
        // A cached step may be the same as one of another stage that ran a moment ago.
        let is_made = self.steps.values().any(|seen| {
            seen.outcome == Some(Outcome::Done)
                && seen.layer == own.layer
                && seen.place.instruction == own.place.instruction
        });
        let (diff_id, n_bytes) = own.layer.filter(|_| is_made)?;
        Some(NewLayer { step: *step, name: own.name.clone(), diff_id, n_bytes })
    }
}

impl Totals {
    /// Returns the lines: totals, and one for each new layer.
    pub(crate) fn lines(&self, images: &[BuiltImage], took: Duration) -> Vec<String> {
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

/// Returns an image in a few words: `image: 81.2MB in 2 layers`.
///
/// A base layer that was never unpacked is known by its compressed size only.
pub(crate) fn image(image: &BuiltImage) -> String {
    let n_layers = image.layers.len();
    let layers = match n_layers {
        0 => return "image without layers".to_owned(),
        1 => "1 layer".to_owned(),
        n => format!("{n} layers"),
    };
    match image.known_and_other_bytes() {
        (known, 0) => format!("image: {} in {layers}", size(known)),
        (0, compressed) => format!("image: {} compressed in {layers}", size(compressed)),
        (known, compressed) => format!(
            "image: {} local, {} compressed in the registry, {layers}",
            size(known),
            size(compressed)
        ),
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
    use std::sync::Arc;

    use super::*;
    use crate::diag::Span;
    use crate::executor::MadeBy;
    use crate::oci::{Digest, Platform};

    /// A step: its stage, its text, its outcome and its layer.
    type TestStep<'a> = (&'a str, &'a str, Outcome, &'a str);

    /// A layer: its content, the length of its tar, and the step that made it, by its number.
    type TestLayer<'a> = (&'a str, Option<u64>, Option<(usize, &'a TestStep<'a>)>);

    fn id(name: &str) -> DiffId {
        DiffId::new(Digest::of(name.as_bytes()))
    }

    fn place((stage, text, ..): &TestStep<'_>, number: usize) -> StepPlace {
        let number = if text.starts_with("FROM") { 1 } else { number };
        let (stage, instruction) = ((*stage).to_owned(), (*text).to_owned());
        StepPlace { stage, number, of: 9, instruction }
    }

    /// Returns an image of layers, each of a base, or of a step and its number.
    fn built(layers: &[TestLayer<'_>]) -> BuiltImage {
        let layers = layers.iter().map(|(name, tar_bytes, step)| BuiltLayer {
            diff_id: id(name),
            stored_bytes: 5_000_000,
            tar_bytes: *tar_bytes,
            made_by: step.map(|(number, told)| {
                Arc::new(MadeBy { span: Span::new(0, 0), place: place(told, number) })
            }),
        });
        BuiltImage {
            platform: "linux/amd64".parse::<Platform>().unwrap(),
            layers: layers.collect(),
        }
    }

    /// Counts steps, numbered from 1.
    fn counted(steps: &[TestStep<'_>]) -> TotalsCounter {
        let mut tally = TotalsCounter::default();
        for (id_number, (number, told)) in (1..).zip((1..).zip(steps)) {
            let (step, place) = (StepId(id_number), place(told, number));
            tally.event(&Event::Started { step, name: place.to_string(), place: Some(place) });
            let (_, _, outcome, layer) = told;
            let took = Duration::ZERO;
            // The layer of a RUN is reported after its end.
            tally.event(&Event::Finished { step, outcome: *outcome, took });
            tally.event(&Event::Made { step, layer: id(layer), n_bytes: 1_200_000 });
        }
        tally
    }

    fn check(tally: &TotalsCounter, images: &[BuiltImage], want: &[&str]) {
        let lines = tally.totals(images).lines(images, Duration::from_millis(4_210));
        assert_eq!(lines, want);
    }

    #[test]
    fn summary_has_few_lines() {
        let steps = [
            ("s", "FROM x", Outcome::Cached, "none"),
            ("s", "RUN make", Outcome::Done, "b"),
            ("s", "RUN test", Outcome::Done, "of another stage"),
            ("s", "COPY a b", Outcome::Cached, "a"),
        ];
        let two = [("a", Some(80_000_000), None), ("b", Some(1_200_000), Some((2, &steps[1])))];
        check(
            &counted(&steps),
            &[built(&two)],
            &[
                "3 steps, 1 cached, 4.2s; image: 81.2MB in 2 layers, 1 new:",
                "    1.2MB  [s 2/9] RUN make",
            ],
        );
        let again = counted(&[
            ("s", "FROM x", Outcome::Cached, "none"),
            ("s", "RUN make", Outcome::Cached, "b"),
            ("s", "RUN x", Outcome::Cached, "c"),
        ]);
        check(
            &again,
            &[built(&two), built(&[("a", None, None)])],
            &["2 steps, all cached, 4.2s; image: 81.2MB in 2 layers for linux/amd64, image: \
               5.0MB compressed in 1 layer for linux/amd64"],
        );
        check(&counted(&[]), &[built(&[])], &["no steps, 4.2s; image without layers"]);
        let text = format!("RUN {}", "x".repeat(200));
        let long = [("s", "FROM x", Outcome::Cached, "none"), ("s", &text, Outcome::Done, "b")];
        let image = [built(&[("b", Some(1), Some((2, &long[1])))])];
        let lines = counted(&long).totals(&image).lines(&image, Duration::ZERO);
        assert_eq!(lines[1].chars().count(), 11 + MAX_NAME_CHARS);
    }

    #[test]
    fn equal_layers_belong_to_the_step_of_the_image() {
        let steps = [
            ("tool", "FROM x", Outcome::Cached, "none"),
            ("tool", "RUN true", Outcome::Done, "empty"),
            ("app", "RUN sleep 1", Outcome::Done, "empty"),
            ("app", "RUN sleep 2", Outcome::Done, "empty"),
            ("app", "RUN old", Outcome::Cached, "empty"),
        ];
        let layers = [3, 4, 5].map(|n| ("empty", Some(1000), Some((n, &steps[n - 1]))));
        check(
            &counted(&steps),
            &[built(&layers)],
            &[
                "4 steps, 1 cached, 4.2s; image: 3.0kB in 3 layers, 2 new:",
                "    1.2MB  [app 3/9] RUN sleep 1",
                "    1.2MB  [app 4/9] RUN sleep 2",
            ],
        );
        // Images for two platforms share a step; another one was made for an equal step elsewhere.
        let shared = [
            ("tool", "FROM x", Outcome::Cached, "none"),
            ("tool", "RUN make", Outcome::Done, "b"),
            ("app", "RUN make", Outcome::Cached, "b"),
        ];
        let image = || built(&[("b", Some(1_200_000), Some((3, &shared[2])))]);
        let totals = counted(&shared).totals(&[image(), image()]);
        let new: Vec<&str> = totals.new.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(new, ["[app 3/9] RUN make"]);
    }
}
