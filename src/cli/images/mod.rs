//! Images of the store, as `inspect`, `diff` and `images` show them.

pub(super) mod config_text;
pub(super) mod image_size;
pub(super) mod image_view;
