//! Inputs of a build from outside: contexts, base images, downloads, repositories, secrets and keys.

pub(super) mod authorization;
pub(super) mod build_inputs;
pub(super) mod contexts;
pub(super) mod download;
pub(super) mod fetched;
pub(super) mod git_agent;
pub(super) mod image;
pub(super) mod image_layers;
pub(super) mod image_table;
pub(super) mod layout;
pub(super) mod layout_path;
pub(super) mod locked;
pub(super) mod provided;
pub(super) mod resolve;
pub(super) mod ssh_agent;
pub(super) mod ssh_key;
