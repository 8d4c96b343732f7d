//! Registries for tests: the real `docker-registry`, and servers with scripted answers.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests start programs and threads, and panic on failure"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rbuild::registry::{Client, CloudOptions, Options, SchemeProbe};

use super::certificates::{Certified, ISSUER, SERVICE, TokenServer};

/// The real registry, from Debian's package of the same name.
const PROGRAM: &str = "docker-registry";

/// Returns options for tests: anonymous, and without long pauses.
pub(crate) fn options() -> Options {
    Options {
        registries: BTreeMap::new(),
        ca: Vec::new(),
        docker_auth: None,
        auth_files: Vec::new(),
        logins: BTreeMap::new(),
        cloud: CloudOptions::default(),
        scheme_probe: SchemeProbe::default(),
        user_agent: "rbuild-tests".to_owned(),
        retries: 2,
        first_delay: Duration::from_millis(1),
        jitter_seed: 0,
        transfers_per_host: NonZeroUsize::new(4).unwrap(),
        part_bytes: NonZeroU64::new(8 << 20).unwrap(),
        offline: false,
    }
}

/// Returns a client with these options.
pub(crate) fn client() -> Client {
    Client::new(options()).unwrap()
}

/// A `docker-registry` for one test on a free loopback port, stopped on drop.
pub(crate) struct DockerRegistry {
    child: Child,
    host: String,
    directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts a registry that needs no credentials.
    pub(crate) fn open() -> Self {
        Self::start(&Setup::default())
    }

    /// Starts a registry that requires Basic credentials: user `user`, password `geheim`.
    pub(crate) fn with_password() -> Self {
        Self::start(&Setup { password: true, ..Setup::default() })
    }

    /// Starts a registry that requires tokens.
    pub(crate) fn with_tokens(tokens: &TokenServer) -> Self {
        Self::start(&Setup { tokens: Some(tokens), ..Setup::default() })
    }

    pub(crate) fn start(setup: &Setup<'_>) -> Self {
        // Another program may take the port before the registry uses it.
        (0..5)
            .find_map(|_| Self::try_start(setup))
            .expect("docker-registry ends at once on five ports; run it by hand to see why")
    }

    fn try_start(setup: &Setup<'_>) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = directory.path().join("config.yml");
        std::fs::write(&config, setup.config(directory.path(), address)).unwrap();
        let mut child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("these tests need `{PROGRAM}` (Debian package docker-registry): {error}")
            });
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "{PROGRAM} does not listen within 30 s");
            thread::sleep(Duration::from_millis(10));
        }
        Some(Self { child, host: address.to_string(), directory })
    }

    /// Returns the sizes of all blobs by digest, manifests included.
    pub(crate) fn blobs(&self) -> BTreeMap<String, u64> {
        let all = walkdir::WalkDir::new(self.directory.path()).into_iter().map(Result::unwrap);
        let data = all.filter(|entry| entry.file_name() == "data" && entry.file_type().is_file());
        let size = |entry: walkdir::DirEntry| {
            let parent = entry.path().parent()?.file_name()?.to_str()?.to_owned();
            Some((parent, entry.metadata().ok()?.len()))
        };
        data.filter_map(size).collect()
    }

    /// Removes all layers of a repository, as its garbage collection might. Its documents and listings stay.
    pub(crate) fn remove_layers(&self, repository: &str) {
        self.remove_blobs(repository, &[0x1f, 0x8b]);
    }

    /// Removes all blobs of a repository that begin with these bytes.
    pub(crate) fn remove_blobs(&self, repository: &str, magic: &[u8]) {
        let top = find_below(self.directory.path(), "repositories").unwrap();
        let links = top.join(repository).join("_layers/sha256");
        let mut n_removed = 0;
        for link in std::fs::read_dir(&links).unwrap().map(Result::unwrap) {
            let hex = link.file_name().into_string().unwrap();
            let (start, _) = hex.split_at(2);
            let blob = top.with_file_name("blobs").join("sha256").join(start).join(&hex);
            if std::fs::read(blob.join("data")).unwrap().starts_with(magic) {
                std::fs::remove_dir_all(link.path()).unwrap();
                std::fs::remove_dir_all(blob).unwrap();
                n_removed += 1;
            }
        }
        assert!(n_removed > 0, "{}", links.display());
    }

    /// Returns host and port, as in a reference.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

/// Returns the directory with this name below `top`.
fn find_below(top: &Path, name: &str) -> Option<std::path::PathBuf> {
    let all = walkdir::WalkDir::new(top).into_iter().map(Result::unwrap);
    all.filter(|entry| entry.file_name() == name).map(walkdir::DirEntry::into_path).next()
}

