//! A git repository on a loopback port, served by git's own CGI program.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests start programs and panic on failure"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::registry::{Answer, Request, Scripted};

/// A server of repositories below one directory; each is `http://HOST/NAME.git`.
pub(crate) struct GitServer {
    server: Scripted,
    directory: TempDir,
}

impl GitServer {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let server = Scripted::new(move |request, _| serve(&root, request));
        Self { server, directory }
    }

    /// Returns the address of a repository.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.server.host())
    }

    /// Returns the number of requests.
    pub(crate) fn n_requests(&self) -> usize {
        self.server.requests().len()
    }

    /// Returns the `Authorization` headers of all requests.
    pub(crate) fn authorizations(&self) -> Vec<String> {
        let requests = self.server.requests();
        requests.iter().filter_map(|r| r.header("authorization").map(str::to_owned)).collect()
    }

    /// Creates a repository with a shell script that runs in its work tree.
    pub(crate) fn repository(&self, name: &str, script: &str) {
        let bare = self.directory.path().join(format!("{name}.git"));
        let (init, clone) =
            ("git init -q -b main", format!("git clone -q --bare . {}", bare.display()));
        self.in_work_tree(name, &format!("{init}; {script}\n{clone}"));
    }

    /// Changes a repository with a shell script that makes commits on the branch `main`.
    pub(crate) fn commit_on(&self, name: &str, script: &str) {
        let bare = self.directory.path().join(format!("{name}.git"));
        self.in_work_tree(name, &format!("{script}\ngit push -q {} main", bare.display()));
    }

    fn in_work_tree(&self, name: &str, script: &str) {
        let work = self.directory.path().join(format!("{name}.work"));
        std::fs::create_dir_all(&work).unwrap();
        let shell = format!("set -eu; umask 022; {script}");
        let mut command = Command::new("sh");
        command.args(["-c", &shell]).current_dir(work);
        command.envs([
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@example.org"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@example.org"),
            ("GIT_AUTHOR_DATE", "2001-02-03T04:05:06Z"),
            ("GIT_COMMITTER_DATE", "2001-02-03T04:05:06Z"),
        ]);
        assert!(command.status().unwrap().success(), "{script}");
    }

    /// Returns the commit that a reference names.
    pub(crate) fn commit(&self, name: &str, reference: &str) -> String {
        let bare = self.directory.path().join(format!("{name}.git"));
        let mut git = Command::new("git");
        git.args(["-c", "safe.directory=*", "-C"]).arg(bare);
        let output = git.args(["rev-parse", reference]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

fn serve(root: &Path, request: &Request) -> Answer {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
    let mut child = Command::new("git")
        .args(["-c", "safe.directory=*", "http-backend"])
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&request.body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let headers: Vec<(&str, &str)> =
        head.lines().filter_map(|line| line.split_once(": ")).collect();
    let status = headers.iter().find(|(name, _)| *name == "Status");
    let status = status.map_or(200, |(_, text)| text.split(' ').next().unwrap().parse().unwrap());
    headers
        .iter()
        .filter(|(name, _)| *name != "Status")
        .fold(Answer::new(status, &output[end + 4..]), |answer, (name, value)| {
            answer.header(name, value)
        })
}
