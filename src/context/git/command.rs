//! Runs `git` isolated from the caller's configuration, with limits for time, output and space.
#![expect(clippy::disallowed_methods, reason = "git knows its own protocols best")]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::limits::MAX_GIT_OUTPUT_BYTES;
use crate::pathio::{Context as _, PathError};

use super::{GitError, GitRequest, Result};

/// Time limit of one call of git.
const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Interval between checks of a running git: the first one, and the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(50);
/// PATH of git if the caller's environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Configuration of every call, in place of config files (git-config(1)).
const CONFIG: [(&str, &str); 13] = [
    ("safe.directory", "*"),
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.symlinks", "true"),
    ("init.templateDir", ""),
    ("init.defaultBranch", "main"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("submodule.recurse", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "120"),
];

/// Settings from the caller.
#[derive(Clone, Copy)]
pub struct GitSettings<'a> {
    /// Environment variables for git, such as PATH, proxies and certificates.
    pub environment: &'a BTreeMap<String, String>,
    /// The `Authorization` header for http and https.
    pub authorization: Option<&'a str>,
    /// The socket of an ssh agent (ssh-agent(1)).
    pub ssh_agent: Option<&'a Path>,
    /// Called regularly. Git is killed when it returns false.
    pub should_continue: &'a dyn Fn() -> bool,
    /// Called regularly to check that this many more bytes fit on the disk: the repository decides
    /// about the size. Git is killed on an error.
    pub space: &'a dyn Fn(u64) -> std::result::Result<(), SpaceError>,
    /// Maximum total size of a commit's files in bytes.
    pub max_bytes: u64,
}

/// The reason for a lack of disk space.
pub type SpaceError = Box<dyn std::error::Error + Send + Sync>;

impl fmt::Debug for GitSettings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GitSettings")
    }
}

/// Git for one repository.
pub(super) struct Git<'a> {
    shown: &'a str,
    settings: &'a GitSettings<'a>,
    /// The address, without credentials.
    address: String,
    /// The base of the address up to the host, with credentials and without.
    credentials: Option<(String, String)>,
    /// Texts that messages must not contain.
    secrets: Vec<String>,
}

