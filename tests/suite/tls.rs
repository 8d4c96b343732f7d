//! Registries that use TLS: the certificates that rbuild trusts and sends, and its settings for
//! them.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start programs and panic on failure"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild::oci::{Descriptor, Digest, LayerCompression, MediaType, Reference};
use rbuild::registry::{
    Client, ClientCertificate, Options, PushOutcome, RegistryError, RegistryOptions, Security,
};

use crate::support::certificates::{Authority, Certified, TokenServer, self_signed};
use crate::support::env::Env;
use crate::support::registry::{DockerRegistry, Setup, options};

/// Names in the certificates of the registries.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

/// A certificate authority, a registry with a certificate from it, and a directory for their files.
struct Place {
    directory: tempfile::TempDir,
    authority: Authority,
    /// Certificate of the authority, as PEM.
    ca: PathBuf,
    registry: DockerRegistry,
}

impl Place {
    fn new(setup: impl FnOnce(&Path, &Authority) -> Wanted) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let ca = authority.write(directory.path(), "ca");
        let tls = authority.certify(directory.path(), "server", &NAMES);
        let wanted = setup(directory.path(), &authority);
        let registry = DockerRegistry::start(&Setup {
            password: wanted.password,
            tokens: wanted.tokens.as_ref(),
            tls: Some(&tls),
            clients: wanted.clients.as_deref(),
        });
        // The registry has the token server's address, so that server must keep running.
        std::mem::forget(wanted.tokens);
        Self { directory, authority, ca, registry }
    }

    fn open() -> Self {
        Self::new(|_, _| Wanted::default())
    }

    fn host(&self) -> &str {
        self.registry.host()
    }

    fn options(&self) -> RegistryOptions {
        RegistryOptions { ca: vec![self.ca.clone()], ..RegistryOptions::default() }
    }
}

/// Requirements of a registry besides TLS.
#[derive(Default)]
struct Wanted {
    password: bool,
    tokens: Option<TokenServer>,
    clients: Option<PathBuf>,
}

fn client(host: &str, of_registry: RegistryOptions) -> Client {
    let registries = BTreeMap::from([(host.to_owned(), of_registry)]);
    Client::new(Options { registries, retries: 0, ..options() }).unwrap()
}

/// Pushes some bytes and pulls them back.
fn round_trip(client: &Client, host: &str) -> Result<(), RegistryError> {
    let name: Reference = format!("{host}/a:1").parse().unwrap();
    let bytes = vec![7; 5 << 20];
    let blob = Descriptor::of(MediaType::OciLayer(LayerCompression::None), &bytes);
    let open = || -> std::io::Result<Box<dyn std::io::Read + Send>> {
        Ok(Box::new(std::io::Cursor::new(bytes.clone())))
    };
    let pushed = client.push_blob(&name, &blob, None, &open, &|_| ())?;
    assert!(matches!(pushed, PushOutcome::Uploaded | PushOutcome::AlreadyThere));
    let mut pulled = Vec::new();
    client.pull_blob(&name, &blob, &mut pulled, &|_| ())?;
    assert_eq!(Digest::of(&pulled), blob.digest);
    Ok(())
}

/// Returns the error of a round trip with all its sources.
fn failure(client: &Client, host: &str) -> String {
    let error = round_trip(client, host).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    text
}

#[test]
fn registries_are_trusted_by_the_given_authority() {
    let place = Place::open();
    let host = place.host();
    round_trip(&client(host, place.options()), host).unwrap();

    // For all registries. A loopback address must be declared not to use plain http.
    let verified =
        RegistryOptions { security: Some(Security::Verified), ..RegistryOptions::default() };
    let registries = BTreeMap::from([(host.to_owned(), verified.clone())]);
    let ca = vec![place.ca.clone()];
    let all = Client::new(Options { registries, ca, ..options() }).unwrap();
    round_trip(&all, host).unwrap();

    let text = failure(&client(host, verified), host);
    let want = format!(
        "cannot make a secure connection to {host}; for plain http use --registry {host},http; for a private certificate or authority use --ca FILE: "
    );
    assert!(text.starts_with(&want) && text.contains("UnknownIssuer"), "{text}");

    let unverified =
        RegistryOptions { security: Some(Security::Unverified), ..RegistryOptions::default() };
    round_trip(&client(host, unverified), host).unwrap();
}

