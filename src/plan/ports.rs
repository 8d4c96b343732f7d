//! Expands the words of EXPOSE to ports (<https://docs.docker.com/reference/dockerfile/#expose>).

use std::net::IpAddr;

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::Word;
use crate::limits::MAX_EXPOSED_PORTS;

/// Returns all ports of the words, as `80/tcp`, in the order of BuildKit's history.
///
/// BuildKit sorts the words before it expands them (`instructions.parseExpose`), and lists a port
/// as often as it is named (`dockerfile2llb/convert_expose.go`). `n_before` is the number of ports
/// from earlier instructions of the stage.
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
            ports.extend(parse_ports(&port).map_err(|why| {
                let message = format!("EXPOSE {port}: {why}");
                Diagnostic::error(codes::BAD_PORT, word.span, message)
                    .help("write PORT, FIRST-LAST or PORT/udp, as in `EXPOSE 8080 53/udp`")
            })?);
            if n_before + ports.len() > MAX_EXPOSED_PORTS {
                let message = format!("a stage exposes more than {MAX_EXPOSED_PORTS} ports");
                let error = Diagnostic::error(codes::BAD_PORT, word.span, message);
                return Err(Box::new(error.help("remove duplicate port ranges")));
            }
        }
    }
    Ok(ports)
}

/// Parses a word of EXPOSE, such as `80`, `8000-8003/udp` or `127.0.0.1:80:80`, and returns its ports,
/// as `80/tcp`.
fn parse_ports(word: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => return Err(format!("invalid protocol `{other}`: it must be tcp, udp or sctp")),
    };
    if ports.is_empty() {
        return Err("the port is missing".to_owned());
    }
    let (host, container) = parts(ports)?;
    let (first, last) = range(container)?;
    // A range of host ports may map to one container port; otherwise ports map in pairs.
    if let Some((first_host, last_host)) = host
        && first != last
        && last_host - first_host != last - first
    {
        return Err(format!("the port ranges in `{ports}` differ in length"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// First and last port of a range.
type PortRange = (u16, u16);

/// Splits `[[ip:]host:]container` into the host's ports and the container's part.
fn parts(ports: &str) -> Result<(Option<PortRange>, &str), String> {
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

fn range(text: &str) -> Result<PortRange, String> {
    let error =
        || format!("invalid containerPort: {text}: expected a number up to 65535, or a range");
    let number = |text: &str| text.parse::<u16>().map_err(|_bad| error());
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("invalid range `{text}`: it ends before it starts"));
            }
            Ok((first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_ports;

    #[test]
    fn every_form_of_a_port_is_parsed() {
        for (word, want) in [
            ("80", vec!["80/tcp"]),
            ("53/UDP", vec!["53/udp"]),
            ("8000-8002", vec!["8000/tcp", "8001/tcp", "8002/tcp"]),
            ("8080:80", vec!["80/tcp"]),
            ("127.0.0.1:8080:80/sctp", vec!["80/sctp"]),
            ("8080-8081:80-81", vec!["80/tcp", "81/tcp"]),
            ("8080-8089:80", vec!["80/tcp"]),
        ] {
            assert_eq!(parse_ports(word).unwrap(), want);
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
            assert!(parse_ports(bad).unwrap_err().len() > 10, "{bad}");
        }
    }
}