/// Requirements of a registry on its clients.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// User `user`, password `geheim`.
    pub(crate) password: bool,
    pub(crate) tokens: Option<&'a TokenServer>,
    /// The registry uses TLS with this certificate.
    pub(crate) tls: Option<&'a Certified>,
    /// Clients must present a certificate that this authority signed.
    pub(crate) clients: Option<&'a Path>,
}

impl Setup<'_> {
    /// Returns the registry's config file. Writes other files into `directory`.
    fn config(&self, directory: &Path, address: SocketAddr) -> String {
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let data = directory.join("data").display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {data}}}}}\nhttp:\n  addr: '{address}'\n"
        );
        if let Some(Certified { certificate, key }) = self.tls {
            let (certificate, key) = (certificate.display(), key.display());
            config += &format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
            if let Some(authority) = self.clients {
                config += &format!("    clientcas: [{}]\n", authority.display());
            }
        }
        if self.password {
            // bcrypt of `geheim`, the only format that the registry accepts.
            let line = "user:$2b$04$9UFW4vDA4zB3EOsqb6qjB.aDVlU0GdtfHXuYaDXodBfDT2ZJ/uXxW\n";
            let path = write("passwords", line);
            config += &format!("auth: {{htpasswd: {{realm: test, path: {path}}}}}\n");
        }
        if let Some(tokens) = self.tokens {
            let (realm, bundle) = (tokens.realm(), write("tokens.crt", tokens.certificate()));
            config += &format!(
                "auth: {{token: {{realm: '{realm}', service: {SERVICE}, issuer: {ISSUER}, \
                 rootcertbundle: {bundle}}}}}\n"
            );
        }
        config
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A request as received.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query of the request.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Returns a header's value, by lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// Returns `METHOD target`, for assertions.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// Answer of a scripted server.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    cut_at: Option<usize>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self { status, headers: Vec::new(), body: body.as_ref().to_vec(), cut_at: None }
    }

    /// Closes the connection instead of answering.
    pub(crate) fn hang_up() -> Self {
        Self { status: 0, headers: Vec::new(), body: Vec::new(), cut_at: None }
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Announces the whole body, but sends only this many bytes of it.
    pub(crate) fn cut_at(mut self, n_bytes: usize) -> Self {
        self.cut_at = Some(n_bytes);
        self
    }

    fn send(&self, to: &mut TcpStream, is_head: bool) -> std::io::Result<()> {
        if self.status == 0 {
            return Ok(());
        }
        let mut head = format!("HTTP/1.1 {} Scripted\r\nConnection: close\r\n", self.status);
        for (name, value) in self.headers.iter().filter(|(_, value)| !value.is_empty()) {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.headers.iter().any(|(name, _)| name == "Content-Length") {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        to.write_all(format!("{head}\r\n").as_bytes())?;
        if !is_head {
            to.write_all(&self.body[..self.cut_at.unwrap_or(self.body.len())])?;
        }
        to.flush()
    }
}

/// A server on a free loopback port that gives scripted answers and records its requests.
pub(crate) struct Scripted {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
}

impl Scripted {
    /// Starts a server. `script` gets each request, and the number of requests before it.
    pub(crate) fn new(script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let server = Self { address, requests: Arc::clone(&requests), ended: Arc::clone(&ended) };
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (requests, script) = (Arc::clone(&requests), Arc::clone(&script));
                // A client that goes away in the middle is not a fault of the server.
                thread::spawn(move || stream.and_then(|stream| serve(stream, &requests, &*script)));
            }
        });
        server
    }

    /// Returns host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the requests so far, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Returns the first lines of the requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(
    mut stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    script: &(dyn Fn(&Request, usize) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, headers, body: Vec::new() };
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = body(&request, &mut reader)?;
    let n_before = {
        let mut requests = requests.lock().unwrap();
        requests.push(request.clone());
        requests.len() - 1
    };
    let answer = script(&request, n_before);
    answer.send(&mut stream, request.method == "HEAD")
}

/// Reads as much of a request's body as arrives.
fn body(request: &Request, reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let n_bytes = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
            let n_read = reader.by_ref().take(n_bytes).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if n_bytes == 0 || u64::try_from(n_read).unwrap() < n_bytes {
                return Ok(body);
            }
        }
    }
    let n_bytes = request.header("content-length").map_or(0, |text| text.parse().unwrap());
    reader.take(n_bytes).read_to_end(&mut body)?;
    Ok(body)
}
