//! A relay in front of a server that counts the bytes in both directions.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start threads and panic on failure"
)]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A relay on a free loopback port, stopped on drop.
pub(crate) struct ByteCounter {
    address: SocketAddr,
    shared: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    ended: AtomicBool,
}

impl ByteCounter {
    pub(crate) fn new(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Counts::default());
        let (counts, upstream) = (Arc::clone(&shared), upstream.to_owned());
        thread::spawn(move || {
            for client in listener.incoming() {
                if counts.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (counts, upstream) = (Arc::clone(&counts), upstream.clone());
                thread::spawn(move || connect(&client?, &upstream, &counts));
            }
        });
        Self { address, shared }
    }

    /// Returns host and port of the relay.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the numbers of bytes to the server and from it since the last call.
    pub(crate) fn take(&self) -> (u64, u64) {
        let taken = |count: &AtomicU64| count.swap(0, Ordering::SeqCst);
        (taken(&self.shared.up), taken(&self.shared.down))
    }
}

impl Drop for ByteCounter {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}

fn connect(client: &TcpStream, upstream: &str, counts: &Arc<Counts>) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    let (from, to, shared) = (client.try_clone()?, server.try_clone()?, Arc::clone(counts));
    let up = thread::spawn(move || relay(from, &to, &shared.up));
    drop(relay(server, client, &counts.down));
    drop(up.join());
    Ok(())
}

fn relay(mut from: TcpStream, mut to: &TcpStream, count: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n_read = from.read(&mut buffer)?;
        if n_read == 0 {
            return to.shutdown(Shutdown::Write);
        }
        count.fetch_add(u64::try_from(n_read).unwrap(), Ordering::SeqCst);
        to.write_all(buffer.get(..n_read).unwrap_or_default())?;
    }
}
