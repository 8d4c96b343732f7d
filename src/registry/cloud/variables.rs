//! Logins in environment variables: those of GitLab's jobs, and kaniko's for each registry.

use super::exchange::{Exchange, Login};

/// The registries of a job of GitLab, by the variables that name registry, user and password
/// (<https://docs.gitlab.com/ci/variables/predefined_variables/>).
const GITLAB: [[&str; 3]; 2] = [
    ["CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"],
    ["CI_DEPENDENCY_PROXY_SERVER", "CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD"],
];
/// User name of a job's token.
const JOB_USER: &str = "gitlab-ci-token";

/// Returns the login of the job of GitLab that runs this process, if `host` is one of its registries.
pub(super) fn gitlab(exchange: &Exchange<'_>, host: &str) -> Option<Login> {
    GITLAB.iter().find_map(|[server, user, password]| {
        if exchange.variable(server).is_none_or(|server| without_port(server) != without_port(host))
        {
            return None;
        }
        let pair = exchange.variable(user).zip(exchange.variable(password));
        let job = || Some((JOB_USER, exchange.variable("CI_JOB_TOKEN")?));
        let (user, password) = pair.or_else(job)?;
        Some(Login::of_user(user, password, None))
    })
}

/// Removes the default port of https: `CI_DEPENDENCY_PROXY_SERVER` has it.
fn without_port(host: &str) -> &str {
    host.strip_suffix(":443").unwrap_or(host)
}

/// Returns the login in `KANIKO_<HOST>_USER` and `KANIKO_<HOST>_PASSWORD`. Dots and dashes of the host are
/// underscores, and leading labels may be missing: `KANIKO_EXAMPLE_COM_USER` is for all its subdomains.
pub(super) fn own(exchange: &Exchange<'_>, host: &str) -> Option<Login> {
    let host = if host == "docker.io" { "index.docker.io" } else { host };
    let name = host.to_ascii_uppercase().replace('-', "_");
    let labels: Vec<&str> = name.split('.').collect();
    (0..labels.len()).find_map(|start| {
        let name = labels.get(start..)?.join("_");
        let variable = |what: &str| exchange.variables.get(&format!("KANIKO_{name}_{what}"));
        Some(Login::of_user(variable("USER")?, variable("PASSWORD")?, None))
    })
}
