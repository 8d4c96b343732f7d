//! The definitions of `bake`: which targets a set of HCL, JSON and compose files describes.
//!
//! Pure: the caller reads files and the environment. [`parse()`] evaluates files to a [`Config`];
//! [`resolve()`] makes the targets of a command line from it, as `docker buildx bake --print` shows
//! them. Source of the rules: github.com/docker/buildx, packages `bake` and `bake/hclparser`.

mod clock;
mod compose;
mod config;
mod csv;
mod definition;
mod eval;
mod flags;
mod functions;
mod json_tree;
mod list;
mod overrides;
mod parse;
mod paths;
mod print;
mod resolve;
mod source;
mod syntax;
mod target;
mod value;
mod wildcard;

pub use compose::{ComposeSettings, ReadFile};
pub use config::{Config, Group};
pub use definition::{Remark, Settings, VariableInfo};
pub use flags::{Flags, default_names};
pub use functions::{Ambient, Randomness};
pub use list::{ListedTarget, targets as listed_targets, targets_json, variables_json};
pub use overrides::Granted;
pub use parse::{Parsed, parse};
pub use paths::is_remote;
pub use print::{definition_json, target_json};
pub use resolve::{Definitions, Request, resolve};
pub use source::{BakeError, DefinitionFile, Place};
pub use target::{
    Attest, CacheEntry, ContextBase, NullableMap, Output, PolicyConfig, Resources, Secret, SshKey,
    Target, parse_bool,
};
