//! Kaniko's contexts, as contexts of rbuild.

use std::path::{Path, PathBuf};

use base64::Engine as _;

use crate::cli::args::docker::boolean;

use super::flags::Given;
use super::{Host, Line};

/// The context of kaniko if there is no `--context`.
const DEFAULT: &str = "/workspace/";
/// Variable that gets the login for the repository.
const GIT_HEADER: &str = "RBUILD_GIT_AUTH_HEADER";

/// Adds the context and the Dockerfile to the command line.
pub(super) fn add(given: &Given, host: &Host<'_>, line: &mut Line) -> Result<(), String> {
    if given.has("bucket") {
        return Err(google_storage("--bucket"));
    }
    let context = given.last("context").unwrap_or(DEFAULT);
    let (scheme, rest) = context.split_once("://").unwrap_or(("dir", context));
    let below = given.last("context-sub-path").unwrap_or_default();
    let dockerfile = given.last("dockerfile").unwrap_or("Dockerfile");
    if dockerfile.starts_with("http://") || dockerfile.starts_with("https://") {
        return Err(format!(
            "--dockerfile {dockerfile}: rbuild does not download Dockerfiles; fetch it first, or use `-` and a pipe"
        ));
    }
    match scheme {
        "dir" => {
            let directory =
                if below.is_empty() { PathBuf::from(rest) } else { Path::new(rest).join(below) };
            // Kaniko looks in its working directory first.
            let is_here = (host.is_file)(Path::new(dockerfile));
            let file = if is_here { PathBuf::from(dockerfile) } else { directory.join(dockerfile) };
            line.option("--file", file.display().to_string());
            line.context = directory.display().to_string();
            return Ok(());
        }
        "tar" if rest == "stdin" => line.context = "-".to_owned(),
        "tar" | "s3" => context.clone_into(&mut line.context),
        "git" => line.context = repository(rest, below, given, host)?,
        "https" if is_azure(rest) => {
            return Err(format!(
                "--context {}: rbuild does not sign requests to Azure; give an address with a SAS token",
                crate::plan::redacted(context)
            ));
        }
        "https" => context.clone_into(&mut line.context),
        "gs" => return Err(google_storage(context)),
        other => {
            return Err(format!(
                "--context {other}://…: kaniko's contexts are dir://, tar://, git://, s3://, gs:// and https://"
            ));
        }
    }
    if scheme == "git" {
        authorize(rest, host, line);
    } else if !below.is_empty() {
        line.option("--context-subdir", below.to_owned());
    }
    line.option("--file", dockerfile.to_owned());
    Ok(())
}

fn google_storage(what: &str) -> String {
    format!(
        "{what}: rbuild does not read buckets of Google; use `gcloud storage cat gs://… | executor \
         --context tar://stdin`"
    )
}

/// Returns whether an address is one of Azure's blob storage, without a signature of its own.
fn is_azure(rest: &str) -> bool {
    let host = rest.split('/').next().unwrap_or_default();
    host.contains(".blob.core.") && !rest.contains("sig=")
}

/// Returns the URL of `HOST/PATH[#REF[#COMMIT]]`. Kaniko's prefix `git://` stands for https.
fn repository(rest: &str, below: &str, given: &Given, host: &Host<'_>) -> Result<String, String> {
    let method = (host.variable)("GIT_PULL_METHOD");
    let scheme = if method.as_deref() == Some("http") { "http" } else { "https" };
    let mut parts = rest.split('#');
    let address = parts.next().unwrap_or_default();
    let (reference, commit) = (parts.next(), parts.next());
    let options = git_options(given)?;
    let reference = commit.or(options.branch.as_deref()).or(reference);
    let mut url = format!("git+{scheme}://{address}?submodules={}", options.submodules);
    if let Some(reference) = reference.filter(|text| !text.is_empty()) {
        url.push_str(&format!("&ref={reference}"));
    }
    if !below.is_empty() {
        url.push_str(&format!("&subdir={below}"));
    }
    Ok(url)
}

/// The values of `--git` that have an effect.
pub(super) struct GitOptions {
    branch: Option<String>,
    submodules: bool,
}

/// Reads the values of `--git`. The depth of the clone has no effect on the files of a commit.
pub(super) fn git_options(given: &Given) -> Result<GitOptions, String> {
    let mut options = GitOptions { branch: None, submodules: false };
    for pair in given.all("git").iter().flat_map(|text| text.split(',')) {
        let bad = |why: &str| format!("--git {pair}: {why}");
        let (name, value) = pair.split_once('=').ok_or_else(|| bad("expected NAME=VALUE"))?;
        let switch = || boolean(value).map_err(|why| bad(&why));
        match name {
            "branch" => options.branch = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "recurse-submodules" => options.submodules = switch()?,
            "single-branch" => drop(switch()?),
            "depth" => drop(value.parse::<i64>().map_err(|_bad| bad("expected a number"))?),
            "insecure-skip-tls" if switch()? => {
                return Err(bad(
                    "rbuild verifies certificates of repositories; add the authority with \
                                SSL_CERT_FILE=FILE",
                ));
            }
            "insecure-skip-tls" => {}
            _ => return Err(bad("kaniko has no such option")),
        }
    }
    Ok(options)
}

/// Passes the login in `GIT_TOKEN`, or `GIT_USERNAME` and `GIT_PASSWORD`, to the host of the repository.
fn authorize(rest: &str, host: &Host<'_>, line: &mut Line) {
    let variable = |name: &str| (host.variable)(name).unwrap_or_default();
    let (user, password, token) =
        (variable("GIT_USERNAME"), variable("GIT_PASSWORD"), variable("GIT_TOKEN"));
    let pair = match (token.is_empty(), user.is_empty() && password.is_empty()) {
        (false, _) => format!("{token}:"),
        (true, false) => format!("{user}:{password}"),
        (true, true) => return,
    };
    let header = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let server = rest.split(['/', '#', '?']).next().unwrap_or_default();
    let server = server.rsplit('@').next().unwrap_or_default();
    line.variables.push((GIT_HEADER.to_owned(), header));
    line.option("--secret", format!("id=GIT_AUTH_HEADER.{server},env={GIT_HEADER}"));
}
