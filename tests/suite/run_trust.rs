//! Certificates and proxies of a company's network in RUN steps: `--ca-for-run` and `--http-proxy`.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::certificates::Authority;
use crate::support::container::copy_libraries;
use crate::support::env::Env;
use crate::support::registry::{DockerRegistry, Setup};

/// The bundle where curl of Debian looks for it.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const ISOLATIONS: [&str; 3] = ["namespace", "chroot", "emulated"];

/// An image with curl and a bundle, and a server whose certificate is from an authority of its own.
struct Company {
    env: Env,
    server: DockerRegistry,
    /// The bundle of the image: the certificate of another authority.
    own: String,
}

impl Company {
    fn new() -> Self {
        let env = Env::new();
        env.base();
        // The server's certificate must not have the name of its issuer: it would look self-signed.
        let authority = Authority::named("company");
        authority.write(&env.path("."), "ca");
        let tls = authority.certify(&env.path("."), "server", &["127.0.0.1"]);
        let server = DockerRegistry::start(&Setup {
            password: false,
            tokens: None,
            tls: Some(&tls),
            clients: None,
        });
        let curl = env.path("context/curl");
        fs::create_dir_all(curl.join("usr/bin")).unwrap();
        fs::copy("/usr/bin/curl", curl.join("usr/bin/curl")).expect("curl is installed");
        copy_libraries(Path::new("/usr/bin/curl"), &curl);
        fs::create_dir_all(curl.join("etc/ssl/certs")).unwrap();
        let other = Authority::named("another").write(&env.path("."), "other");
        let own = fs::read_to_string(other).unwrap();
        fs::write(curl.join(BUNDLE.trim_start_matches('/')), &own).unwrap();
        Self { env, server, own }
    }

    fn dockerfile(&self, run: &str) -> String {
        let run = run.replace("SERVER", &format!("https://{}/v2/", self.server.host()));
        format!("FROM base:1\nCOPY curl /\nRUN {run}\n")
    }
}

/// Returns the files below a directory that contain the body of a certificate.
fn leaks(directory: &Path, certificate: &str) -> Vec<PathBuf> {
    let line = certificate.lines().nth(1).unwrap();
    let files = walkdir::WalkDir::new(directory).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path);
    files.filter(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains(line)).collect()
}

