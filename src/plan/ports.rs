//! EXPOSE: what its words mean.

use std::net::IpAddr;

/// Reads one word of EXPOSE, such as `80`, `8000-8003/udp` or `127.0.0.1:80:80`, into the ports
/// that it exposes, as `80/tcp`.
pub(super) fn exposed(word: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => return Err(format!("invalid protocol `{other}`: it must be tcp, udp or sctp")),
    };
    if ports.is_empty() {
        return Err("there is no port".to_owned());
    }
    let container = container_part(ports)?;
    let (first, last) = range(container)?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// The container's part of `[[ip:]host:]container`; the host's parts must be well formed.
fn container_part(ports: &str) -> Result<&str, String> {
    let Some((before, container)) = ports.rsplit_once(':') else { return Ok(ports) };
    let (ip, host) = match before.rsplit_once(':') {
        Some((ip, host)) => (Some(ip.trim_start_matches('[').trim_end_matches(']')), host),
        None => (None, before),
    };
    if !host.is_empty() {
        range(host).map_err(|_bad| format!("invalid hostPort: {host}"))?;
    }
    match ip {
        Some(ip) if ip.parse::<IpAddr>().is_err() && !ip.is_empty() => {
            Err(format!("invalid IP address: {ip}"))
        }
        _ => Ok(container),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
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
        ] {
            assert_eq!(exposed(word).unwrap(), want);
        }
        for bad in ["x", "70000", "80/icmp", "9-1", "10.0.0.1:80", "", "/tcp", "a:1:80"] {
            assert!(exposed(bad).unwrap_err().len() > 10, "{bad}");
        }
    }
}
