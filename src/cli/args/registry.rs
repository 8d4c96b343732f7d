//! Options about registries: `--ca`, `--registry`, logins and retries.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::registry::CloudLogin;

use super::docker::boolean;
use super::heading::GLOBAL;

/// Settings of registries, which take precedence over `registries.toml`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistryArgs {
    /// Trust these CA certificates (PEM), too
    ///
    /// Additional trusted CA certificates, for all registries. May be repeated.
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) ca: Vec<PathBuf>,
    /// Connection settings of a registry: http, mirror=URL, …
    ///
    /// The name of the registry, or `*` for all others, then any of http, http=auto, insecure,
    /// mirror=URL, mirror=HOST/PATH, only-mirrors, ca=FILE, and cert=FILE with key=FILE, separated by
    /// commas. May be repeated.
    #[arg(long = "registry", global = true, value_name = "HOST[,…]", help_heading = GLOBAL)]
    pub(crate) settings: Vec<String>,
    /// Number of retries of a failed transfer [default: 4]
    ///
    /// For requests to registries, buckets and downloads.
    #[arg(long, global = true, value_name = "N", help_heading = GLOBAL)]
    pub(crate) retry: Option<u32>,
    /// Pause before the first retry [default: 500ms]
    ///
    /// It doubles with each further one, up to a minute.
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        value_parser = duration,
        help_heading = GLOBAL
    )]
    pub(crate) retry_delay: Option<Duration>,
    /// File with logins, in place of docker's and podman's
    ///
    /// In the form of docker's config.json or podman's auth.json [default: $REGISTRY_AUTH_FILE, then
    /// the files of docker and podman].
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) authfile: Option<PathBuf>,
    /// Login for the registry of the named image
    ///
    /// For the registries of -t, or of the image that is pushed or pulled. Other users of the machine
    /// can see it on the command line: prefer `rbuild login`.
    #[arg(long, global = true, value_name = "USER:PASSWORD", help_heading = GLOBAL)]
    pub(crate) creds: Option<Creds>,
    /// Directory of CA certificates (*.crt) to trust, too
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub(crate) cert_dir: Option<PathBuf>,
    /// false: accept any certificate, and plain http
    ///
    /// For registries that have no settings of their own.
    #[arg(
        long,
        global = true,
        value_name = "BOOL",
        value_parser = boolean,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = GLOBAL
    )]
    pub(crate) tls_verify: Option<bool>,
    /// Built-in logins to use [default: all]
    ///
    /// Any of env, google, ecr, acr and gitlab, separated by commas; nothing for none. They apply to
    /// registries that no file has a login for.
    #[arg(
        long,
        global = true,
        value_name = "NAME[,…]",
        value_parser = cloud_logins,
        help_heading = GLOBAL
    )]
    pub(crate) credential_helpers: Option<CloudLogins>,
}

/// The value of `--credential-helpers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CloudLogins(pub(crate) Vec<CloudLogin>);

/// The value of `--creds`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Creds {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Omits the password.
impl fmt::Debug for Creds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Creds(..)")
    }
}

impl std::str::FromStr for Creds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (user, password) = text.split_once(':').ok_or("expected USER:PASSWORD")?;
        Ok(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

fn cloud_logins(text: &str) -> Result<CloudLogins, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let read = |name: &str| {
        let found = CloudLogin::ALL.into_iter().find(|login| login.name() == name);
        found.ok_or_else(|| {
            let known = CloudLogin::ALL.map(CloudLogin::name);
            let near = crate::diag::nearest(name, known);
            let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            format!("`{name}` is not one of {}{near}", known.join(", "))
        })
    };
    names.map(read).collect::<Result<_, _>>().map(CloudLogins)
}

/// Reads a time such as `2s` or `1m30s`; a number alone is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_bad| "expected a time such as 2s".to_owned())
}

impl RegistryArgs {
    /// Returns the first of the options that was given, with its verb.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let all = [
            (!self.ca.is_empty() || !self.settings.is_empty(), "--ca and --registry have"),
            (self.retry.is_some(), "--retry has"),
            (self.retry_delay.is_some(), "--retry-delay has"),
            (self.authfile.is_some(), "--authfile has"),
            (self.creds.is_some(), "--creds has"),
            (self.cert_dir.is_some(), "--cert-dir has"),
            (self.tls_verify.is_some(), "--tls-verify has"),
            (self.credential_helpers.is_some(), "--credential-helpers has"),
        ];
        all.into_iter().find(|(is_given, _)| *is_given).map(|(_, name)| name)
    }
}
