//! A proxy between a client and a registry that behaves like bad networks and busy servers.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests start threads and panic on failure"
)]

use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Fault of one request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No fault.
    None,
    /// The connection ends before the registry gets the request.
    Drop,
    /// The registry handles the request, but its answer is lost.
    LoseAnswer,
    /// The registry gets this many bytes of the request's body.
    CutRequest(u64),
    /// The client gets this many bytes of the answer's body.
    CutAnswer(u64),
    /// One bit of the answer's body is flipped.
    FlipAnswer(u64),
    /// One bit of the request's body is flipped.
    FlipRequest(u64),
    /// The request is delayed.
    Delay(Duration),
    /// The proxy answers in place of the registry, with a number of seconds to wait.
    Status(u16, Option<u64>),
    /// The token, if any, has expired.
    Expire,
    /// The registry gets the request without its `Range` header.
    IgnoreRange,
}

/// Damage to a body.
#[derive(Debug, Clone, Copy, Default)]
struct Damage {
    /// Only this many bytes of it arrive.
    cut: Option<u64>,
    /// One bit of this byte is flipped.
    flip: Option<u64>,
}

impl Fault {
    /// Returns the name of the fault's kind.
    pub(crate) fn kind(self) -> String {
        format!("{self:?}").split('(').next().unwrap().to_owned()
    }

    const fn is_damage(self) -> bool {
        matches!(
            self,
            Self::CutRequest(_) | Self::CutAnswer(_) | Self::FlipRequest(_) | Self::FlipAnswer(_)
        )
    }

    fn of_request(self) -> Damage {
        let cut = if let Self::CutRequest(at) = self { Some(at) } else { None };
        let flip = if let Self::FlipRequest(at) = self { Some(at) } else { None };
        Damage { cut, flip }
    }

    fn of_answer(self) -> Damage {
        let cut = if let Self::CutAnswer(at) = self { Some(at) } else { None };
        let flip = if let Self::FlipAnswer(at) = self { Some(at) } else { None };
        Damage { cut, flip }
    }
}

/// The first line and the headers of a request or an answer.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head. Returns `None` at the end of the connection.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut first = String::new();
        if from.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Self { first: first.trim_end().to_owned(), headers }))
    }

    /// Returns a header's value, by lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// Returns `METHOD path`, without the parts that differ between runs.
    pub(crate) fn line(&self) -> String {
        let mut words = self.first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap();
        match path.split_once("/blobs/uploads/") {
            Some((repository, rest)) if !rest.is_empty() => {
                format!("{method} {repository}/blobs/uploads/*")
            }
            _ => format!("{method} {path}"),
        }
    }

    fn is_head(&self) -> bool {
        self.first.starts_with("HEAD ")
    }

    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Writes the head without the headers that concern one connection only.
    fn write(&self, to: &mut impl Write, more: &str) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            if !["connection", "expect"].contains(&name.as_str()) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        to.write_all(format!("{text}{more}\r\n").as_bytes())
    }
}

type Plan = dyn Fn(&Head) -> Fault + Send + Sync;

/// A proxy on a free loopback port, stopped on drop.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    plan: Box<Plan>,
    log: Mutex<Vec<(String, Fault)>>,
    /// The `Range` headers of requests for blobs.
    ranges: Mutex<Vec<String>>,
    /// Authorization headers that are no longer valid.
    dead: Mutex<Vec<String>>,
    ended: AtomicBool,
}

