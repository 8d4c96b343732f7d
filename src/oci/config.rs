//! The image config: defaults of containers, and the image's history (image-spec, config.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::limits::{MAX_CONFIG_ENTRIES, MAX_EXPOSED_PORTS};

use super::{DiffId, Platform};

/// The reason why an image config is invalid.
#[derive(Debug, thiserror::Error)]
#[error("the image config is not valid: {reason}")]
pub struct ConfigError {
    reason: String,
}

/// An image's config (image-spec, config.md, with Docker's extensions). Unknown members are kept in
/// `extra` and written in sorted order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The architecture in Go's names, as in `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// The operating system in Go's names, as in `linux`.
    #[serde(default)]
    pub os: String,
    /// The variant of the architecture, as in `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Creation time, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The author, from MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Default settings of containers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfig,
    /// The DiffIDs of the layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// History, one entry per instruction, oldest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// Unknown members, by name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The layers of an image, base first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers` (image-spec, config.md, "rootfs").
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of each layer's uncompressed tar.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// A history entry: the effect of one instruction (image-spec, config.md, "history").
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Creation time, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction, in BuildKit's format (see `plan`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The author, from MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The tool that wrote the entry, as in `buildkit.dockerfile.v0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// True if the instruction made no layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

/// Defaults of containers (image-spec, config.md, "config"). Durations are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user[:group]`, by name or number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Exposed ports, as in `80/tcp`.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub exposed_ports: BTreeMap<String, EmptyObject>,
    /// Environment variables as `NAME=value`, in order of first definition.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The entrypoint, which precedes the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The arguments, or the whole command without an entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Directories that get a volume.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub volumes: BTreeMap<String, EmptyObject>,
    /// The working directory of the command.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// The labels, sorted by name.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops a container, as in `SIGTERM`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// True if CMD was set by a Dockerfile (Docker's extension).
    #[serde(default, skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// The health check (Docker's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// ONBUILD instructions, run in builds based on this image (Docker's extension).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// The shell of shell-form commands (Docker's extension).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
    /// Unknown members, by name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An empty JSON object: Go's `struct{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EmptyObject {}

/// A health check (<https://docs.docker.com/reference/dockerfile/#healthcheck>). Durations are in
/// nanoseconds; 0 means the default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Interval between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time limit of a check.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time after the start during which failures are ignored.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Interval between two checks in the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Number of consecutive failures that make the container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

impl ImageConfig {
    /// Returns the config of an empty image: FROM scratch.
    #[must_use]
    pub fn scratch(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            created: None,
            author: None,
            config: RunConfig { working_dir: "/".to_owned(), ..RunConfig::default() },
            rootfs: RootFs::default(),
            history: Vec::new(),
            extra: Map::new(),
        }
    }

    /// Parses a config.
    ///
    /// # Errors
    /// [`ConfigError`] if `bytes` are not valid, exceed a limit, or lack the platform.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|error| ConfigError { reason: error.to_string() })?;
        config.check_counts()?;
        if config.os.is_empty() || config.architecture.is_empty() {
            return Err(ConfigError { reason: "`os` or `architecture` is missing".to_owned() });
        }
        Ok(config)
    }

    /// Checks the numbers of entries: builds process them once for each step.
    fn check_counts(&self) -> Result<(), ConfigError> {
        let run = &self.config;
        let words = |words: &Option<Vec<String>>| words.as_ref().map_or(0, Vec::len);
        let most = MAX_CONFIG_ENTRIES;
        let counts = [
            ("variables (`Env`)", run.env.len(), most),
            ("labels (`Labels`)", run.labels.len(), most),
            ("volumes (`Volumes`)", run.volumes.len(), most),
            ("ports (`ExposedPorts`)", run.exposed_ports.len(), MAX_EXPOSED_PORTS),
            ("instructions for later builds (`OnBuild`)", run.on_build.len(), most),
            ("words (`Entrypoint`)", words(&run.entrypoint), most),
            ("words (`Cmd`)", words(&run.cmd), most),
            ("words (`Shell`)", run.shell.len(), most),
            ("words (`Healthcheck`)", run.healthcheck.as_ref().map_or(0, |it| it.test.len()), most),
            ("history entries (`history`)", self.history.len(), most),
            ("layers (`rootfs.diff_ids`)", self.rootfs.diff_ids.len(), most),
        ];
        match counts.into_iter().find(|(_, count, most)| count > most) {
            Some((what, count, most)) => {
                let reason = format!("it has {count} {what}, and the limit is {most}");
                Err(ConfigError { reason })
            }
            None => Ok(()),
        }
    }

    /// Writes the config as compact JSON: top-level members sorted by name, those of `config` in
    /// Docker's order.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut sorted: BTreeMap<&str, Member<'_>> =
            self.extra.iter().map(|(name, value)| (name.as_str(), Member::Other(value))).collect();
        sorted.insert("architecture", Member::Text(&self.architecture));
        sorted.insert("os", Member::Text(&self.os));
        let optional =
            [("variant", &self.variant), ("created", &self.created), ("author", &self.author)];
        for (name, value) in optional {
            sorted.extend(value.iter().map(|value| (name, Member::Text(value))));
        }
        sorted.insert("config", Member::Run(&self.config));
        sorted.insert("rootfs", Member::RootFs(&self.rootfs));
        sorted.insert("history", Member::History(&self.history));
        super::compact(&sorted)
    }

    /// Sets the platform. Drops the `os.version` of another operating system.
    pub fn set_platform(&mut self, platform: &Platform) {
        if (&self.os, &self.architecture) != (&platform.os, &platform.architecture) {
            self.extra.remove("os.version");
        }
        self.os.clone_from(&platform.os);
        self.architecture.clone_from(&platform.architecture);
        self.variant.clone_from(&platform.variant);
    }

    /// Returns the image's platform.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

