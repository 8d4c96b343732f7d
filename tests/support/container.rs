//! Containers as `docker run` starts them: by `container.py` without docker, and by docker itself.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::env::{Done, Env, skip};
use super::source;

/// Returns the static, optimized rbuild if the caller has built it.
pub(crate) fn static_program() -> Option<PathBuf> {
    std::env::var_os("RBUILD_STATIC").map(PathBuf::from)
}

/// Returns the rbuild for containers: the static one if there is one.
pub(crate) fn program() -> PathBuf {
    static_program().unwrap_or_else(|| env!("CARGO_BIN_EXE_rbuild").into())
}

/// Copies the libraries of a program that is not static below `root`.
pub(crate) fn copy_libraries(program: &Path, root: &Path) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        if let Some(path) = word.strip_prefix('/') {
            let target = root.join(path);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(word, target).unwrap();
        }
    }
}

impl Env {
    /// Writes the directory `container`, the files of a container with busybox and `/usr/bin/rbuild`.
    pub(crate) fn write_container(&self) {
        let root = self.path("container");
        if root.is_dir() {
            return;
        }
        self.write_base();
        let copied = Command::new("cp").arg("-a").arg(self.path("base")).arg(&root).status();
        assert!(copied.unwrap().success());
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        for name in ["Dockerfile", ".dockerignore"] {
            fs::remove_file(root.join(name)).unwrap();
        }
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::copy(program(), root.join("usr/bin/rbuild")).unwrap();
        copy_libraries(&program(), &root);
        let everything = Command::new("chown").args(["-Rh", "0:0"]).arg(&root).status();
        assert!(everything.unwrap().success());
    }

    /// Returns the command that runs `command` in a container with the files of
    /// [`Env::write_container`]. The options are those of `docker run`.
    pub(crate) fn container(&self, options: &[&str], command: &[&str]) -> Command {
        let mut launcher = Command::new(source::root().join("tests/support/container.py"));
        launcher.args(options).arg(self.path("container")).args(command);
        launcher.stdin(Stdio::null());
        launcher
    }
}

/// Returns the client of docker that `RBUILD_DOCKER` names, or that is kept beside the checkout; `None` if
/// there is none or no engine answers it.
pub(crate) fn docker_client() -> Option<PathBuf> {
    let beside = source::root().join("../shared/peers/docker");
    let client = std::env::var_os("RBUILD_DOCKER").map_or(beside, PathBuf::from);
    if !client.exists() {
        skip("docker", "set RBUILD_DOCKER to a docker client");
        return None;
    }
    let version = Command::new(&client).arg("version").stdin(Stdio::null()).output();
    if !version.is_ok_and(|output| output.status.success()) {
        skip("docker", "the engine does not answer");
        return None;
    }
    Some(client)
}

/// An engine, with the files of [`Env::write_container`] as an image.
#[derive(Debug)]
pub(crate) struct Docker {
    client: PathBuf,
    image: String,
}

impl Docker {
    /// Connects with [`docker_client`]. Returns `None` if there is no engine.
    pub(crate) fn open(env: &Env) -> Option<Self> {
        let client = docker_client()?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let image = format!("rbuild-isolation:{}-{number}", std::process::id());
        let docker = Self { client, image };
        env.write_container();
        let mut tar = Command::new("tar");
        let mut tar = tar.arg("-C").arg(env.path("container")).args(["-c", "."]);
        tar = tar.stdout(Stdio::piped());
        let mut tar = tar.spawn().unwrap();
        let mut import = docker.command(&["import", "-", &docker.image]);
        let import = import.stdin(tar.stdout.take().unwrap()).output().unwrap();
        Done::of(import).ok();
        assert!(tar.wait().unwrap().success());
        Some(docker)
    }

    /// Returns the command that runs `command` in a container without network.
    pub(crate) fn container(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = self.command(&["run", "--rm", "--network", "none"]);
        run.args(options).arg(&self.image).args(command);
        run
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.args(args).stdin(Stdio::null());
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        drop(self.command(&["rmi", &self.image]).output());
    }
}
