//! The build cache: lookup of steps, reasons for misses, and import and export of caches elsewhere.

mod actions_sink;
mod bucket_sink;
pub(super) mod build_caches;
pub(super) mod claimed_listing;
mod directory_sink;
pub(super) mod document;
pub(super) mod explain;
pub(super) mod export;
pub(super) mod import;
pub(super) mod listings;
pub(super) mod location;
pub(super) mod lookup;
pub(super) mod merge;
pub(super) mod mount_transfer;
mod registry_sink;
mod sink;
pub(super) mod step_keys;
