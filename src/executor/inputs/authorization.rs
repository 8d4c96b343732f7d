//! Authorization of downloads and repositories from the secrets of the build.

use base64::Engine as _;

use crate::executor::Services;

/// Returns the Authorization header for a URL's host, from the build's secrets.
pub(in crate::executor) fn http_authorization(
    services: &Services<'_>,
    url: &str,
) -> Option<String> {
    names_of_host(url).find_map(|host| {
        let header = secret(services, &format!("HTTP_AUTH_HEADER_{host}"));
        let token = || secret(services, &format!("HTTP_AUTH_TOKEN_{host}"));
        header.or_else(|| token().map(|token| format!("Bearer {token}")))
    })
}

/// Returns the Authorization header for a repository
/// (<https://docs.docker.com/build/building/secrets/#git-authentication-for-remote-contexts>).
pub(in crate::executor) fn git_authorization(
    services: &Services<'_>,
    remote: &str,
) -> Option<String> {
    let own = names_of_host(remote).map(|host| format!(".{host}"));
    own.chain([String::new()]).find_map(|host| {
        let header = secret(services, &format!("GIT_AUTH_HEADER{host}"));
        let token = || secret(services, &format!("GIT_AUTH_TOKEN{host}"));
        header.or_else(|| {
            let pair = format!("x-access-token:{}", token()?);
            Some(format!("basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        })
    })
}

/// Returns a URL's host as a secret may name it: with its port, and without.
fn names_of_host(url: &str) -> impl Iterator<Item = &str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let bare = host.rsplit_once(':').map(|(bare, _port)| bare);
    [Some(host), bare].into_iter().flatten()
}

/// Returns a secret that the caller gave the build, as text.
fn secret(services: &Services<'_>, name: &str) -> Option<String> {
    let value = services.provided.secrets.get(name)?;
    let value = String::from_utf8_lossy(value).trim_end_matches(['\r', '\n']).to_owned();
    Some(value).filter(|value| !value.is_empty())
}
