//! Options that are short for `--set`, and the names of definition files.

use super::source::BakeError;
use super::target::{Attest, PolicyConfig};

/// Options of a bake for all its targets.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--push`.
    pub push: bool,
    /// `--load`.
    pub load: bool,
    /// Name of the method of `--call` or `--check`, as `lint`, `outline` or `targets`.
    pub call: Option<String>,
    /// `--no-cache`.
    pub no_cache: Option<bool>,
    /// `--pull`.
    pub pull: Option<bool>,
    /// `--sbom`.
    pub sbom: Option<String>,
    /// `--provenance`.
    pub provenance: Option<String>,
    /// `--policy`.
    pub policy: Vec<String>,
}

impl Flags {
    /// Returns the overrides that the options stand for, and whether policies are disabled.
    ///
    /// # Errors
    /// A policy is wrong.
    pub fn overrides(&self) -> Result<(Vec<String>, bool), BakeError> {
        let mut overrides = Vec::new();
        let mut add = |text: Option<String>| overrides.extend(text);
        add(self.push.then(|| "*.push=true".to_owned()));
        add(self.load.then(|| "*.load=true".to_owned()));
        add(self.call.as_ref().map(|call| format!("*.call={call}")));
        add(self.no_cache.map(|value| format!("*.no-cache={value}")));
        add(self.pull.map(|value| format!("*.pull={value}")));
        for (kind, value) in [("sbom", &self.sbom), ("provenance", &self.provenance)] {
            let value = value.as_ref().filter(|value| !value.is_empty());
            add(value.map(|value| format!("*.attest={}", Attest::canonical(kind, value))));
        }
        let mut disabled = false;
        for text in &self.policy {
            let failed = |reason: &str| BakeError::new(format!("bad --policy {text:?}: {reason}"));
            let config = PolicyConfig::parse(text).map_err(|error| failed(&error))?;
            if !config.files.is_empty() || config.reset {
                return Err(failed("name files and reset in the definition"));
            }
            if config.disabled {
                let alone = config.strict.is_none() && config.log_level.is_none();
                if !alone || self.policy.len() > 1 {
                    return Err(failed("a disabled policy cannot have other options"));
                }
                disabled = true;
            } else {
                add(Some(format!("*.policy+={text}")));
            }
        }
        Ok((overrides, disabled))
    }
}

/// Returns the names of the files that are read if none is given, in order. All that exist count.
#[must_use]
pub const fn default_names() -> [&'static str; 8] {
    [
        "compose.yaml",
        "compose.yml",
        "docker-compose.yml",
        "docker-compose.yaml",
        "docker-bake.json",
        "docker-bake.hcl",
        "docker-bake.override.json",
        "docker-bake.override.hcl",
    ]
}