impl<'a> Git<'a> {
    pub(super) fn new(request: &GitRequest<'a>, settings: &'a GitSettings<'a>) -> Result<Self> {
        let remote = request.remote;
        let (scheme, rest) = remote.split_once("://").unwrap_or(("", remote));
        let is_http = ["http", "https"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
        let is_ssh = scheme.is_empty() || scheme.eq_ignore_ascii_case("ssh");
        if is_ssh && settings.ssh_agent.is_none() {
            return Err(GitError::NoAgent { remote: request.shown.to_owned() });
        }
        let mut git = Self {
            shown: request.shown,
            settings,
            address: remote.to_owned(),
            credentials: None,
            secrets: settings.authorization.map(str::to_owned).into_iter().collect(),
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if is_http && let Some((user, host)) = authority.rsplit_once('@') {
            git.address = format!("{scheme}://{host}{path}");
            let bases = (format!("{scheme}://{authority}/"), format!("{scheme}://{host}/"));
            git.credentials = Some(bases);
            let password = user.split_once(':').map_or(user, |(_, password)| password);
            git.secrets.extend([user, password].map(str::to_owned));
        }
        Ok(git)
    }

    /// Returns the address for git's arguments.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Returns the address for messages.
    pub(super) const fn shown(&self) -> &str {
        self.shown
    }

    /// Runs git in `directory` and returns its standard output.
    pub(super) fn output(
        &self,
        directory: Option<&Path>,
        what: &'static str,
        arguments: &[&str],
    ) -> Result<String> {
        read_back(&mut self.output_file(directory, what, arguments)?)
    }

    /// Runs git in `directory` and returns its standard output as a file.
    pub(super) fn output_file(
        &self,
        directory: Option<&Path>,
        what: &'static str,
        arguments: &[&str],
    ) -> Result<File> {
        let (out, mut err) = (scratch_file()?, scratch_file()?);
        let mut command = self.command(directory);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(same(&out)?).stderr(same(&err)?);
        let child = command.spawn().map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                GitError::NoProgram { remote: self.shown.to_owned() }
            } else {
                PathError::new("start", "git", error).into()
            }
        })?;
        let started = Instant::now();
        let status = self.wait(child, what, [&out, &err])?;
        tracing::debug!(
            command = self.without_secrets(&arguments.join(" ")),
            ?directory,
            %status,
            took = ?started.elapsed(),
            "git"
        );
        if status.success() {
            return Ok(out);
        }
        let words = self.error_lines(&read_back(&mut err)?, status);
        Err(GitError::Failed { what, remote: self.shown.to_owned(), words })
    }

    fn command(&self, directory: Option<&Path>) -> Command {
        let mut command = Command::new("git");
        command.env_clear().env("PATH", DEFAULT_PATH).envs(self.settings.environment);
        command.envs([
            ("HOME", "/nonexistent"),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", ""),
            ("SSH_ASKPASS", ""),
            ("GIT_ALLOW_PROTOCOL", "http:https:git:ssh"),
            ("GIT_CEILING_DIRECTORIES", "/"),
            (
                "GIT_SSH_COMMAND",
                "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o ClearAllForwardings=yes",
            ),
        ]);
        if let Some(agent) = self.settings.ssh_agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        for (at, (name, value)) in self.config().iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{at}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        command.env("GIT_CONFIG_COUNT", self.config().len().to_string());
        command.current_dir(directory.unwrap_or(Path::new("/")));
        // A process group of its own, so that git's helpers are killed with it.
        command.process_group(0);
        command
    }

    fn config(&self) -> Vec<(String, String)> {
        let fixed = CONFIG.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut config: Vec<(String, String)> = fixed.collect();
        if let Some((with, without)) = &self.credentials {
            config.push((format!("url.{with}.insteadOf"), without.clone()));
        }
        if let Some(value) = self.settings.authorization
            && let Some((scheme, rest)) = self.address.split_once("://")
        {
            let host = rest.split('/').next().unwrap_or_default();
            let name = format!("http.{scheme}://{host}/.extraHeader");
            config.push((name, format!("Authorization: {value}")));
        }
        config
    }

    /// Returns the reason to kill git, if there is one.
    fn reason_to_kill(
        &self,
        what: &'static str,
        started: Instant,
        outputs: [&File; 2],
    ) -> Option<GitError> {
        if !(self.settings.should_continue)() {
            return Some(GitError::Stopped);
        }
        let remote = self.shown.to_owned();
        if started.elapsed() > TIME_LIMIT {
            let minutes = TIME_LIMIT.as_secs() / 60;
            return Some(GitError::TimedOut { what, remote, minutes });
        }
        if let Err(source) = (self.settings.space)(0) {
            return Some(GitError::NoSpaceLeft { what, remote, source });
        }
        let length = |file: &File| file.metadata().map_or(0, |found| found.len());
        let is_long = outputs.into_iter().any(|file| length(file) > MAX_GIT_OUTPUT_BYTES);
        is_long.then_some(GitError::LongOutput { what, remote, limit: MAX_GIT_OUTPUT_BYTES })
    }

    fn wait(
        &self,
        mut child: Child,
        what: &'static str,
        outputs: [&File; 2],
    ) -> Result<ExitStatus> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(status) = child.try_wait().context("wait for", Path::new("git"))? {
                return Ok(status);
            }
            if let Some(reason_to_kill) = self.reason_to_kill(what, started, outputs) {
                // Fails if it has just exited.
                let _ended =
                    rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
                child.wait().context("wait for", Path::new("git"))?;
                return Err(reason_to_kill);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Checks before the checkout that the files fit: nested trees that repeat each other multiply
    /// their size, and equal files take no space in a pack.
    pub(super) fn check_size(&self, directory: &Path, commit: &str) -> Result<()> {
        let what = "list the files of";
        // First without sizes, which take git many times as long. This fails early if there are too
        // many files.
        self.output_file(Some(directory), what, &["ls-tree", "-r", "--full-tree", commit])?;
        let list = ["ls-tree", "-r", "-l", "--full-tree", commit];
        let mut listed = self.output_file(Some(directory), what, &list)?;
        let path = Path::new("the output of git");
        listed.rewind().context("read", path)?;
        let mut total = 0_u64;
        for line in io::BufReader::new(listed).split(b'\n') {
            let line = line.context("read", path)?;
            // Fields are mode, type, object and size (git-ls-tree(1)). The size of submodules and
            // trees is `-`.
            let fields = line.split(|byte| *byte == b'\t').next().unwrap_or_default();
            let size = fields.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let size = std::str::from_utf8(size).ok().and_then(|text| text.parse::<u64>().ok());
            total = total.saturating_add(size.unwrap_or(0));
        }
        let (remote, limit) = (self.shown.to_owned(), self.settings.max_bytes);
        if total > limit {
            return Err(GitError::TooLarge { remote, total, limit });
        }
        let what = "check out";
        (self.settings.space)(total).map_err(|source| GitError::NoSpaceLeft {
            what,
            remote,
            source,
        })
    }

    /// Extracts the error lines of git's output, joined and without secrets.
    fn error_lines(&self, text: &str, status: ExitStatus) -> String {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
        let is_error = |line: &&str| {
            ["fatal:", "error:", "remote:", "ERROR:", "ssh:"].iter().any(|at| line.starts_with(at))
        };
        let mut words: Vec<&str> = lines().filter(is_error).collect();
        if words.is_empty() {
            words.extend(lines().next_back());
        }
        let words = self.without_secrets(&words.join("; "));
        if words.is_empty() { status.to_string() } else { words }
    }

    /// Returns `text` with the credentials of the address masked.
    fn without_secrets(&self, text: &str) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "xxxxx"))
    }
}

/// Creates an unnamed file for git's output: a pipe could fill up.
fn scratch_file() -> Result<File> {
    Ok(tempfile::tempfile().context("make a file in", Path::new("/tmp"))?)
}

fn same(file: &File) -> Result<File> {
    Ok(file.try_clone().context("use", Path::new("the output of git"))?)
}

fn read_back(file: &mut File) -> Result<String> {
    let path = Path::new("the output of git");
    file.rewind().context("read", path)?;
    let mut bytes = Vec::new();
    file.take(MAX_GIT_OUTPUT_BYTES).read_to_end(&mut bytes).context("read", path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
