//! EXPOSE: what its words mean.

use std::net::IpAddr;

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::Word;
use crate::limits::MAX_EXPOSED_PORTS;

/// Returns every port that the words name, as `80/tcp`, in the order of BuildKit's history.
///
/// BuildKit sorts the words before it expands them (`instructions.parseExpose`), and lists a port
/// as often as it is named (`dockerfile2llb/convert_expose.go`). `n_before` is the number of ports
/// that earlier instructions of the stage have listed.
pub(super) fn listed(
    words: &[Word],
    n_before: usize,
    expand: impl Fn(&Word) -> Result<Vec<String>, Box<Diagnostic>>,
) -> Result<Vec<String>, Box<Diagnostic>> {
    let mut sorted: Vec<&Word> = words.iter().collect();
    sorted.sort_by(|a, b| a.value.cmp(&b.value));
    let mut ports = Vec::new();
    for word in sorted {
        for port in expand(word)? {
            ports.extend(exposed(&port).map_err(|why| {
                let message = format!("EXPOSE {port}: {why}");
                Diagnostic::error(codes::BAD_PORT, word.span, message)
                    .help("write PORT, FIRST-LAST or PORT/udp, as in `EXPOSE 8080 53/udp`")
            })?);
            if n_before + ports.len() > MAX_EXPOSED_PORTS {
                let message = format!("a stage exposes more than {MAX_EXPOSED_PORTS} ports");
                let error = Diagnostic::error(codes::BAD_PORT, word.span, message);
                return Err(Box::new(error.help("remove the ranges that are named twice")));
            }
        }
    }
    Ok(ports)
}

/// Reads one word of EXPOSE, such as `80`, `8000-8003/udp` or `127.0.0.1:80:80`, into the ports
/// that it exposes, as `80/tcp`.
fn exposed(word: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => return Err(format!("invalid protocol `{other}`: it must be tcp, udp or sctp")),
    };
    if ports.is_empty() {
        return Err("there is no port".to_owned());
    }
    let (host, container) = parts(ports)?;
    let (first, last) = range(container)?;
    // A range of the host's ports may offer one port of the container, else they go in pairs.
    if let Some((first_host, last_host)) = host
        && first != last
        && last_host - first_host != last - first
    {
        return Err(format!("the ranges in `{ports}` are not of one length"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// First and last port.
type Ports = (u16, u16);

/// The host's ports and the container's part of `[[ip:]host:]container`.
fn parts(ports: &str) -> Result<(Option<Ports>, &str), String> {
    let Some((before, container)) = ports.rsplit_once(':') else { return Ok((None, ports)) };
    let (ip, host) = match before.rsplit_once(':') {
        Some((ip, host)) => (Some(ip.trim_start_matches('[').trim_end_matches(']')), host),
        None => (None, before),
    };
    let host = match host {
        "" => None,
        host => Some(range(host).map_err(|_bad| format!("invalid hostPort: {host}"))?),
    };
    match ip {
        Some(ip) if ip.parse::<IpAddr>().is_err() && !ip.is_empty() => {
            Err(format!("invalid IP address: {ip}"))
        }
        _ => Ok((host, container)),
    }
}

fn range(text: &str) -> Result<Ports, String> {
    let error = || {
        format!("invalid containerPort: {text}: it must be a number up to 65535 or a range of two")
    };
    let number = |text: &str| text.parse::<u16>().map_err(|_bad| error());
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("invalid range `{text}`: its end comes before its start"));
            }
            Ok((first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::exposed;

    #[test]
    fn exposed_reads_every_form() {
        for (word, want) in [
            ("80", vec!["80/tcp"]),
            ("53/UDP", vec!["53/udp"]),
            ("8000-8002", vec!["8000/tcp", "8001/tcp", "8002/tcp"]),
            ("8080:80", vec!["80/tcp"]),
            ("127.0.0.1:8080:80/sctp", vec!["80/sctp"]),
            ("8080-8081:80-81", vec!["80/tcp", "81/tcp"]),
            ("8080-8089:80", vec!["80/tcp"]),
        ] {
            assert_eq!(exposed(word).unwrap(), want);
        }
        for bad in [
            "x",
            "70000",
            "80/icmp",
            "9-1",
            "10.0.0.1:80",
            "",
            "/tcp",
            "a:1:80",
            "1:80-81",
            "1-3:80-81",
        ] {
            assert!(exposed(bad).unwrap_err().len() > 10, "{bad}");
        }
    }
}
