//! The driver and what surrounds it: planning, assembly of the image, forecasts and retries.

pub(super) mod assemble;
pub(super) mod budget;
pub(super) mod driver;
pub(super) mod forecast;
mod hashing_pass;
mod layer_stream;
pub(super) mod pack_ahead;
pub(super) mod planning;
pub(super) mod read_ahead;
pub(super) mod retry;
mod squash;
