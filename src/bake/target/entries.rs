//! Attestations, caches, outputs, secrets and the other values with parts (buildx, `util/buildflags`).

use std::collections::BTreeMap;

use crate::bake::csv;

/// An attestation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attest {
    /// `sbom` or `provenance`.
    pub kind: String,
    /// If set, the attestation is not made.
    pub disabled: bool,
    /// Further attributes.
    pub attributes: BTreeMap<String, String>,
}

/// A cache to import or export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheEntry {
    /// Kind of storage.
    pub kind: String,
    /// Further attributes.
    pub attributes: BTreeMap<String, String>,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Kind of the output.
    pub kind: String,
    /// File or directory; empty if there is none.
    pub destination: String,
    /// Further attributes.
    pub attributes: BTreeMap<String, String>,
}

/// The source of a secret. Empty fields are not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secret {
    /// Name in the Dockerfile.
    pub id: String,
    /// File with the secret.
    pub source: String,
    /// Environment variable with the secret.
    pub env: String,
}

/// An SSH agent, or keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SshKey {
    /// Name in the Dockerfile.
    pub id: String,
    /// Sockets and key files; none for the agent of the user.
    pub paths: Vec<String>,
}

/// A source policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyConfig {
    /// Files with rules.
    pub files: Vec<String>,
    /// If set, earlier policies are dropped.
    pub reset: bool,
    /// If set, no policy is evaluated.
    pub disabled: bool,
    /// If set, a source without a rule is an error.
    pub strict: Option<bool>,
    /// Level of the evaluation's log.
    pub log_level: Option<String>,
}

/// Limits of a RUN's control group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Memory, such as `512m`.
    pub memory: Option<String>,
    /// Memory and swap together.
    pub memory_swap: Option<String>,
    /// Relative weight.
    pub cpu_shares: Option<i64>,
    /// Period of the quota in microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds in each period.
    pub cpu_quota: Option<i64>,
    /// Processors.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
}

/// Reads a bool as Go does.
///
/// # Errors
/// The text is none.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

/// Splits `key=value`.
fn pair(field: &str) -> Result<(&str, &str), String> {
    field.split_once('=').ok_or_else(|| format!("{field:?} is not KEY=VALUE"))
}

impl Attest {
    /// Reads `type=sbom,generator=image`.
    ///
    /// # Errors
    /// A field is wrong, or the type is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut attest = Self::default();
        for field in csv::fields(text)? {
            let (key, value) = pair(&field)?;
            match key.trim().to_lowercase().as_str() {
                "type" => value.clone_into(&mut attest.kind),
                "disabled" => attest.disabled = parse_bool(value)?,
                _ => {
                    attest.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        if attest.kind.is_empty() {
            return Err(format!("the attestation {text:?} has no type, such as type=sbom"));
        }
        Ok(attest)
    }

    /// Returns the attribute of a target for `--sbom` and `--provenance`.
    #[must_use]
    pub fn canonical(kind: &str, value: &str) -> String {
        match parse_bool(value) {
            Ok(wanted) => format!("type={kind},disabled={}", !wanted),
            Err(_) => format!("type={kind},{value}"),
        }
    }
}

impl CacheEntry {
    /// Makes a cache in a registry.
    fn registry(reference: &str) -> Self {
        let attributes = [("ref".to_owned(), reference.to_owned())].into();
        Self { kind: "registry".to_owned(), attributes }
    }

    /// Reads `type=local,src=cache`.
    fn parse(text: &str) -> Result<Self, String> {
        let fields = csv::fields(text)?;
        if let [field] = fields.as_slice()
            && !field.contains('=')
        {
            return Ok(Self::registry(field));
        }
        let mut entry = Self::default();
        for field in fields {
            let (key, value) = pair(&field)?;
            match key.to_lowercase() {
                key if key == "type" => value.clone_into(&mut entry.kind),
                key => {
                    entry.attributes.insert(key, value.to_owned());
                }
            }
        }
        entry.validated(text)
    }

    /// Returns the entry if it has a type.
    pub(super) fn validated(self, text: &str) -> Result<Self, String> {
        if self.kind.is_empty() {
            return Err(format!("the cache {text:?} has no type, such as type=registry"));
        }
        Ok(self)
    }
}

/// Reads caches. A text without `=` names several caches in registries, separated by commas.
///
/// # Errors
/// A field is wrong, or a type is missing.
pub(crate) fn parse_caches<S: AsRef<str>>(texts: &[S]) -> Result<Vec<CacheEntry>, String> {
    let mut entries = Vec::new();
    for text in texts.iter().map(AsRef::as_ref).filter(|text| !text.is_empty()) {
        if text.contains('=') {
            entries.push(CacheEntry::parse(text)?);
        } else {
            entries.extend(csv::fields(text)?.iter().map(|field| CacheEntry::registry(field)));
        }
    }
    Ok(entries)
}

impl Output {
    /// Reads `type=local,dest=out`, or a directory, or `-`.
    ///
    /// # Errors
    /// A field is wrong, or the type is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = csv::fields(text)?;
        if let [field] = fields.as_slice()
            && field == text
            && !text.starts_with("type=")
        {
            let kind = if text == "-" { "tar" } else { "local" };
            return Ok(Self {
                kind: kind.to_owned(),
                destination: text.to_owned(),
                attributes: BTreeMap::new(),
            });
        }
        let mut output = Self::default();
        for field in fields {
            let (key, value) = pair(&field)?;
            match key.trim().to_lowercase() {
                key if key == "type" => value.clone_into(&mut output.kind),
                key if key == "dest" => value.clone_into(&mut output.destination),
                key => {
                    output.attributes.insert(key, value.to_owned());
                }
            }
        }
        output.validated()
    }

    /// Returns the output if it has a type.
    pub(super) fn validated(self) -> Result<Self, String> {
        if self.kind.is_empty() {
            return Err("an output has no type, such as type=image".to_owned());
        }
        Ok(self)
    }
}

impl Secret {
    /// Reads `id=token,src=file` or `id=token,env=NAME`.
    ///
    /// # Errors
    /// A field is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut secret = Self::default();
        let mut from_env = false;
        for field in csv::fields(text)? {
            let (key, value) = pair(&field)?;
            match key.to_lowercase().as_str() {
                "type" => match value {
                    "file" => from_env = false,
                    "env" => from_env = true,
                    other => {
                        return Err(format!("the type {other:?} of a secret is not supported"));
                    }
                },
                "id" => value.clone_into(&mut secret.id),
                "source" | "src" => value.clone_into(&mut secret.source),
                "env" => value.clone_into(&mut secret.env),
                other => return Err(format!("{other:?} is not an attribute of a secret")),
            }
        }
        if from_env && secret.env.is_empty() {
            secret.env = std::mem::take(&mut secret.source);
        }
        Ok(secret)
    }
}

