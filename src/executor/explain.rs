//! Why a step is made and not found: said by comparing it with the earlier step in the store that is
//! most like it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::oci::DiffId;
use crate::plan::{BASE, BELOW};
use crate::plan::{
    Base, CacheKey, Component, Difference, closest_step, component_value, first_difference,
    is_instruction_text,
};
use crate::tree::{Change, LayerEntries, changes};

use super::driver::Run;
use super::lookup::Wanted;
use super::{BuildError, Event, StepId};

/// So many of the steps that were used last are looked through.
const N_EARLIER: u32 = 1000;
/// So many changed files are named.
const N_NAMED: usize = 5;

/// Why a step is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nobody may look (`--no-cache`).
    NotAsked,
    /// The store knows no step like it.
    New,
    /// It was made before, but its layer is in the store no more.
    Gone,
    /// An earlier step of the stage, by its name as in [`Event::Started`], gave another layer.
    Below {
        /// That step.
        step: String,
    },
    /// The base image is another one.
    Base {
        /// Name and digest then; nothing without a base.
        old: Option<String>,
        /// Name and digest now.
        new: Option<String>,
    },
    /// The layers below are others, for a reason that is not known here.
    Other,
    /// A part of its key is another one.
    Part(Difference),
    /// Files that it copies are others.
    Files {
        /// The first of them.
        changes: Vec<Change>,
        /// How many more there are.
        n_more: usize,
    },
}

/// What is known of why a step is made.
#[derive(Debug)]
pub(super) enum Why {
    /// All of it.
    Known(Reason),
    /// It copies other files than the step that made this layer: which ones, the new layer tells.
    Files {
        /// The earlier layer.
        old: DiffId,
    },
}

/// That these files are others; there may be very many.
pub(super) fn files(changes: impl IntoIterator<Item = Change>) -> Reason {
    let mut all = changes.into_iter();
    Reason::Files { changes: all.by_ref().take(N_NAMED).collect(), n_more: all.count() }
}

/// An earlier step.
#[derive(Debug)]
pub(super) struct Earlier {
    definition: CacheKey,
    operation: CacheKey,
    /// As the store keeps them: only those of few are read.
    parts: String,
    layer: DiffId,
    /// How long it took.
    pub(super) duration_ms: u64,
}

impl Earlier {
    fn parts(&self) -> Vec<Component> {
        parts_of_json(&self.parts)
    }
}

/// What an earlier step must have to be like a new one: then its parts are worth reading.
struct Needed {
    /// The layers below.
    place: String,
    /// What the instruction says.
    work: Vec<String>,
}

impl Needed {
    fn of(parts: &[Component]) -> Self {
        let pair = |part: &Component| json_of_parts(std::slice::from_ref(part));
        let bare = |pair: String| pair.trim_matches(['[', ']']).to_owned();
        let place = component_value(parts, BELOW).unwrap_or_default().to_owned();
        let work =
            parts.iter().filter(|part| is_instruction_text(part)).map(|part| bare(pair(part)));
        Self { place, work: work.collect() }
    }

    fn may_be_like(&self, json: &str) -> bool {
        json.contains(&self.place) || self.work.iter().all(|part| json.contains(part))
    }
}

/// What is needed to say why.
#[derive(Debug, Default)]
pub(super) struct Explainer {
    /// Latest first; read when the first step is not found.
    earlier: OnceLock<Vec<Earlier>>,
    /// The first step of each stage that was made.
    first_made: Mutex<BTreeMap<usize, String>>,
    /// Steps that copy other files than the one that made this layer.
    copied: Mutex<BTreeMap<StepId, DiffId>>,
}

