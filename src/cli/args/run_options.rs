//! `--add-host`, `--ulimit` and `--shm-size`.

use std::net::IpAddr;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::executor;
use crate::plan::{self, Dns, RunSettings, Ulimit, Volume, VolumeAccess};
use crate::sandbox::CapabilityChanges;

use super::build::{BuildArgs, NetworkArg};

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
    let volumes = args.podman.volume.iter().map(|text| volume(text)).collect::<Result<_, _>>();
    let (add_caps, drop_caps) = capabilities(args).map_err(usage)?;
    Ok(RunSettings {
        add_caps,
        drop_caps,
        hosts: hosts.map_err(usage)?,
        ulimits,
        shm_bytes,
        volumes: volumes.map_err(usage)?,
        dns: dns(args).map_err(usage)?,
        timeout: args.patience.step_timeout,
    })
}

/// Reads `--cap-add` and `--cap-drop`. Names may be lower case, without `CAP_`, and in lists.
fn capabilities(args: &BuildArgs) -> Result<(Vec<String>, Vec<String>), String> {
    let names = |texts: &[String]| {
        let texts = texts.iter().flat_map(|text| text.split(','));
        let names = texts.map(|name| name.trim().to_ascii_uppercase());
        let full = |name: String| match name.as_str() {
            "ALL" => name,
            other if other.starts_with("CAP_") => name,
            other => format!("CAP_{other}"),
        };
        let mut names: Vec<String> = names.filter(|name| !name.is_empty()).map(full).collect();
        names.sort();
        names.dedup();
        names
    };
    let (add, drop) = (names(&args.podman.cap_add), names(&args.podman.cap_drop));
    if add.iter().any(|name| name == "ALL") {
        return Err("--cap-add=ALL: use `RUN --security=insecure` with --allow security.insecure"
            .to_owned());
    }
    match CapabilityChanges::of_names(&add, &drop) {
        Ok(_changes) => Ok((add, drop)),
        Err(name) => {
            Err(format!("--cap-add, --cap-drop: {name} is not a capability (capabilities(7))"))
        }
    }
}

/// Reads the options about name resolution (resolv.conf(5)).
fn dns(args: &BuildArgs) -> Result<Dns, String> {
    let podman = &args.podman;
    for server in &podman.dns {
        if server.parse::<IpAddr>().is_err() {
            return Err(format!("--dns {server}: expected the address of a name server"));
        }
    }
    for (name, words) in
        [("--dns-search", &podman.dns_search), ("--dns-option", &podman.dns_option)]
    {
        if let Some(bad) =
            words.iter().find(|word| word.is_empty() || word.contains(char::is_whitespace))
        {
            return Err(format!("{name} {bad}: expected one word"));
        }
    }
    let dns = Dns {
        servers: podman.dns.clone(),
        search: podman.dns_search.clone(),
        options: podman.dns_option.clone(),
    };
    if args.network == NetworkArg::None && !dns.is_empty() {
        return Err(
            "--dns, --dns-search and --dns-option have no effect with --network=none".to_owned()
        );
    }
    Ok(dns)
}

/// Parses `HOST:TARGET[:OPTIONS]`.
fn volume(text: &str) -> Result<Volume, String> {
    let bad = |why: &str| format!("--volume {text}: {why}");
    let mut parts = text.split(':');
    let source = parts.next().filter(|source| !source.is_empty());
    let source = source.ok_or_else(|| bad("the directory of this machine is missing"))?;
    let target = parts.next().filter(|target| target.starts_with('/'));
    let target =
        target.ok_or_else(|| bad("expected HOST:TARGET, with an absolute path in the step"))?;
    let options = parts.next().unwrap_or_default();
    if parts.next().is_some() {
        return Err(bad("expected HOST:TARGET[:OPTIONS]"));
    }
    let clean = plan::clean_path(target);
    if clean == "/" || ["/proc", "/sys", "/dev"].contains(&clean.as_str()) {
        return Err(bad("this path of the step cannot be a volume"));
    }
    let mut access = VolumeAccess::Writable;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" => access = VolumeAccess::Writable,
            "ro" => access = VolumeAccess::ReadOnly,
            "O" => access = VolumeAccess::Discarding,
            // Labels of SELinux are not changed: steps have the context of rbuild.
            "z" | "Z" | "rprivate" | "private" | "rbind" | "bind" => {}
            "U" => {
                return Err(bad(
                    "`U` would change the owners of files of this machine; chown them first",
                ));
            }
            other => {
                return Err(bad(&format!("unknown option `{other}`: use ro, rw, O, z or Z")));
            }
        }
    }
    let source = std::path::absolute(source).map_err(|error| bad(&error.to_string()))?;
    if !source.exists() {
        return Err(bad("the file or directory does not exist on this machine"));
    }
    Ok(Volume { source, target: clean, access })
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
    fn volumes_have_two_paths_and_options() {
        for (text, want) in [
            ("/:/v", Ok(("/", "/v", VolumeAccess::Writable))),
            ("/tmp:/a/../v/:ro,z", Ok(("/tmp", "/v", VolumeAccess::ReadOnly))),
            ("/tmp:/v:Z,O", Ok(("/tmp", "/v", VolumeAccess::Discarding))),
            ("/tmp", Err("expected HOST:TARGET, with an absolute path in the step")),
            ("/tmp:v", Err("expected HOST:TARGET, with an absolute path in the step")),
            (":/v", Err("the directory of this machine is missing")),
            ("/tmp:/v:ro:x", Err("expected HOST:TARGET[:OPTIONS]")),
            ("/tmp:/v:exec", Err("unknown option `exec`: use ro, rw, O, z or Z")),
            ("/tmp:/proc/", Err("this path of the step cannot be a volume")),
            ("/none/at/all:/v", Err("the file or directory does not exist on this machine")),
        ] {
            let want = want.map_err(|why: &str| format!("--volume {text}: {why}"));
            let want = want.map(|(source, target, access)| Volume {
                source: source.into(),
                target: target.to_owned(),
                access,
            });
            assert_eq!(volume(text), want, "{text}");
        }
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