#[test]
fn certificates_of_another_authority_or_for_another_name_are_refused() {
    let place = Place::open();
    let other = Authority::new().write(place.directory.path(), "other");
    let given = RegistryOptions { ca: vec![other], ..RegistryOptions::default() };
    let text = failure(&client(place.host(), given), place.host());
    assert!(text.contains("UnknownIssuer") || text.contains("BadSignature"), "{text}");

    let elsewhere = place.authority.certify(place.directory.path(), "elsewhere", &["else.test"]);
    let registry = DockerRegistry::start(&Setup { tls: Some(&elsewhere), ..Setup::default() });
    let text = failure(&client(registry.host(), place.options()), registry.host());
    assert!(text.contains("not valid for name"), "{text}");
}

#[test]
fn self_signed_certificates_are_trusted_when_given() {
    let directory = tempfile::tempdir().unwrap();
    let of = |name, names: &[&str]| self_signed(directory.path(), name, names);
    let (own, other) = (of("own", &NAMES), of("other", &NAMES));
    let elsewhere = of("elsewhere", &["else.test"]);
    let trusting = |certified: &Certified| RegistryOptions {
        ca: vec![certified.certificate.clone()],
        ..RegistryOptions::default()
    };
    for (shown, given, is_good) in
        [(&own, &own, true), (&own, &other, false), (&elsewhere, &elsewhere, false)]
    {
        let registry = DockerRegistry::start(&Setup { tls: Some(shown), ..Setup::default() });
        let result = round_trip(&client(registry.host(), trusting(given)), registry.host());
        match result {
            Ok(()) => assert!(is_good),
            Err(error) => {
                assert!(!is_good && matches!(error, RegistryError::Tls { .. }), "{error}");
            }
        }
    }
}

#[test]
fn clients_show_the_certificate_that_is_wanted() {
    let place = Place::new(|directory, authority| {
        let clients = Some(authority.write(directory, "clients"));
        Wanted { clients, ..Wanted::default() }
    });
    let host = place.host();
    let text = failure(&client(host, place.options()), host);
    assert!(text.contains("cannot make a secure connection") || text.contains("broke"), "{text}");

    let of = |certified: &Certified| ClientCertificate {
        certificate: certified.certificate.clone(),
        key: certified.key.clone(),
    };
    let (own, other) = ["own", "other"]
        .map(|name| place.authority.certify(place.directory.path(), name, &["client.test"]))
        .into();
    let showing = |shown| RegistryOptions { client: Some(shown), ..place.options() };
    round_trip(&client(host, showing(of(&own))), host).unwrap();

    let mixed = ClientCertificate { key: other.key.clone(), ..of(&own) };
    let text = failure(&client(host, showing(mixed)), host);
    let want = format!(
        "cannot use {} for TLS: it does not match {}: ",
        other.key.display(),
        own.certificate.display()
    );
    assert!(text.starts_with(&want), "{text}");
}

#[test]
fn files_that_hold_nothing_of_use_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::open();
    let text = directory.path().join("text");
    fs::write(&text, "no certificate").unwrap();
    let missing = directory.path().join("missing");
    let with = |ca: &Path| RegistryOptions { ca: vec![ca.to_owned()], ..place.options() };
    let keyless = ClientCertificate { certificate: place.ca.clone(), key: place.ca.clone() };
    for (of_registry, path, why) in [
        (with(&text), &text, "it contains no PEM certificate"),
        (with(&missing), &missing, "No such file or directory (os error 2)"),
        (
            RegistryOptions { client: Some(keyless), ..place.options() },
            &place.ca,
            "it contains no unencrypted private key",
        ),
    ] {
        let got = failure(&client(place.host(), of_registry), place.host());
        assert_eq!(got, format!("cannot use {} for TLS: {why}", path.display()));
    }
}

