//! Images that are pulled into the store and pushed out of it, without a build.

pub(super) mod pull;
pub(super) mod push;
