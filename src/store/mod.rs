//! Blobs, layers in their forms, rootfs back ends, cache records, tags, locks.