#[test]
fn priv_curl_trusts_the_server_by_bundle_and_by_variable() {
    let company = Company::new();
    let by_bundle = company.dockerfile("env -i /usr/bin/curl -sSf SERVER && echo yes > /yes");
    let by_variable =
        company.dockerfile("rm /etc/ssl/certs/*; /usr/bin/curl -sSf SERVER && echo yes > /yes");
    for isolation in ISOLATIONS {
        let isolated = format!("--isolation={isolation}");
        let store = format!("store-{isolation}");
        company.env.base_in(&store);
        for (text, has_bundle) in [(&by_bundle, true), (&by_variable, false)] {
            company.env.write("Dockerfile", text);
            let build = |more: &[&str]| {
                let args = [&["build", "context", &isolated, "--no-cache"], more].concat();
                company.env.command_in(&store, &args).output().unwrap()
            };
            let failed = build(&[]);
            let errors = String::from_utf8_lossy(&failed.stderr).into_owned();
            assert_eq!(failed.status.code(), Some(1), "{isolation}: {errors}");
            // Without a bundle, curl complains about that.
            let is_hinted = errors.contains("with --ca-for-run FILE");
            assert_eq!(is_hinted, has_bundle, "{isolation}: {errors}");
            let done = build(&["--ca-for-run=ca.crt"]);
            assert!(
                done.status.success(),
                "{isolation}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }
}

#[test]
fn priv_certificates_are_in_no_layer_key_or_history() {
    let company = Company::new();
    let env = &company.env;
    let certificate = fs::read_to_string(env.path("ca.crt")).unwrap();
    // Copied, appended to, replaced, linked and read-only: whatever a step may do with a bundle.
    let text = company.dockerfile(&format!(
        "cp {BUNDLE} /copy && cat $SSL_CERT_FILE $NODE_EXTRA_CA_CERTS > /both && chmod 400 /both && \\\n\
         echo appended >> {BUNDLE} && ln {BUNDLE} /link && env > /dev/null && test -s $PIP_CERT"
    ));
    let mut digests = Vec::new();
    for isolation in ISOLATIONS {
        for option in ["--ca-for-run=ca.crt", "--ca-for-run=server.crt"] {
            let out = format!("out-{isolation}-{}", digests.len());
            let store = format!("store-{isolation}-{}", digests.len());
            env.base_in(&store);
            env.write("Dockerfile", &text);
            let isolated = format!("--isolation={isolation}");
            let dest = format!("--output=type=local,dest={out}");
            let args =
                ["build", "context", &isolated, option, "--reproducible", "--iidfile=iid", &dest];
            let done = env.command_in(&store, &args).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            digests.push(fs::read_to_string(env.path("iid")).unwrap());
            assert_eq!(leaks(&env.path(&out), &certificate), Vec::<PathBuf>::new(), "{isolation}");
            let read = |name: &str| fs::read_to_string(env.path(&out).join(name)).unwrap();
            let own = &company.own;
            assert_eq!(read("copy"), *own);
            assert_eq!(read(BUNDLE.trim_start_matches('/')), format!("{own}appended\n"));
            assert_eq!(read("link"), format!("{own}appended\n"));
            let plain = ["build", "context", &isolated, "--reproducible", "--progress=plain"];
            let again = env.command_in(&store, &plain).output().unwrap();
            let log = String::from_utf8_lossy(&again.stderr).into_owned();
            assert!(log.contains("2 steps, all cached"), "{log}");
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "neither the isolation nor the certificates matter");
    assert_eq!(leaks(&env.path("store-emulated-5"), &certificate), Vec::<PathBuf>::new());
}

#[test]
fn priv_step_that_leaves_the_bundle_alone_makes_the_same_layer() {
    let company = Company::new();
    let env = &company.env;
    env.write("Dockerfile", company.dockerfile("echo 1 > /x"));
    for isolation in ISOLATIONS {
        let mut ids = Vec::new();
        for (nth, more) in [None, Some("--ca-for-run=ca.crt")].into_iter().enumerate() {
            let store = format!("store-{isolation}-{nth}");
            env.base_in(&store);
            let isolated = format!("--isolation={isolation}");
            let args = ["build", "context", &isolated, "--reproducible", "--iidfile=iid"];
            let args: Vec<&str> = args.into_iter().chain(more).collect();
            let done = env.command_in(&store, &args).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            ids.push(fs::read_to_string(env.path("iid")).unwrap());
        }
        assert_eq!(ids.first(), ids.last(), "{isolation}");
    }
}

#[test]
fn priv_step_may_replace_its_bundle_as_update_ca_certificates_does() {
    let company = Company::new();
    for isolation in ISOLATIONS {
        let run = format!(
            "echo new > /new && chmod 644 /new && mv -f /new {BUNDLE} && rm -f /etc/ssl/cert.pem && \
             test \"$(cat {BUNDLE})\" = new"
        );
        let isolated = format!("--isolation={isolation}");
        let out = format!("--output=type=local,dest=out-{isolation}");
        let args = ["--ca-for-run=ca.crt", &isolated, &out, "--no-cache"];
        company.env.build(&company.dockerfile(&run), &args).ok();
        let kept = company.env.path(&format!("out-{isolation}{BUNDLE}"));
        assert_eq!(fs::read_to_string(kept).unwrap(), "new\n");
    }
}

#[test]
fn priv_variables_of_the_step_win_and_name_bundles_too() {
    let company = Company::new();
    let text = company.dockerfile("true").replace(
        "RUN true",
        &format!(
            "RUN mkdir /own && cp {BUNDLE} /own/bundle && echo > ~/.wgetrc\n\
             ENV PIP_CERT=/own/bundle\n\
             RUN test $PIP_CERT = /own/bundle && grep -q 'BEGIN CERT' /own/bundle && \\\n\
             test -z \"$WGETRC\" && grep -q Acquire $APT_CONFIG && test $SSL_CERT_FILE = /dev/rbuild-ca/bundle.pem"
        ),
    );
    company.env.build(&text, &["--ca-for-run=ca.crt", "-o", "type=local,dest=out"]).ok();
    assert_eq!(fs::read_to_string(company.env.path("out/own/bundle")).unwrap(), company.own);
    assert!(!company.env.path("out/dev/rbuild-ca").exists());
}

#[test]
fn priv_configuration_file_names_certificates_relative_to_itself() {
    let company = Company::new();
    let mut env = company.env;
    fs::create_dir(env.path("conf")).unwrap();
    fs::rename(env.path("ca.crt"), env.path("conf/ca.crt")).unwrap();
    fs::write(env.path("conf/registries.toml"), "ca-for-run = [\"ca.crt\"]\n").unwrap();
    let file = env.shown("conf/registries.toml");
    env.set("RBUILD_REGISTRIES", &file);
    env.build("FROM base:1\nRUN test -s $SSL_CERT_FILE\n", &[]).ok();
    fs::write(env.path("conf/ca.crt"), "nothing\n").unwrap();
    let failed = env.build("FROM base:1\n", &[]);
    assert_eq!(failed.code, Some(2), "{}", failed.stderr);
    assert!(failed.stderr.contains("contains no PEM certificate"), "{}", failed.stderr);
}

#[test]
fn priv_proxies_of_the_environment_are_passed_on_request() {
    let mut env = Env::new();
    env.base();
    env.set("HTTPS_PROXY", "http://one:1");
    env.set("no_proxy", "two");
    let text = |run: &str| format!("FROM base:1\nRUN {run}\n");
    env.build(&text("test -z \"$HTTPS_PROXY$https_proxy$NO_PROXY\""), &[]).ok();
    let is_set = "test $https_proxy$HTTPS_PROXY = http://one:1http://one:1 && test $NO_PROXY = two";
    env.build(&text(is_set), &["--http-proxy"]).ok();
    let own = "test $https_proxy$HTTPS_PROXY = xx && test $NO_PROXY = two";
    env.build(&text(own), &["--http-proxy=true", "--build-arg=https_proxy=x"]).ok();
    // Not in the key: the same step without proxies is found.
    let again = env.build(&text(is_set), &[]).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
}

#[test]
fn certificates_that_cannot_be_read_are_usage_errors() {
    let env = Env::new();
    let failed = env.build("FROM scratch\n", &["--ca-for-run=missing.pem"]);
    assert_eq!(failed.code, Some(2), "{}", failed.stderr);
    assert!(failed.stderr.contains("--ca-for-run") && failed.stderr.contains("missing.pem"));
}
