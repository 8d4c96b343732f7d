//! Blobs, layers in their forms, rootfs back ends, cache records, tags, locks.

pub mod layer_diff;
pub mod unpack;