impl SshKey {
    /// Reads `default` or `id=PATH[,PATH]`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((id, paths)) => {
                Self { id: id.to_owned(), paths: paths.split(',').map(str::to_owned).collect() }
            }
            None => Self { id: text.to_owned(), paths: Vec::new() },
        }
    }
}

impl PolicyConfig {
    /// Reads `filename=policy.rego,strict=true`.
    ///
    /// # Errors
    /// A field is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::of_fields(&csv::fields(text)?)
    }

    pub(super) fn of_fields(fields: &[String]) -> Result<Self, String> {
        const LEVELS: [&str; 8] =
            ["panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"];
        let mut config = Self::default();
        for field in fields {
            let (key, value) = pair(field)?;
            match key.trim().to_lowercase().as_str() {
                "filename" if !value.is_empty() => config.files.push(value.to_owned()),
                "reset" => config.reset = parse_bool(value)?,
                "disabled" => config.disabled = parse_bool(value)?,
                "strict" => config.strict = Some(parse_bool(value)?),
                "log-level" if LEVELS.contains(&value.to_lowercase().as_str()) => {
                    let level = value.to_lowercase();
                    config.log_level = Some(if level == "warn" { "warning".into() } else { level });
                }
                _ => return Err(format!("{field:?} is not an attribute of a policy")),
            }
        }
        Ok(config)
    }
}

impl Resources {
    /// Sets one limit by its name.
    ///
    /// # Errors
    /// The name is unknown, or the value is not a number where one is needed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let text = Some(value.to_owned());
        let number = || {
            let number = value.parse::<i64>().ok().map(Some);
            number.ok_or_else(|| format!("{value:?} is not a number, for {name}"))
        };
        match name {
            "memory" => self.memory = text,
            "memory-swap" => self.memory_swap = text,
            "cpu-shares" => self.cpu_shares = number()?,
            "cpu-period" => self.cpu_period = number()?,
            "cpu-quota" => self.cpu_quota = number()?,
            "cpuset-cpus" => self.cpuset_cpus = text,
            "cpuset-mems" => self.cpuset_mems = text,
            other => return Err(format!("{other:?} is not a limit of resources")),
        }
        Ok(())
    }

    /// Returns the limits by name, in the order of `--print`.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'static str, Result<String, i64>)> {
        let texts = [
            ("memory", self.memory.clone().map(Ok)),
            ("memory-swap", self.memory_swap.clone().map(Ok)),
            ("cpu-shares", self.cpu_shares.map(Err)),
            ("cpu-period", self.cpu_period.map(Err)),
            ("cpu-quota", self.cpu_quota.map(Err)),
            ("cpuset-cpus", self.cpuset_cpus.clone().map(Ok)),
            ("cpuset-mems", self.cpuset_mems.clone().map(Ok)),
        ];
        texts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
