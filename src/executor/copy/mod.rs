//! Sources of COPY and ADD: which files they select, fetch or unpack, and the layer that these become.

pub(super) mod archives;
pub(super) mod error;
pub(super) mod remote;
pub(super) mod sources;
