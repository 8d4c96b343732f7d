//! The inputs of a build: context, Dockerfile, lock file, secrets.

pub(super) mod bake_files;
pub(super) mod contexts;
pub(super) mod dockerfile;
pub(super) mod epoch;
mod fetched;
pub(super) mod git_facts;
pub(super) mod lock_text;
pub(super) mod lockfile;
pub(super) mod not_found;
pub(super) mod secrets;
pub(super) mod unused;
