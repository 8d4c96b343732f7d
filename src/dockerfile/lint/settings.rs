//! Which rules run, and whether they stop the build.

use std::collections::BTreeMap;

use crate::dockerfile::ir;
use crate::dockerfile::syntax;

use super::Rule;

/// The build argument that takes the directive's place.
const BUILD_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// What stands for every rule.
const ALL: &str = "all";

/// What the `# check=` directive asks for, or the build argument `BUILDKIT_DOCKERFILE_CHECK` in
/// its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Rules that are not wanted.
    pub skip: Vec<String>,
    /// Experimental rules that are wanted.
    pub experimental: Vec<String>,
    /// Whether warnings stop the build.
    pub error: bool,
    /// Whether the build argument said so.
    pub from_build_arg: bool,
}

impl Settings {
    /// The settings of a build.
    #[must_use]
    pub fn of(file: &ir::Dockerfile, build_args: &BTreeMap<String, String>) -> Self {
        let given = build_args.get(BUILD_ARG).map(|value| syntax::check_options(value).0);
        let from_build_arg = given.is_some();
        let directive = || file.directives.check.as_ref().map(|check| check.value.clone());
        let check = given.or_else(directive).unwrap_or_default();
        let ir::Check { skip, experimental, error } = check;
        Self { skip, experimental, error, from_build_arg }
    }

    /// Whether the rule runs: `skip=all` does not reach what `experimental=` asks for.
    #[must_use]
    pub fn runs(&self, rule: &Rule) -> bool {
        let names =
            |list: &[String]| list.iter().any(|name| name == ALL || name == rule.code.as_str());
        if rule.experimental { names(&self.experimental) } else { !names(&self.skip) }
    }
}
