//! Reasons for a cache miss.

use crate::plan::Difference;
use crate::tree::Change;

/// The reason that a step is executed instead of found in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// `--no-cache` forbids the lookup.
    NotAsked,
    /// `--no-cache-filter` forbids the lookup for this stage.
    StageNotAsked,
    /// The store has no similar step.
    New,
    /// The step was executed before, but the store no longer has its layer.
    Gone,
    /// An earlier step of the stage was executed and made another layer.
    Below {
        /// Name of that step, as in [`Event::Started`](super::Event::Started).
        step: String,
    },
    /// The base image has changed.
    Base {
        /// Earlier name and digest; `None` without a base image.
        old: Option<String>,
        /// Current name and digest; `None` without a base image.
        new: Option<String>,
    },
    /// The layers below have changed, for a reason that the store does not show.
    Other,
    /// A part of the step's key has changed.
    Part(Difference),
    /// Copied files have changed.
    Files {
        /// The first changes.
        changes: Vec<Change>,
        /// Number of further changes.
        n_more: usize,
    },
}
