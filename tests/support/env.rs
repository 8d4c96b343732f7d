//! Runs rbuild as users do: in its own process, with its own store, home and context.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::sandbox::{TestUser, is_root, test_user};

/// The user who builds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who {
    /// The user who runs the tests.
    Caller,
    /// An ordinary user, if root runs the tests.
    User(TestUser),
}

impl Who {
    /// Returns root, if root runs the tests.
    pub(crate) fn root() -> Option<Self> {
        if is_root() {
            return Some(Self::Caller);
        }
        skip("root", "these tests are not run by root");
        None
    }

    /// Returns an ordinary user with subordinate ids.
    pub(crate) fn user() -> Option<Self> {
        if !is_root() {
            return Some(Self::Caller);
        }
        match test_user() {
            Ok(user) => Some(Self::User(user)),
            Err(missing) => {
                skip("user", &missing);
                None
            }
        }
    }
}

/// Reports that something a test needs is missing. Fails if `RBUILD_REQUIRE` lists it.
pub(crate) fn skip(ability: &str, why: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let required = std::env::var("RBUILD_REQUIRE").unwrap_or_default();
    assert!(
        !required.split([',', ' ']).any(|word| word == ability),
        "{ability} is required: {why}"
    );
    eprintln!("SKIP {}: {ability}: {why}", SKIPPED.fetch_add(1, Ordering::Relaxed) + 1);
}

/// Runs a scenario twice: as root, and as an ordinary user.
macro_rules! as_root_and_as_user {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use crate::support::env::Who;

            #[test]
            fn priv_as_root() {
                if let Some(who) = Who::root() {
                    super::$name(who);
                }
            }

            #[test]
            fn priv_as_user() {
                if let Some(who) = Who::user() {
                    super::$name(who);
                }
            }
        })*
    };
}
pub(crate) use as_root_and_as_user;

/// A directory with a context, a store and a home, and the user who builds there.
#[derive(Debug)]
pub(crate) struct Env {
    directory: TempDir,
    who: Who,
    variables: BTreeMap<String, String>,
}

impl Env {
    /// Creates an environment for the user who runs the tests.
    pub(crate) fn new() -> Self {
        Self::of(Who::Caller)
    }

    /// Creates an environment for a user.
    pub(crate) fn of(who: Who) -> Self {
        let directory =
            tempfile::Builder::new().prefix("rbuild-e2e.").tempdir_in(test_dir()).unwrap();
        let mut env = Self { directory, who, variables: BTreeMap::new() };
        for name in ["home", "docker", "context"] {
            fs::create_dir(env.path(name)).unwrap();
        }
        fs::write(env.path("docker/config.json"), "{}").unwrap();
        env.set("PATH", &std::env::var("PATH").unwrap_or_default());
        env.set("HOME", &env.shown("home"));
        env.set("DOCKER_CONFIG", &env.shown("docker"));
        env.hand_over(".");
        env
    }

    /// Sets an environment variable for the programs that are started here.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Redirects docker.io to a registry of the test.
    pub(crate) fn mirror(&mut self, host: &str) {
        self.set("RBUILD_MIRROR_DOCKER_IO", &format!("http://{host}"));
    }

    /// Returns a path below the environment's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the same path as text.
    pub(crate) fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file of the context.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Gives a file or a directory to the builder.
    pub(crate) fn hand_over(&self, name: &str) {
        if let Who::User(user) = self.who {
            let owner = format!("{}:{}", user.uid, user.gid);
            let mut chown = Command::new("chown");
            let chown = chown.args(["-Rh", &owner]).arg(self.path(name));
            assert!(chown.status().unwrap().success());
        }
    }