impl RunConfig {
    /// Returns the value of an environment variable.
    #[must_use]
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Removes an environment variable.
    pub fn unset_env(&mut self, name: &str) {
        self.env.retain(|pair| pair.split('=').next() != Some(name));
    }

    /// Sets an environment variable, at its old position if it exists.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        let same =
            |old: &&mut String| old.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        match self.env.iter_mut().find(same) {
            Some(old) => *old = pair,
            None => self.env.push(pair),
        }
    }
}

/// A top-level member for serialization.
#[derive(Serialize)]
#[serde(untagged)]
enum Member<'a> {
    Text(&'a str),
    Run(&'a RunConfig),
    RootFs(&'a RootFs),
    History(&'a [History]),
    Other(&'a Value),
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Reads `null` as the default: Go's `encoding/json` writes nil slices and maps as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_keeps_unknown_members_and_sorts_the_top_level() {
        let text = br#"{"os":"linux","architecture":"amd64","zeta":[1],"alpha":{"b":2,"a":1},
            "config":{"Labels":null,"Env":["A=1"],"Odd":"x","User":"u"},"history":null,
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(text).unwrap();
        assert_eq!(
            String::from_utf8(config.to_json()).unwrap(),
            r#"{"alpha":{"a":1,"b":2},"architecture":"amd64","config":{"User":"u","Env":["A=1"],"Odd":"x"},"history":[],"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"zeta":[1]}"#
        );
    }

    #[test]
    fn config_with_too_many_entries_is_refused() {
        let error = |member: &str| {
            let text = format!(r#"{{"os":"linux","architecture":"amd64",{member}}}"#);
            ImageConfig::parse(text.as_bytes()).map(drop).map_err(|error| error.to_string())
        };
        let env = |n: usize| {
            let env: Vec<String> = (0..n).map(|at| format!(r#""V{at}=""#)).collect();
            format!(r#""config":{{"Env":[{}]}}"#, env.join(","))
        };
        assert_eq!(error(&env(MAX_CONFIG_ENTRIES)), Ok(()));
        let want = "the image config is not valid: it has 100000 variables (`Env`), and the limit is 10000";
        assert_eq!(error(&env(100_000)), Err(want.to_owned()));
        let history = vec!["{}"; MAX_CONFIG_ENTRIES + 1].join(",");
        let want = "the image config is not valid: it has 10001 history entries (`history`), and the limit is 10000";
        assert_eq!(error(&format!(r#""history":[{history}]"#)), Err(want.to_owned()));
    }

    #[test]
    fn set_env_replaces_in_place() {
        let mut config = RunConfig::default();
        for (name, value) in [("A", "1"), ("AB", "2"), ("A", "3")] {
            config.set_env(name, value);
        }
        assert_eq!(config.env, ["A=3", "AB=2"]);
        assert_eq!((config.env("A"), config.env("B")), (Some("3"), None));
    }

    #[test]
    fn config_without_a_platform_is_refused() {
        let error = ImageConfig::parse(b"{}").unwrap_err().to_string();
        assert_eq!(error, "the image config is not valid: `os` or `architecture` is missing");
    }
}
