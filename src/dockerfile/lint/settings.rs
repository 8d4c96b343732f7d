//! Settings of the build checks: skipped rules, experimental rules, and whether violations are errors.

use std::collections::BTreeMap;

use crate::dockerfile::ir;
use crate::dockerfile::syntax;

use super::Rule;

/// Build argument that overrides the directive.
const BUILD_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// Name that selects all rules.
const ALL: &str = "all";

/// The settings of the `# check=` directive, or of the build argument `BUILDKIT_DOCKERFILE_CHECK`
/// (<https://docs.docker.com/build/checks/>).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckSettings {
    /// Rules to skip; `all` skips every rule.
    pub skip: Vec<String>,
    /// Experimental rules to run.
    pub experimental: Vec<String>,
    /// True if warnings stop the build.
    pub error: bool,
    /// True if the settings come from the build argument.
    pub from_build_arg: bool,
}

impl CheckSettings {
    /// Returns the settings for a file and the arguments of a build.
    #[must_use]
    pub fn of(file: &ir::Dockerfile, build_args: &BTreeMap<String, String>) -> Self {
        let given = build_args.get(BUILD_ARG).map(|value| syntax::check_options(value).0);
        let from_build_arg = given.is_some();
        let directive = || file.directives.check.as_ref().map(|check| check.value.clone());
        let check = given.or_else(directive).unwrap_or_default();
        let ir::Check { skip, experimental, error } = check;
        Self { skip, experimental, error, from_build_arg }
    }

    /// Returns whether a rule runs. `skip=all` does not affect experimental rules.
    #[must_use]
    pub fn runs(&self, rule: &Rule) -> bool {
        let names =
            |list: &[String]| list.iter().any(|name| name == ALL || name == rule.code.as_str());
        if rule.experimental { names(&self.experimental) } else { !names(&self.skip) }
    }
}
