//! The environment of the process, read once: variables, clock, processors, terminals.
#![expect(clippy::disallowed_methods, reason = "this is the one place that reads them")]

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::args::go_booleans;
use crate::cli::args::registry::RegistryArgs;
use crate::diag::Style;

/// The environment of the process.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    variables: BTreeMap<String, String>,
    /// Unix time in seconds.
    pub(super) now_s: i64,
    /// A number that differs between processes.
    pub(super) seed: u64,
    /// The options about registries.
    pub(super) registry_flags: RegistryArgs,
    /// The registries that the login of `--creds` is for.
    pub(super) creds_hosts: Vec<String>,
    /// Remarks about the command line, shown when a build begins.
    pub(super) remarks: Vec<String>,
    /// Number of processors that may be used.
    pub(super) processors: NonZeroUsize,
    /// True if standard error is a terminal.
    pub(super) is_terminal: bool,
    /// True if the terminal cannot move its cursor (`TERM=dumb`).
    pub(super) is_dumb: bool,
    /// True if standard input and standard error are terminals.
    pub(super) is_attended: bool,
    /// True if messages may have colours (<https://no-color.org>).
    pub(super) colour: bool,
    /// True if output of steps may have colours: also in logs of CI systems.
    pub(super) shows_colours: bool,
    /// True if docker's client started this process.
    pub(super) is_docker_plugin: bool,
}

/// A CI system with log commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CiSystem {
    /// GitHub Actions (`GITHUB_ACTIONS=true`).
    GitHub,
    /// GitLab CI (`GITLAB_CI=true`).
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
    /// Reads the environment of this process.
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
            creds_hosts: Vec::new(),
            remarks: Vec::new(),
            processors: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            is_terminal,
            is_dumb,
            is_attended,
            colour,
            shows_colours: colour || (wanted && ci_system(&variables).is_some()),
            is_docker_plugin: false,
            variables,
        }
    }

    /// Sets a variable, as an option of docker's client does.
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.variables.insert(name.to_owned(), value);
    }

    /// Returns whether the terminal shows more than ASCII. Not if the locale has another character set,
    /// and not on the Linux console, whose font has at most 512 glyphs (console_codes(4)).
    pub(super) fn shows_unicode(&self) -> bool {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| self.get(name));
        let is_utf8 = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.contains("utf-8") || name.contains("utf8")
        };
        locale.is_none_or(is_utf8) && self.get("TERM") != Some("linux")
    }

    /// Returns the CI system that runs this process.
    pub(super) fn ci_system(&self) -> Option<CiSystem> {
        ci_system(&self.variables)
    }

    /// Returns the style of messages.
    pub(super) const fn style(&self) -> Style {
        if self.colour { Style::Colour } else { Style::Plain }
    }

    /// Returns a variable, unless it is unset or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns a variable, unless it is unset.
    pub(super) fn get_or_empty(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Returns whether a variable is a true boolean, as Go's `strconv.ParseBool` reads it.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name).and_then(go_booleans::parse).unwrap_or(false)
    }

    /// Returns all variables with this prefix, by the rest of their names.
    pub(super) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let of = move |(name, value)| {
            let (name, value): (&String, &String) = (name, value);
            Some((name.strip_prefix(prefix)?, value.as_str()))
        };
        self.variables.iter().filter_map(of)
    }

    /// Returns all variables, for programs of the user such as docker's client.
    pub(super) const fn all(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// Returns the variables for programs that rbuild runs on the host, such as git.
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

    /// Returns the default directory of the store.
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

    /// Returns the directory of docker's `config.json`.
    pub(super) fn docker_config(&self) -> Option<PathBuf> {
        let given = self.get("DOCKER_CONFIG").map(PathBuf::from);
        given.or_else(|| self.home().map(|home| home.join(".docker")))
    }

    /// Returns the files with logins, in the order of the lookup. Podman's comes first if a variable names
    /// it.
    pub(super) fn auth_files(&self) -> Vec<PathBuf> {
        let path = |name: &str| self.get(name).map(PathBuf::from);
        let runtime = match path("XDG_RUNTIME_DIR") {
            Some(directory) => directory.join("containers/auth.json"),
            None => {
                let user = rustix::process::getuid().as_raw();
                PathBuf::from(format!("/run/containers/{user}/auth.json"))
            }
        };
        let docker = self.docker_config().map(|directory| directory.join("config.json"));
        let own = path("XDG_CONFIG_HOME").or_else(|| self.home().map(|home| home.join(".config")));
        let own = own.map(|own| own.join("containers/auth.json"));
        let given = path("REGISTRY_AUTH_FILE");
        given.into_iter().chain(docker).chain([runtime]).chain(own).collect()
    }

    /// Returns the directories with certificates by registry, those of the user first.
    pub(super) fn certificate_directories(&self) -> Vec<PathBuf> {
        let own = self.get("XDG_CONFIG_HOME").map(PathBuf::from);
        let own = own.or_else(|| self.home().map(|home| home.join(".config")));
        let own = own.map(|own| own.join("containers/certs.d"));
        let all = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
        own.into_iter().chain(all.map(PathBuf::from)).collect()
    }

    /// Notes that standard error is not a terminal any more.
    pub(super) const fn leave_terminal(&mut self) {
        self.is_terminal = false;
        self.is_attended = false;
        self.colour = false;
        self.shows_colours = false;
    }

    /// Returns the paths of `registries.toml`, the user's own first.
    pub(super) fn config_files(&self) -> Vec<PathBuf> {
        let own = self.get("XDG_CONFIG_HOME").map(PathBuf::from);
        let own = own.or_else(|| self.home().map(|home| home.join(".config")));
        own.map(|own| own.join("rbuild/registries.toml"))
            .into_iter()
            .chain([PathBuf::from("/etc/rbuild/registries.toml")])
            .collect()
    }
}
