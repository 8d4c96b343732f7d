//! What is read from around the process, once: environment variables, the clock, processors.
#![expect(clippy::disallowed_methods, reason = "this is the one place that reads them")]

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::args::registry::RegistryArgs;
use crate::diag::Style;

/// What is around the process.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    variables: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub(super) now_s: i64,
    /// A number that another process has otherwise.
    pub(super) seed: u64,
    /// What the command line says of registries.
    pub(super) registry_flags: RegistryArgs,
    /// Processors that may be used.
    pub(super) processors: NonZeroUsize,
    /// Whether messages go to a terminal.
    pub(super) is_terminal: bool,
    /// Whether it is one on which nothing can be written over.
    pub(super) is_dumb: bool,
    /// Whether somebody sits at a terminal, types, and reads the messages.
    pub(super) is_attended: bool,
    /// Whether messages go to a terminal that shows colours.
    pub(super) colour: bool,
    /// Whether what steps print may have colours: on such a terminal, or in the log of a CI system.
    pub(super) shows_colours: bool,
}

/// A CI system whose logs have a language of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CiSystem {
    /// GitHub Actions.
    GitHub,
    /// GitLab CI.
    GitLab,
}

fn ci_system(variables: &BTreeMap<String, String>) -> Option<CiSystem> {
    let is = |name: &str| variables.get(name).is_some_and(|value| value == "true");
    if is("GITHUB_ACTIONS") {
        return Some(CiSystem::GitHub);
    }
    is("GITLAB_CI").then_some(CiSystem::GitLab)
}

impl Environment {
    pub(super) fn of_process() -> Self {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let set = |name: &str| variables.get(name).is_some_and(|value| !value.is_empty());
        let is_terminal = std::io::stderr().is_terminal();
        let is_dumb = variables.get("TERM").is_some_and(|term| term == "dumb");
        let wanted = !set("NO_COLOR") && !is_dumb;
        let colour = is_terminal && wanted;
        let is_attended = is_terminal && std::io::stdin().is_terminal();
        Self {
            seed: u64::from(now.subsec_nanos()) ^ (u64::from(std::process::id()) << 32),
            now_s: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            registry_flags: RegistryArgs::default(),
            processors: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            is_terminal,
            is_dumb,
            is_attended,
            colour,
            shows_colours: colour || (wanted && ci_system(&variables).is_some()),
            variables,
        }
    }

    /// Whether the terminal shows more than ASCII: unless the locale has another character set, or it
    /// is Linux's own, whose font has few signs.
    pub(super) fn shows_unicode(&self) -> bool {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| self.get(name));
        let is_utf8 = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.contains("utf-8") || name.contains("utf8")
        };
        locale.is_none_or(is_utf8) && self.get("TERM") != Some("linux")
    }

    /// Whose log the output goes to.
    pub(super) fn ci_system(&self) -> Option<CiSystem> {
        ci_system(&self.variables)
    }

    /// How messages look.
    pub(super) const fn style(&self) -> Style {
        if self.colour { Style::Colour } else { Style::Plain }
    }

    /// A variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable that is set.
    pub(super) fn get_or_empty(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// All variables whose names begin so, with the rest of their names.
    pub(super) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let of = move |(name, value)| {
            let (name, value): (&String, &String) = (name, value);
            Some((name.strip_prefix(prefix)?, value.as_str()))
        };
        self.variables.iter().filter_map(of)
    }

    /// All variables, for programs of the caller's own such as docker's client.
    pub(super) const fn all(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The variables that programs get which rbuild runs on the host.
    pub(super) fn for_programs(&self) -> BTreeMap<String, String> {
        const NAMES: [&str; 7] = [
            "PATH",
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
        ];
        let wanted = |name: &str| NAMES.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
        let all = self.variables.iter().filter(|(name, _)| wanted(name));
        all.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }

    /// Where the store is when nobody says.
    pub(super) fn store_root(&self, user_namespace: bool) -> Option<PathBuf> {
        if let Some(root) = self.get("RBUILD_ROOT") {
            return Some(root.into());
        }
        if !user_namespace && rustix::process::geteuid().is_root() {
            return Some("/var/lib/rbuild".into());
        }
        let data = self.get("XDG_DATA_HOME").map(PathBuf::from);
        let data = data.or_else(|| self.home().map(|home| home.join(".local/share")));
        data.map(|data| data.join("rbuild"))
    }

    /// The directory of docker's `config.json`.
    pub(super) fn docker_config(&self) -> Option<PathBuf> {
        let given = self.get("DOCKER_CONFIG").map(PathBuf::from);
        given.or_else(|| self.home().map(|home| home.join(".docker")))
    }

    /// Where `registries.toml` may be, the caller's own first.
    pub(super) fn config_files(&self) -> Vec<PathBuf> {
        let own = self.get("XDG_CONFIG_HOME").map(PathBuf::from);
        let own = own.or_else(|| self.home().map(|home| home.join(".config")));
        own.map(|own| own.join("rbuild/registries.toml"))
            .into_iter()
            .chain([PathBuf::from("/etc/rbuild/registries.toml")])
            .collect()
    }
}
