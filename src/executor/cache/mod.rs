//! The build cache: lookup of steps, reasons for misses, and import and export of caches elsewhere.

pub(super) mod bucket;
pub(super) mod build_caches;
pub(super) mod document;
pub(super) mod explain;
pub(super) mod export;
pub(super) mod import;
pub(super) mod location;
pub(super) mod lookup;
pub(super) mod mount_transfer;
pub(super) mod step_keys;
