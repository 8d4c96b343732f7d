//! User namespaces with the ids that a test needs.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use super::env::{Done, Env, Who};

/// A user namespace in which the tests, run by root, start programs.
#[derive(Debug)]
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Creates a namespace in which id 0 is `first`, and the `n_rest` ids from 1 on are those from
    /// `rest` on.
    pub(crate) fn new(first: u32, rest: u32, n_rest: u32) -> Self {
        let holder = Command::new("unshare").args(["--user", "sleep", "600"]).spawn().unwrap();
        let process = PathBuf::from(format!("/proc/{}", holder.id()));
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        while fs::read_link(process.join("ns/user")).unwrap() == own {
            sleep(Duration::from_millis(5));
        }
        let mut map = format!("0 {first} 1\n");
        if n_rest > 0 {
            map += &format!("1 {rest} {n_rest}\n");
        }
        for name in ["uid_map", "gid_map"] {
            fs::write(process.join(name), &map).unwrap();
        }
        Self { holder }
    }

    /// Returns a command that runs a program as user 0 of the namespace, with its own mounts.
    pub(crate) fn program(&self, env: &Env, name: &str) -> Command {
        let mut command = env.program("nsenter");
        command.args(["--user", "--target", &self.holder.id().to_string()]);
        command.args(["unshare", "--mount", name]);
        command
    }

    /// Runs rbuild with the store `store`.
    pub(crate) fn rbuild(&self, env: &Env, args: &[&str]) -> Done {
        let mut command = self.program(env, env!("CARGO_BIN_EXE_rbuild"));
        Done::of(command.args(["--root", "store"]).args(args).output().unwrap())
    }

    /// Builds the context with this Dockerfile.
    pub(crate) fn build(&self, env: &Env, dockerfile: &str, args: &[&str]) -> Done {
        env.write("Dockerfile", dockerfile);
        self.rbuild(env, &[&["build", "context"], args].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}

impl Env {
    /// Returns an environment whose store and context belong to this user, or `None` unless root
    /// runs the tests.
    pub(crate) fn owned_by(id: u32) -> Option<Self> {
        let env = Self::of(Who::root()?);
        env.write_base();
        for name in ["store", "context"] {
            fs::create_dir_all(env.path(name)).unwrap();
            chown(env.path(name), Some(id), Some(id)).unwrap();
        }
        fs::set_permissions(env.path("."), fs::Permissions::from_mode(0o755)).unwrap();
        Some(env)
    }
}