#[test]
fn passwords_and_tokens_work_under_tls() {
    let place = Place::new(|_, _| Wanted { password: true, ..Wanted::default() });
    let registries = BTreeMap::from([(place.host().to_owned(), place.options())]);
    let with = |password| {
        let registries = registries.clone();
        Client::with_login(Options { registries, ..options() }, place.host(), "user", password)
    };
    round_trip(&with("geheim").unwrap(), place.host()).unwrap();
    let error = round_trip(&with("falsch").unwrap(), place.host()).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");

    // The token server is another host, trusted like the registry.
    let place = Place::new(|directory, authority| {
        let certified = authority.certify(directory, "tokens", &NAMES);
        Wanted { tokens: Some(TokenServer::with_tls(&certified)), ..Wanted::default() }
    });
    round_trip(&client(place.host(), place.options()), place.host()).unwrap();
    let place = Place::new(|_, _| Wanted { tokens: Some(TokenServer::new()), ..Wanted::default() });
    let text = failure(&client(place.host(), place.options()), place.host());
    assert!(text.contains("uses plain http, which is not secure"), "{text}");
}

#[test]
fn images_pushed_over_tls_are_read_by_skopeo() {
    let place = Place::open();
    let env = Env::new();
    env.base();
    let host = place.host();
    let name = format!("{host}/app:1");
    let flag = format!("--registry={host},ca={}", place.ca.display());
    env.build("FROM base:1\nCMD [\"x\"]\n", &["-t", &name, "--push", &flag]).ok();
    let certificates = place.directory.path().join("certs");
    fs::create_dir(&certificates).unwrap();
    fs::copy(&place.ca, certificates.join("ca.crt")).unwrap();
    let source = format!("docker://{name}");
    let inspected = Command::new("skopeo")
        .args(["inspect", "--cert-dir", &certificates.display().to_string(), &source])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inspected.stderr).into_owned();
    assert!(inspected.status.success(), "{text}");

    // The same with a configuration file, in another store. Paths in the file are relative to it.
    let mut env = Env::new();
    fs::create_dir_all(env.path("conf")).unwrap();
    fs::copy(&place.ca, env.path("conf/own.pem")).unwrap();
    let file = format!("[registry.\"{host}\"]\nca = [\"own.pem\"]\n");
    fs::write(env.path("conf/r.toml"), file).unwrap();
    env.rbuild(&["pull", &name])
        .fails(3, &[&format!("it requires https; use --registry {host},http=false")]);
    env.set("RBUILD_REGISTRIES", &env.shown("conf/r.toml"));
    env.rbuild(&["pull", &name]).ok();
    let built = env.build(&format!("FROM {name}\nLABEL a=b\n"), &["-t", "b", "--pull"]);
    built.ok();
}

#[test]
fn login_asks_the_registry_over_tls() {
    let place = Place::new(|_, _| Wanted { password: true, ..Wanted::default() });
    let env = Env::new();
    let host = place.host();
    let ca = format!("--registry={host},ca={}", place.ca.display());
    let login = |password, flags: &[&str]| {
        let args = ["login", "-u", "user", "-p", password, host];
        env.rbuild(&[flags, &args].concat())
    };
    login("geheim", &[&ca]).ok();
    login("falsch", &[&ca]).fails(3, &["refused access to"]);
    let verified = format!("--registry={host},http=false");
    login("geheim", &[&verified]).fails(3, &["cannot make a secure connection", "--ca FILE"]);
    login("geheim", &[&verified, "--ca", &place.ca.display().to_string()]).ok();
}

#[test]
fn settings_that_make_no_sense_are_usage_errors() {
    let mut env = Env::new();
    let pull = ["pull", "127.0.0.1:1/a"];
    env.rbuild(&["--registry=a,tls", "pull", "b"])
        .fails(2, &["--registry a,tls: unknown setting `tls`"]);
    for command in [&["images"][..], &["history", "a"], &["tag", "a", "b"], &["rmi", "a"], &["du"]]
    {
        let typed = [command, &["--ca", "x"]].concat();
        env.rbuild(&typed).fails(2, &["--ca and --registry have no effect"]);
    }
    env.set("RBUILD_REGISTRIES", &env.shown("none.toml"));
    env.rbuild(&pull).fails(2, &["none.toml"]);
    fs::write(env.path("none.toml"), "[registry.\"a:1\"]\nmirors = []\n").unwrap();
    env.rbuild(&pull).fails(2, &["none.toml is not valid: TOML parse error at line 2, column 1"]);
    fs::write(env.path("none.toml"), "[registry.\"a:1\"]\nkey = \"k\"\n").unwrap();
    let why = "none.toml is not valid: registry.\"a:1\": `cert` and `key` must be given together";
    env.rbuild(&pull).fails(2, &[why]);
}
