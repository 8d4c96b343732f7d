//! The bounds on untrusted input, each with its reason.
//!
//! Base images, archives, registries, caches, build contexts, Dockerfiles and stores can all be
//! written by somebody else. Whatever reads one of them takes its bounds from here, so that one
//! page answers how much memory, disk and time such an input can cost.
