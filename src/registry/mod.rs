//! Resolve, pull and push over the distribution API.