impl Explainer {
    fn first_made(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        // Each use is one call on the map.
        self.first_made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copied(&self) -> MutexGuard<'_, BTreeMap<StepId, DiffId>> {
        // Each use is one call on the map.
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run<'_> {
    /// What the layers of a stage begin with, as name and digest.
    pub(super) fn base_name(&self, stage: usize) -> Option<String> {
        match &self.plan.stages.get(stage)?.base {
            Base::Scratch => None,
            Base::Stage(parent) => self.base_name(*parent),
            Base::Image(request) => {
                let image = self.images.get(request);
                Some(format!("{}@{}", request.name.familiar(), image.digest))
            }
        }
    }

    /// Tells why the step is made: at once, or when it is known which files it copies.
    pub(super) fn explain(&self, wanted: &Wanted) -> Result<(), BuildError> {
        let why = self.why(wanted)?;
        self.note_made(wanted.stage, &wanted.name);
        match why {
            Why::Known(reason) => self.event(Event::Explained { step: wanted.step, reason }),
            Why::Files { old } => drop(self.explainer.copied().insert(wanted.step, old)),
        }
        Ok(())
    }

    /// Keeps the first step of a stage that is made.
    pub(super) fn note_made(&self, stage: usize, name: &str) {
        self.explainer.first_made().entry(stage).or_insert_with(|| name.to_owned());
    }

    /// The layer of a COPY is known: now its files can be compared.
    pub(super) fn explain_files(
        &self,
        step: StepId,
        new: &dyn LayerEntries,
    ) -> Result<(), BuildError> {
        let Some(old) = self.explainer.copied().remove(&step) else { return Ok(()) };
        let reason = match self.services.store.listing_if_exists(old)? {
            Some(old) => files(changes(&old, new)),
            None => files([]),
        };
        self.event(Event::Explained { step, reason });
        Ok(())
    }

    /// Why the step is made.
    pub(super) fn why(&self, wanted: &Wanted) -> Result<Why, BuildError> {
        if self.options.no_cache {
            return Ok(Why::Known(Reason::NotAsked));
        }
        let earlier = self.earlier()?;
        if earlier.iter().any(|step| step.definition == wanted.definition && !wanted.is_fresh) {
            return Ok(Why::Known(Reason::Gone));
        }
        let Some(like) = self.like(wanted)? else { return Ok(Why::Known(Reason::New)) };
        if like.operation == wanted.operation {
            return Ok(Why::Known(self.reason_below(wanted, like)));
        }
        Ok(match first_difference(&like.parts(), &wanted.parts) {
            Some(difference) if difference.name == "files" => Why::Files { old: like.layer },
            Some(difference) => Why::Known(Reason::Part(difference)),
            None => Why::Known(self.reason_below(wanted, like)),
        })
    }

    /// The earlier step that did the same, or else the one that is most like it.
    pub(super) fn like(&self, wanted: &Wanted) -> Result<Option<&Earlier>, BuildError> {
        let earlier = self.earlier()?;
        let same = earlier.iter().find(|step| step.operation == wanted.operation);
        if same.is_some() {
            return Ok(same);
        }
        let needed = Needed::of(&wanted.parts);
        let like: Vec<&Earlier> =
            earlier.iter().filter(|step| needed.may_be_like(&step.parts)).collect();
        let parts: Vec<Vec<Component>> = like.iter().map(|step| step.parts()).collect();
        let at = closest_step(parts.iter().map(Vec::as_slice), &wanted.parts);
        Ok(at.and_then(|at| like.get(at).copied()))
    }

    /// Why the same operation did not stand on the same layers.
    fn reason_below(&self, wanted: &Wanted, same: &Earlier) -> Reason {
        if let Some(step) = self.first_made_below(wanted.stage) {
            return Reason::Below { step };
        }
        let base = |parts: &[Component]| component_value(parts, BASE).map(str::to_owned);
        let (old, new) = (base(&same.parts()), base(&wanted.parts));
        if old == new { Reason::Other } else { Reason::Base { old, new } }
    }

    fn first_made_below(&self, stage: usize) -> Option<String> {
        if let Some(name) = self.explainer.first_made().get(&stage) {
            return Some(name.clone());
        }
        let Some(Base::Stage(parent)) = self.plan.stages.get(stage).map(|stage| &stage.base) else {
            return None;
        };
        self.first_made_below(*parent)
    }

    fn earlier(&self) -> Result<&[Earlier], BuildError> {
        if let Some(earlier) = self.explainer.earlier.get() {
            return Ok(earlier);
        }
        let steps = self.services.store.steps().latest(N_EARLIER)?;
        let earlier = steps.into_iter().map(|step| Earlier {
            definition: step.definition,
            operation: step.operation,
            parts: step.components,
            layer: step.layer,
            duration_ms: step.duration_ms,
        });
        let earlier = earlier.collect();
        Ok(self.explainer.earlier.get_or_init(|| earlier))
    }
}

/// The parts of a key, and what it stood on, as the store keeps them.
pub(super) fn json_of_parts(parts: &[Component]) -> String {
    let pairs: Vec<(&str, &str)> =
        parts.iter().map(|part| (part.name.as_str(), part.value.as_str())).collect();
    serde_json::to_string(&pairs).expect("pairs of texts always serialize")
}

/// What is not readable explains nothing.
fn parts_of_json(json: &str) -> Vec<Component> {
    let pairs: Vec<(String, String)> = serde_json::from_str(json).unwrap_or_default();
    pairs.into_iter().map(|(name, value)| Component { name, value }).collect()
}

/// What a step stood on, beside the parts of its key.
pub(super) fn standing_on(below: &[u8; 32], base: Option<String>) -> Vec<Component> {
    let below = blake3::Hash::from_bytes(*below).to_hex().to_string();
    let part = |name: &str, value| Component { name: name.to_owned(), value };
    std::iter::once(part(BELOW, below)).chain(base.map(|base| part(BASE, base))).collect()
}