    /// Returns a command that runs a program as the builder.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = match self.who {
            Who::Caller => Command::new(name),
            Who::User(TestUser { uid, gid }) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={uid}"), format!("--regid={gid}")]).args([
                    "--clear-groups",
                    "--inh-caps=-all",
                    name,
                ]);
                command
            }
        };
        command.env_clear().envs(&self.variables).current_dir(self.directory.path());
        command.stdin(Stdio::null());
        command
    }

    /// Returns a command that runs rbuild with these arguments and the store `store`.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_in("store", args)
    }

    /// Returns a command that runs rbuild with these arguments and this store.
    pub(crate) fn command_in(&self, store: &str, args: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_rbuild"));
        command.args(["--root", store]).args(args);
        command
    }

    /// Runs rbuild with these arguments.
    pub(crate) fn rbuild(&self, args: &[&str]) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    /// Builds the context with this Dockerfile.
    pub(crate) fn build(&self, dockerfile: &str, args: &[&str]) -> Done {
        self.write("Dockerfile", dockerfile);
        self.rbuild(&[&["build", "context"], args].concat())
    }

    /// Returns what is left of builds that were killed, after another build. A directory that was not
    /// locked yet stays for a minute.
    pub(crate) fn leftovers_of_killed(&self, store: &str) -> String {
        let left = self.leftovers(store);
        left.lines().filter(|line| !line.starts_with("tmp/new.")).collect()
    }

    /// Returns what builds leave behind if they do not clean up.
    pub(crate) fn leftovers(&self, store: &str) -> String {
        let mut found = String::new();
        let root = self.path(store);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for line in mounts.lines().filter(|line| line.contains(&*root.to_string_lossy())) {
            writeln!(found, "mount {line}").unwrap();
        }
        for entry in fs::read_dir(root.join("tmp")).unwrap() {
            writeln!(found, "tmp/{}", entry.unwrap().file_name().display()).unwrap();
        }
        for process in self.processes() {
            writeln!(found, "process {process}").unwrap();
        }
        found
    }

    /// Returns the processes whose working directory is below this directory.
    pub(crate) fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(cwd) = fs::read_link(entry.path().join("cwd")) else { continue };
            if cwd.starts_with(self.directory.path()) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                found.push(format!("{} {line}", entry.file_name().display()));
            }
        }
        found
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        if !is_root() && self.path("store").is_dir() {
            // Files of subordinate ids can be removed only in a user namespace.
            drop(self.command(&["prune", "--all"]).output());
        }
    }
}

/// Returns the directory for environments: in memory if possible.
fn test_dir() -> PathBuf {
    if let Some(given) = std::env::var_os("RBUILD_TEST_DIR") {
        return given.into();
    }
    let memory = Path::new("/dev/shm");
    let for_all = |meta: fs::Metadata| meta.permissions().mode() & 0o1777 == 0o1777;
    if memory.metadata().is_ok_and(for_all) { memory.to_owned() } else { std::env::temp_dir() }
}

/// Result of a run of rbuild.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Checks that the run succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Checks the exit code, and that the messages contain these parts in this order.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let mut rest = self.stderr.as_str();
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else {
                panic!("no `{part}` in the rest of:\n{}", self.stderr);
            };
            rest = after;
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    /// Returns how each instruction ended, sorted by text: `RUN make: DONE`.
    pub(crate) fn steps(&self) -> Vec<String> {
        let mut names = BTreeMap::new();
        let mut steps = Vec::new();
        for line in self.stderr.lines() {
            let Some((number, rest)) = line.strip_prefix('#').and_then(|l| l.split_once(' '))
            else {
                continue;
            };
            let outcome = rest.split(' ').next().unwrap();
            if rest.starts_with("[internal] ") {
                continue;
            }
            if let Some((_, text)) = rest.strip_prefix('[').and_then(|l| l.split_once("] ")) {
                names.entry(number).or_insert(text);
            } else if ["DONE", "CACHED", "ERROR", "CANCELED"].contains(&outcome)
                && let Some(name) = names.get(number)
                && !name.starts_with("FROM ")
            {
                steps.push(format!("{name}: {outcome}"));
            }
        }
        steps.sort();
        steps
    }

    /// Checks how each instruction ended.
    #[track_caller]
    pub(crate) fn ended(&self, want: &[&str]) {
        let mut want = want.to_vec();
        want.sort_unstable();
        assert_eq!(self.steps(), want, "{}", self.stderr);
    }
}
