//! `--add-host`, `--ulimit` and `--shm-size`.

use std::net::IpAddr;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::executor;
use crate::plan::{self, RunSettings, Ulimit};

use super::build::BuildArgs;

/// Parses the options, and checks limits against those of this process.
pub(crate) fn settings(args: &BuildArgs) -> Result<RunSettings, CliError> {
    let usage = |text: String| CliError::new(format!("error: {text}"), Exit::Usage);
    let hosts = args.add_host.iter().map(|text| host(text)).collect::<Result<_, _>>();
    let ulimits = args.ulimit.iter().map(|text| ulimit(text)).collect::<Result<Vec<_>, _>>();
    let mut ulimits = ulimits.map_err(usage)?;
    ulimits.sort();
    let shm_bytes = args.shm_size.as_deref().map(|text| {
        let bytes = plan::parse_binary_size(text).filter(|bytes| *bytes > 0);
        bytes.ok_or_else(|| format!("--shm-size {text}: expected a size such as 128m"))
    });
    let shm_bytes = shm_bytes.transpose().map_err(usage)?;
    let timeout = args.patience.step_timeout;
    Ok(RunSettings { hosts: hosts.map_err(usage)?, ulimits, shm_bytes, timeout })
}

/// Parses `NAME:IP` or `NAME=IP`. An IPv6 address may be in brackets.
fn host(text: &str) -> Result<(String, String), String> {
    let bad = |why: &str| format!("--add-host {text}: {why}");
    let at = text.find('=').or_else(|| text.find(':'));
    let (name, address) = at
        .and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?)))
        .ok_or_else(|| bad("expected NAME:IP"))?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad("expected a host name without spaces"));
    }
    if address == "host-gateway" {
        return Err(bad(
            "host-gateway is not supported: steps share the network of the host, use 127.0.0.1",
        ));
    }
    let inner = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let address: IpAddr =
        inner.unwrap_or(address).parse().map_err(|_bad| bad("expected an IP address"))?;
    Ok((name.to_owned(), address.to_string()))
}

/// Parses `TYPE=SOFT[:HARD]`. -1 and `unlimited` mean no limit.
fn ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = |why: &str| format!("--ulimit {text}: {why}");
    let (name, limits) = text.split_once('=').ok_or_else(|| bad("expected TYPE=SOFT[:HARD]"))?;
    let resource = executor::resource(name).ok_or_else(|| bad("unknown limit"))?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse().map_err(|_bad| bad("expected numbers")),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(bad("the soft limit is above the hard one"));
    }
    let own = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    if hard > own && !executor::may_raise_limits() {
        let why = format!("an unprivileged process may set at most {own}");
        return Err(bad(&why));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_name_and_an_address() {
        for (text, want) in [
            ("a.example:10.1.2.3", Ok(("a.example", "10.1.2.3"))),
            ("a=10.1.2.3", Ok(("a", "10.1.2.3"))),
            ("a:::1", Ok(("a", "::1"))),
            ("a=[2001:db8::1]", Ok(("a", "2001:db8::1"))),
            ("a", Err("--add-host a: expected NAME:IP")),
            ("a:b", Err("--add-host a:b: expected an IP address")),
            (":1.2.3.4", Err("--add-host :1.2.3.4: expected a host name without spaces")),
        ] {
            let want = want.map(|(name, address)| (name.to_owned(), address.to_owned()));
            assert_eq!(host(text), want.map_err(str::to_owned), "{text}");
        }
        assert!(
            host("a:host-gateway").is_err_and(|why| why.contains("host-gateway is not supported"))
        );
    }

    #[test]
    fn limits_have_a_known_name_and_numbers() {
        let limit = |soft, hard| Ok(Ulimit { name: "core".to_owned(), soft, hard });
        for (text, want) in [
            ("core=0", limit(0, 0)),
            ("core=0:0", limit(0, 0)),
            ("core=1:0", Err("the soft limit is above the hard one")),
            ("core", Err("expected TYPE=SOFT[:HARD]")),
            ("core=x", Err("expected numbers")),
            ("cores=1", Err("unknown limit")),
        ] {
            let want = want.map_err(|why: &str| format!("--ulimit {text}: {why}"));
            assert_eq!(ulimit(text), want, "{text}");
        }
    }
}