impl Proxy {
    /// Starts a proxy in front of `upstream`. `plan` returns the fault of each request.
    pub(crate) fn new(
        upstream: &str,
        plan: impl Fn(&Head) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            plan: Box::new(plan),
            log: Mutex::default(),
            ranges: Mutex::default(),
            dead: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if server.ended.load(Ordering::SeqCst) {
                    return;
                }
                let server = Arc::clone(&server);
                // A connection that breaks midway is expected.
                thread::spawn(move || stream.and_then(|stream| server.serve(&stream)));
            }
        });
        Self { address, shared }
    }

    /// Returns host and port of the proxy.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the requests so far with their faults, in order.
    pub(crate) fn log(&self) -> Vec<(String, Fault)> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Returns the `Range` header of each request for a blob, in order; empty if it has none.
    pub(crate) fn ranges(&self) -> Vec<String> {
        self.shared.ranges.lock().unwrap().clone()
    }

    /// Returns the requests in the log.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log().into_iter().map(|(line, _)| line).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client.try_clone()?);
        while let Some(head) = Head::read(&mut reader)? {
            if head.first.starts_with("GET ") && head.line().contains("/blobs/") {
                let range = head.header("range").unwrap_or_default();
                self.ranges.lock().unwrap().push(range.to_owned());
            }
            let fault = (self.plan)(&head);
            let number = {
                let mut log = self.log.lock().unwrap();
                log.push((head.line(), fault));
                log.len() - 1
            };
            let mut happened = !fault.is_damage();
            let passed = self.pass(&head, fault, &mut happened, &mut reader, client);
            if !happened {
                // The body was too short for the damage.
                self.log.lock().unwrap()[number].1 = Fault::None;
            }
            if !passed? {
                break;
            }
        }
        client.shutdown(Shutdown::Both)
    }

    /// Handles one request. Returns whether the connection stays open.
    fn pass(
        &self,
        head: &Head,
        fault: Fault,
        happened: &mut bool,
        reader: &mut BufReader<TcpStream>,
        mut client: &TcpStream,
    ) -> io::Result<bool> {
        match fault {
            Fault::Drop => return Ok(false),
            Fault::Delay(delay) => thread::sleep(delay),
            Fault::Status(status, seconds) => {
                // The body of an accepted request is read first.
                if status < 300 {
                    proceed(head, client)?;
                    relay(head, reader, io::sink(), false, fault.of_request(), happened)?;
                }
                return self.refuse(head, status, seconds, client);
            }
            Fault::Expire => {
                let token = head.header("authorization").unwrap_or_default();
                self.dead.lock().unwrap().push(token.to_owned());
            }
            Fault::None
            | Fault::LoseAnswer
            | Fault::CutRequest(_)
            | Fault::CutAnswer(_)
            | Fault::FlipRequest(_)
            | Fault::FlipAnswer(_)
            | Fault::IgnoreRange => {}
        }
        let mut head = head.clone();
        if fault == Fault::IgnoreRange {
            head.headers.retain(|(name, _)| name != "range");
        }
        if head.header("authorization").is_some_and(|token| self.is_dead(token)) {
            // The registry answers with its own challenge.
            head.headers.retain(|(name, _)| name != "authorization");
        }
        let mut upstream = TcpStream::connect(&self.upstream)?;
        head.write(&mut upstream, "connection: close\r\n")?;
        proceed(&head, client)?;
        let whole = relay(&head, reader, &mut upstream, false, fault.of_request(), happened)?;
        if !whole {
            // Waits until the registry has noticed, before the client connects again.
            upstream.shutdown(Shutdown::Write)?;
            drop(upstream.read_to_end(&mut Vec::new()));
            return Ok(false);
        }
        let mut upstream = BufReader::new(upstream);
        let Some(answer) = Head::read(&mut upstream)? else { return Ok(false) };
        if fault == Fault::LoseAnswer {
            return Ok(false);
        }
        answer.write(&mut client, "")?;
        let is_empty = head.is_head() || matches!(answer.status(), 204 | 304);
        let whole =
            is_empty || relay(&answer, &mut upstream, client, true, fault.of_answer(), happened)?;
        let ends = answer.header("content-length").is_some()
            || answer.header("transfer-encoding").is_some();
        Ok(whole && (ends || is_empty))
    }

    fn is_dead(&self, token: &str) -> bool {
        self.dead.lock().unwrap().iter().any(|dead| dead == token)
    }

    fn refuse(
        &self,
        head: &Head,
        status: u16,
        seconds: Option<u64>,
        mut client: &TcpStream,
    ) -> io::Result<bool> {
        let body = r#"{"errors":[{"code":"FAULT","message":"a fault of the test's own"}]}"#;
        let wait = seconds.map_or(String::new(), |seconds| format!("retry-after: {seconds}\r\n"));
        let mut answer =
            format!("HTTP/1.1 {status} Fault\r\ncontent-length: {}\r\n{wait}\r\n", body.len());
        if !head.is_head() {
            answer += body;
        }
        client.write_all(answer.as_bytes())?;
        // The proxy does not wait for a body that the client has not sent yet.
        let sends = head.header("content-length").is_some_and(|n| n != "0")
            || head.header("transfer-encoding").is_some();
        Ok(!sends)
    }
}

/// Lets the client send its body, if it waits for that.
fn proceed(head: &Head, mut client: &TcpStream) -> io::Result<()> {
    if head.header("expect").is_none() {
        return Ok(());
    }
    client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
}

/// Copies a body as announced in its head. Returns whether it was complete.
fn relay(
    head: &Head,
    from: &mut impl BufRead,
    mut to: impl Write,
    is_answer: bool,
    damage: Damage,
    happened: &mut bool,
) -> io::Result<bool> {
    let Damage { cut, flip } = damage;
    let length = head.header("content-length").and_then(|text| text.parse::<u64>().ok());
    let is_chunked = head.header("transfer-encoding") == Some("chunked");
    if !is_chunked && length.is_none() && !is_answer {
        return Ok(true);
    }
    let (mut done, mut left) = (0, if is_chunked { 0 } else { length.unwrap_or(u64::MAX) });
    loop {
        if is_chunked && left == 0 {
            let mut line = String::new();
            from.read_line(&mut line)?;
            left = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            to.write_all(line.as_bytes())?;
            if left == 0 {
                from.read_line(&mut line)?;
                to.write_all(b"\r\n")?;
                return Ok(true);
            }
        }
        if left == 0 {
            return Ok(true);
        }
        let mut buffer = [0; 16 << 10];
        let most = usize::try_from(left.min(cut.unwrap_or(u64::MAX).saturating_sub(done)));
        let most = most.unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            *happened = true;
            to.flush()?;
            return Ok(false);
        }
        let n_read = from.read(&mut buffer[..most])?;
        if n_read == 0 {
            return Ok(length.is_none() && !is_chunked);
        }
        let n_bytes = u64::try_from(n_read).unwrap();
        if let Some(at) = flip.filter(|at| (done..done + n_bytes).contains(at)) {
            buffer[usize::try_from(at - done).unwrap()] ^= 4;
            *happened = true;
        }
        to.write_all(&buffer[..n_read])?;
        done += n_bytes;
        left -= n_bytes;
        if is_chunked && left == 0 {
            from.read_line(&mut String::new())?;
            to.write_all(b"\r\n")?;
        }
    }
}

/// Starts a proxy that connects every host to one server. It ends with the process.
pub(crate) fn tunnel_to(host: &str) -> SocketAddr {
    let host = host.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tunnel = move |mut client: TcpStream| -> io::Result<()> {
        let mut head = BufReader::new(client.try_clone()?);
        while head.by_ref().lines().next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let mut server = TcpStream::connect(&host)?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let (mut up, mut down) = (server.try_clone()?, client.try_clone()?);
        thread::spawn(move || io::copy(&mut server, &mut down));
        io::copy(&mut head, &mut up).map(drop)
    };
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let tunnel = tunnel.clone();
            thread::spawn(move || tunnel(client));
        }
    });
    address
}
