//! Reasons for a cache miss.

use crate::plan::Difference;
use crate::tree::Change;

/// Why a step is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nobody may look (`--no-cache`).
    NotAsked,
    /// The store knows no step like it.
    New,
    /// It was made before, but its layer is in the store no more.
    Gone,
    /// An earlier step of the stage, by its name as in [`Event::Started`](super::Event::Started), gave another layer.
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
