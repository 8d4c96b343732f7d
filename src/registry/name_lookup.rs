//! Name lookup with a time limit. Fails with an error where the HTTP client's own resolver would
//! panic.
//!
//! getaddrinfo(3) cannot be interrupted, so it runs on a thread of its own.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, RecvTimeoutError};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver as ResolverTrait};
use ureq::unversioned::transport::NextTimeout;

use crate::pool;

/// The maximum number of addresses that a connection tries, given by [`ResolvedSocketAddrs`].
const MAX_ADDRESSES: usize = 16;

/// The name resolver of the HTTP client.
#[derive(Debug)]
pub(super) struct Resolver;

impl ResolverTrait for Resolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or_else(|| Error::BadUri(uri.to_string()))?;
        let port = uri.port_u16().or_else(|| match uri.scheme_str() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            _ => None,
        });
        let port = port.ok_or_else(|| Error::BadUri(uri.to_string()))?;
        let found = look_up(host.trim_start_matches('[').trim_end_matches(']'), port, timeout)?;
        let mut addresses = self.empty();
        for address in config.ip_family().keep_wanted(found.into_iter()).take(MAX_ADDRESSES) {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

fn look_up(host: &str, port: u16, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = (host.to_owned(), port);
    if timeout.after.is_not_happening() {
        return Ok(name.to_socket_addrs()?.collect());
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    pool::background(move || {
        let found = name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // The receiver is gone after the time limit.
        drop(sender.send(found));
    })?;
    match receiver.recv_timeout(*timeout.after) {
        Ok(found) => Ok(found?),
        Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
        Err(RecvTimeoutError::Disconnected) => {
            Err(io::Error::other("the thread that looks a name up ended early").into())
        }
    }
}
