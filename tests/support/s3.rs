//! An S3 server for tests: moto, which is made for tests and comes from Python's package index.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start programs and panic on failure"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::env::skip;

/// A bucket `cache` on a server for one test, stopped on drop.
pub(crate) struct S3Server {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

/// Returns the path to which `tests/run` installs the program, in cargo's target directory.
fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("RBUILD_TEST_MOTO") {
        return given.into();
    }
    let target = Path::new(env!("CARGO_BIN_EXE_rbuild")).ancestors().nth(2).unwrap();
    target.join("moto/bin/moto_server")
}

impl S3Server {
    /// Starts a server. Returns `None` if the program is missing.
    pub(crate) fn start() -> Option<Self> {
        let program = program();
        if !program.exists() {
            skip("moto", &format!("{} is not there; tests/run installs it", program.display()));
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let port = address.port().to_string();
        let child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { child, address, directory };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert_eq!(server.child.try_wait().unwrap(), None, "{}", server.log());
            assert!(Instant::now() < deadline, "moto does not listen within 60 s");
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(server.request("PUT", "/cache", b"").0, 200);
        Some(server)
    }

    /// Returns host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the options of a cache on this server.
    pub(crate) fn cache(&self) -> String {
        format!("type=s3,bucket=cache,endpoint_url=http://{},use_path_style=true", self.address)
    }

    /// Sends a request with an invalid signature, which this server accepts.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/s3/aws4_request\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let body = answer.split_off(end + 4);
        let status = String::from_utf8_lossy(&answer);
        (status.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// Returns the log of the server.
    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Forgets the requests so far.
    pub(crate) fn forget(&self) {
        fs::write(self.directory.path().join("log"), "").unwrap();
    }

    /// Returns the keys that begin with `prefix` and were requested with `method` since `forget`,
    /// without queries, sorted.
    pub(crate) fn asked(&self, method: &str, prefix: &str) -> Vec<String> {
        let log = self.log();
        let start = format!("{method} /cache/{prefix}");
        let lines = log.split('"').filter(|line| line.starts_with(&start));
        let mut asked: Vec<String> = lines
            .map(|line| line.split(['?', ' ']).nth(1).unwrap().replace("/cache/", ""))
            .collect();
        asked.sort();
        asked
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
