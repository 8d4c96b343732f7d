//! The registry client against the real `docker-registry`, and against servers that misbehave.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests start threads and panic on failure"
)]

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rbuild::oci::{Descriptor, Digest, LayerCompression, MediaType, Reference};
use rbuild::registry::{
    Client, FetchedManifest, Options, PushOutcome, RegistryError, RegistryOptions,
};

use crate::support::registry::{Answer, DockerRegistry, Request, Scripted, client, options};

/// Returns a client whose `config.json` is `config`. The directory must live as long as the client.
fn client_with(config: &str) -> (Client, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    rbuild::pathio::write(&path, config.as_bytes()).unwrap();
    let auth_files = vec![directory.path().join("config.json")];
    (Client::new(Options { auth_files, ..options() }).unwrap(), directory)
}

fn client_with_mirrors(registry: &str, mirrors: &[&str]) -> Client {
    let mirrors = mirrors.iter().map(|host| format!("http://{host}")).collect();
    let of_registry = RegistryOptions { mirrors, ..RegistryOptions::default() };
    let registries = BTreeMap::from([(registry.to_owned(), of_registry)]);
    Client::new(Options { registries, ..options() }).unwrap()
}

fn name(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(MediaType::OciLayer(LayerCompression::None), bytes)
}

/// Returns bytes that do not repeat.
fn some_bytes(n_bytes: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(n_bytes).collect()
}

fn reader(bytes: &[u8]) -> Box<dyn Read + Send> {
    Box::new(Cursor::new(bytes.to_vec()))
}

/// Pushes `bytes` as a blob. Returns the result, and the number of bytes that progress reported.
fn push(
    client: &Client,
    name: &Reference,
    bytes: &[u8],
    mount_from: Option<&str>,
) -> Result<(PushOutcome, u64), RegistryError> {
    let moved = AtomicU64::new(0);
    let count = |n| {
        moved.fetch_add(n, Ordering::Relaxed);
    };
    let pushed =
        client.push_blob(name, &layer(bytes), mount_from, &|| Ok(reader(bytes)), &count)?;
    Ok((pushed, moved.into_inner()))
}

/// Pulls `blob`. Returns the result, the bytes written, and the number of bytes that progress
/// reported.
fn pull(
    client: &Client,
    name: &Reference,
    blob: &Descriptor,
) -> (Result<(), String>, Vec<u8>, u64) {
    let (mut sink, moved) = (Vec::new(), AtomicU64::new(0));
    let count = |n| {
        moved.fetch_add(n, Ordering::Relaxed);
    };
    let result = client.pull_blob(name, blob, &mut sink, &count);
    (result.map_err(|error| error.to_string()), sink, moved.into_inner())
}

/// Returns a loopback address that was free a moment ago, without a server.
fn unused_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Returns a manifest without layers, whose config is `config`.
fn manifest_of(config: &[u8]) -> Vec<u8> {
    let config = Descriptor::of(MediaType::OciConfig, config);
    let config = String::from_utf8(rbuild::oci::compact(&config)).unwrap();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{config},"layers":[]}}"#,
        MediaType::OciManifest
    )
    .into_bytes()
}

// The real registry.

#[test]
fn what_is_pushed_is_pulled_back_byte_for_byte() {
    let registry = DockerRegistry::open();
    let (client, name) = (client(), name(registry.host(), "a/b:tag"));
    let bytes = some_bytes(5_000_000);
    assert!(!client.blob_exists(&name, Digest::of(&bytes)).unwrap());
    assert_eq!(push(&client, &name, &bytes, None).unwrap(), (PushOutcome::Uploaded, 5_000_000));
    assert!(client.blob_exists(&name, Digest::of(&bytes)).unwrap());
    assert_eq!(push(&client, &name, &bytes, None).unwrap(), (PushOutcome::AlreadyThere, 0));
    let (result, sink, moved) = pull(&client, &name, &layer(&bytes));
    assert_eq!((result, sink == bytes, moved), (Ok(()), true, 5_000_000));

    assert_eq!(push(&client, &name, b"{}", None).unwrap(), (PushOutcome::Uploaded, 2));
    let manifest = manifest_of(b"{}");
    let digest = client.push_manifest(&name, &MediaType::OciManifest, &manifest).unwrap();
    assert_eq!(digest, Digest::of(&manifest));
    let want = FetchedManifest { digest, media_type: MediaType::OciManifest, bytes: manifest };
    for name in [name.clone(), name.with_digest(digest)] {
        assert_eq!(client.manifest(&name).unwrap(), want);
        assert_eq!(client.digest(&name).unwrap(), digest);
    }
}

#[test]
fn empty_blobs_go_both_ways() {
    let registry = DockerRegistry::open();
    let (client, name) = (client(), name(registry.host(), "empty"));
    assert_eq!(push(&client, &name, b"", None).unwrap(), (PushOutcome::Uploaded, 0));
    assert_eq!(pull(&client, &name, &layer(b"")), (Ok(()), Vec::new(), 0));
}

#[test]
fn blobs_are_mounted_from_the_repository_that_has_them() {
    let registry = DockerRegistry::open();
    let client = client();
    let bytes = some_bytes(1000);
    push(&client, &name(registry.host(), "from"), &bytes, None).unwrap();
    let to = name(registry.host(), "to");
    assert_eq!(push(&client, &to, &bytes, Some("from")).unwrap(), (PushOutcome::Mounted, 0));
    assert!(client.blob_exists(&to, Digest::of(&bytes)).unwrap());
    let other = some_bytes(999);
    assert_eq!(push(&client, &to, &other, Some("from")).unwrap(), (PushOutcome::Uploaded, 999));
    assert_eq!(pull(&client, &to, &layer(&other)), (Ok(()), other, 999));
}

#[test]
fn many_threads_share_one_client() {
    let registry = DockerRegistry::with_password();
    let (client, _directory) = client_with(&passwords(registry.host(), "user", "geheim"));
    let name = name(registry.host(), "shared");
    thread::scope(|scope| {
        for n in 0..8 {
            let (client, name) = (&client, &name);
            scope.spawn(move || {
                let bytes = some_bytes(100_000 + n);
                push(client, name, &bytes, None).unwrap();
                assert_eq!(pull(client, name, &layer(&bytes)).1, bytes);
            });
        }
    });
}

#[test]
fn what_is_not_there_is_not_found_by_name() {
    let registry = DockerRegistry::open();
    let (client, name) = (client(), name(registry.host(), "a:no"));
    for error in [client.manifest(&name).map(|_| ()), client.digest(&name).map(|_| ())] {
        let RegistryError::NotFound { what } = error.unwrap_err() else { panic!("another error") };
        assert_eq!(what, format!("{}/a:no", registry.host()));
    }
    let blob = layer(b"x");
    let want = format!(
        "blob {} of {}/a does not exist; check the name, and that it was pushed",
        blob.digest,
        registry.host()
    );
    assert_eq!(pull(&client, &name, &blob), (Err(want), Vec::new(), 0));
}

#[test]
fn the_registrys_own_words_are_shown() {
    let registry = DockerRegistry::open();
    let name = name(registry.host(), "a:t");
    let manifest = manifest_of(b"nobody pushed this");
    let error = client().push_manifest(&name, &MediaType::OciManifest, &manifest).unwrap_err();
    let host = registry.host();
    assert_eq!(
        error.to_string(),
        format!(
            "{host} answered 400 for {host}/a:t: blob unknown to registry (MANIFEST_BLOB_UNKNOWN)"
        )
    );
}

#[test]
fn sources_that_lie_about_their_size_or_fail_are_told_apart() {
    let registry = DockerRegistry::open();
    let (client, name) = (client(), name(registry.host(), "a"));
    let blob = layer(&some_bytes(1000));
    let what = format!("blob {} of {}/a", blob.digest, registry.host());
    for (n_bytes, got) in [(999, 999), (1001, 1001)] {
        let open = || Ok(reader(&some_bytes(n_bytes)));
        let error = client.push_blob(&name, &blob, None, &open, &|_| ()).unwrap_err();
        let want = format!("wrong size of {what}: expected 1000 bytes, got {got}");
        assert_eq!(error.to_string(), want);
    }
    let open = || Err(io::Error::other("gone"));
    let error = client.push_blob(&name, &blob, None, &open, &|_| ()).unwrap_err();
    let RegistryError::Local { verb: "read", what: of, source } = error else { panic!("{error}") };
    assert_eq!((of, source.to_string()), (what, "gone".to_owned()));
    let open = || Ok(reader(&[0; 1000]));
    let error = client.push_blob(&name, &blob, None, &open, &|_| ()).unwrap_err();
    let RegistryError::Status { status: 400, message, .. } = error else { panic!("{error}") };
    assert!(message.contains("(DIGEST_INVALID)"), "{message}");
}

#[test]
fn sinks_that_fail_end_the_pull_at_once() {
    let server = Scripted::new(|_, _| Answer::new(200, some_bytes(1000)));
    let client = client_with_mirrors(&server.host(), &[&server.host()]);
    let mut full: &mut [u8] = &mut [0; 10];
    let blob = layer(&some_bytes(1000));
    let result = client.pull_blob(&name(&server.host(), "a"), &blob, &mut full, &|_| ());
    assert!(matches!(result, Err(RegistryError::Local { verb: "store", .. })), "{result:?}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn hosts_without_a_server_are_unreachable() {
    let address = unused_address();
    let error = client().manifest(&name(&address, "a")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot reach {address}; is a server running there, and is the network up?")
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("refused"), "{source}");
}

// Credentials.

/// Returns a `config.json` with one password.
fn passwords(host: &str, user: &str, password: &str) -> String {
    format!(r#"{{"auths":{{"{host}":{{"username":"{user}","password":"{password}"}}}}}}"#)
}

#[test]
fn stored_passwords_open_the_registry() {
    let registry = DockerRegistry::with_password();
    // base64 of user:geheim
    let config = format!(
        r#"{{"auths":{{"https://{}/v2/":{{"auth":"dXNlcjpnZWhlaW0="}}}}}}"#,
        registry.host()
    );
    let (client, _directory) = client_with(&config);
    let name = name(registry.host(), "a");
    assert_eq!(push(&client, &name, b"bytes", None).unwrap(), (PushOutcome::Uploaded, 5));
    assert_eq!(pull(&client, &name, &layer(b"bytes")), (Ok(()), b"bytes".to_vec(), 5));
}

#[test]
fn wrong_and_missing_passwords_say_what_to_do() {
    let registry = DockerRegistry::with_password();
    let host = registry.host();
    let name = name(host, "a");
    let (wrong, _directory) = client_with(&passwords(host, "user", "hunter2"));
    let error = wrong.manifest(&name).unwrap_err();
    assert!(!format!("{error:?} {wrong:?}").contains("hunter2"));
    assert_eq!(
        error.to_string(),
        format!(
            "{host} refused access to {host}/a:latest (401): authentication required \
             (UNAUTHORIZED); it rejected the stored credentials; log in with `rbuild login \
             {host}`"
        )
    );
    let error = push(&client(), &name, b"bytes", None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{host} refused access to blob {} of {host}/a (401): no credentials are stored; check \
             the name, or log in with `rbuild login {host}`",
            Digest::of(b"bytes")
        )
    );
}

/// Starts a registry that issues its own tokens: `tokens` answers `/token`, `rest` all requests
/// with the token `good`.
fn with_tokens(
    tokens: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    rest: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> Scripted {
    let n_tokens = AtomicU64::new(0);
    Scripted::new(move |request, _| {
        if request.target.starts_with("/token") {
            let n_before = n_tokens.fetch_add(1, Ordering::SeqCst);
            return tokens(request, usize::try_from(n_before).unwrap());
        }
        if request.header("authorization") == Some("Bearer good") {
            return rest(request);
        }
        let host = request.header("host").unwrap();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="a b""#);
        Answer::new(401, "").header("WWW-Authenticate", challenge)
    })
}

#[test]
fn tokens_are_fetched_once_for_each_scope() {
    let server = with_tokens(
        |_, _| Answer::new(200, r#"{"token":"good","expires_in":300}"#),
        |_| Answer::new(200, "bytes"),
    );
    let client = client();
    for repository in ["a", "a", "b"] {
        let name = name(&server.host(), repository);
        assert_eq!(pull(&client, &name, &layer(b"bytes")).0, Ok(()));
    }
    let blob = format!("blobs/{}", Digest::of(b"bytes"));
    let token = |repository| format!("GET /token?service=a%20b&scope=repository:{repository}:pull");
    assert_eq!(
        server.lines(),
        [
            format!("GET /v2/a/{blob}"),
            token("a"),
            format!("GET /v2/a/{blob}"),
            format!("GET /v2/a/{blob}"),
            token("b"),
            format!("GET /v2/b/{blob}"),
        ]
    );
    assert_eq!(server.requests()[1].header("authorization"), None);
}

#[test]
fn passwords_go_to_the_token_server_and_not_to_the_registry() {
    let server = with_tokens(
        |_, _| Answer::new(200, r#"{"access_token":"good"}"#),
        |request| Answer::new(if request.method == "HEAD" { 200 } else { 500 }, ""),
    );
    let (client, _directory) = client_with(&passwords(&server.host(), "user", "geheim"));
    let pushed = push(&client, &name(&server.host(), "a/b"), b"bytes", None).unwrap();
    assert_eq!(pushed, (PushOutcome::AlreadyThere, 0));
    let sent: Vec<_> = server
        .requests()
        .iter()
        .map(|request| (request.target.clone(), request.header("authorization").map(str::to_owned)))
        .collect();
    let blob = format!("/v2/a/b/blobs/{}", Digest::of(b"bytes"));
    let token = "/token?service=a%20b&scope=repository:a/b:pull,push&account=user".to_owned();
    assert_eq!(
        sent,
        [
            (blob.clone(), None),
            (token, Some("Basic dXNlcjpnZWhlaW0=".to_owned())),
            (blob, Some("Bearer good".to_owned())),
        ]
    );
}

#[test]
fn identity_tokens_are_exchanged_by_post() {
    let server = with_tokens(
        |_, _| Answer::new(200, r#"{"access_token":"good"}"#),
        |_| Answer::new(200, "bytes"),
    );
    let config = format!(r#"{{"auths":{{"{}":{{"identitytoken":"re+fresh"}}}}}}"#, server.host());
    let (client, _directory) = client_with(&config);
    assert_eq!(pull(&client, &name(&server.host(), "a"), &layer(b"bytes")).0, Ok(()));
    let token = &server.requests()[1];
    assert_eq!(
        (token.line().as_str(), token.header("authorization"), token.header("content-type")),
        ("POST /token", None, Some("application/x-www-form-urlencoded"))
    );
    assert_eq!(
        String::from_utf8(token.body.clone()).unwrap(),
        "grant_type=refresh_token&service=a%20b&client_id=rbuild&scope=repository:a:pull\
         &refresh_token=re%2Bfresh"
    );
}

#[test]
fn registry_tokens_are_used_as_they_are() {
    let server = with_tokens(|_, _| Answer::new(500, ""), |_| Answer::new(200, "bytes"));
    let config = format!(r#"{{"auths":{{"{}":{{"registrytoken":"good"}}}}}}"#, server.host());
    let (client, _directory) = client_with(&config);
    assert_eq!(pull(&client, &name(&server.host(), "a"), &layer(b"bytes")).0, Ok(()));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn tokens_that_ended_are_renewed_once() {
    // The first token is refused from its second use on.
    let n_uses = AtomicU64::new(0);
    let server = Scripted::new(move |request, _| {
        let challenge =
            format!(r#"Bearer realm="http://{}/token""#, request.header("host").unwrap());
        let refuse = Answer::new(401, "").header("WWW-Authenticate", challenge);
        match (request.target.as_str(), request.header("authorization")) {
            (target, _) if target.starts_with("/token") => {
                let token = if n_uses.load(Ordering::SeqCst) == 0 { "first" } else { "second" };
                Answer::new(200, format!(r#"{{"token":"{token}"}}"#))
            }
            (_, Some("Bearer first")) if n_uses.fetch_add(1, Ordering::SeqCst) == 0 => {
                Answer::new(200, "bytes")
            }
            (_, Some("Bearer second")) => Answer::new(200, "bytes"),
            _ => refuse,
        }
    });
    let (client, name) = (client(), name(&server.host(), "a"));
    for _ in 0..3 {
        assert_eq!(pull(&client, &name, &layer(b"bytes")).0, Ok(()));
    }
    let used: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.header("authorization").unwrap_or("-").to_owned())
        .collect();
    let [first, second] = ["Bearer first", "Bearer second"];
    assert_eq!(used, ["-", "-", first, first, "-", second, second]);
}

#[test]
fn uploads_restart_when_their_token_expires() {
    let n_tokens = AtomicU64::new(0);
    let server = Scripted::new(move |request, _| {
        let challenge =
            format!(r#"Bearer realm="http://{}/token""#, request.header("host").unwrap());
        let refuse = Answer::new(401, "").header("WWW-Authenticate", challenge);
        let used = request.header("authorization").unwrap_or_default();
        match request.method.as_str() {
            "GET" => {
                let n = n_tokens.fetch_add(1, Ordering::SeqCst);
                Answer::new(200, format!(r#"{{"token":"t{n}"}}"#))
            }
            _ if used.is_empty() => refuse,
            "HEAD" => Answer::new(404, ""),
            "POST" => Answer::new(202, "").header("Location", "/u"),
            _ if used == "Bearer t0" => refuse,
            _ => Answer::new(201, ""),
        }
    });
    let pushed = push(&client(), &name(&server.host(), "a"), b"bytes", None).unwrap();
    assert_eq!(pushed, (PushOutcome::Uploaded, 5));
    let methods: Vec<_> = server.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["HEAD", "GET", "HEAD", "POST", "PUT", "GET", "POST", "PUT"]);
}

#[test]
fn refused_tokens_show_the_token_servers_words_and_no_secret() {
    let server = with_tokens(
        |_, _| Answer::new(401, r#"{"details":"incorrect username or password"}"#),
        |_| Answer::new(500, ""),
    );
    let (client, _directory) = client_with(&passwords(&server.host(), "user", "hunter2"));
    let error = client.manifest(&name(&server.host(), "a")).unwrap_err();
    let host = server.host();
    assert_eq!(
        error.to_string(),
        format!(
            "{host} refused access to repository:a:pull (401): incorrect username or password; it rejected the stored credentials; log in with `rbuild login {host}`"
        )
    );
    assert!(!format!("{error:?}").contains("hunter2"));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn useless_tokens_do_not_cause_an_endless_loop() {
    let server =
        with_tokens(|_, _| Answer::new(200, r#"{"token":"bad"}"#), |_| Answer::new(500, ""));
    let error = client().manifest(&name(&server.host(), "a")).unwrap_err();
    let host = server.host();
    assert_eq!(
        error.to_string(),
        format!(
            "{host} refused access to {host}/a:latest (401): no credentials are stored; check the \
             name, or log in with `rbuild login {host}`"
        )
    );
    // The token is renewed once, since the clocks of the registry and the token server may differ.
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn token_answers_without_end_are_refused() {
    let server =
        with_tokens(|_, _| Answer::new(200, vec![b' '; 2 << 20]), |_| Answer::new(500, ""));
    let error = client().manifest(&name(&server.host(), "a")).unwrap_err().to_string();
    assert_eq!(error, "the response of the token server is longer than the limit of 1048576 bytes");
}

#[test]
fn configs_that_docker_would_not_write_are_errors_when_needed() {
    let server =
        with_tokens(|_, _| Answer::new(200, r#"{"token":"good"}"#), |_| Answer::new(500, ""));
    let (client, directory) = client_with(r#"{"auths": {"x": "secret"}}"#);
    let error = client.manifest(&name(&server.host(), "a")).unwrap_err().to_string();
    let path = directory.path().join("config.json");
    assert_eq!(
        error,
        format!(
            "cannot get the credentials for {}: {}: invalid JSON (line 1, column \
             24)",
            server.host(),
            path.display()
        )
    );
}

#[test]
fn servers_that_do_not_speak_tls_are_told_from_dead_ones() {
    let plain = DockerRegistry::open();
    let challenge = format!(r#"Bearer realm="https://{}/token""#, plain.host());
    let server =
        Scripted::new(move |_, _| Answer::new(401, "").header("WWW-Authenticate", &challenge));
    let error = client().manifest(&name(&server.host(), "a")).unwrap_err();
    let RegistryError::Tls { host, source } = error else { panic!("{error:?}") };
    assert_eq!(host, plain.host());
    assert_eq!(source.to_string(), "received corrupt message of type InvalidContentType");
    assert_eq!(server.requests().len(), 1);
}

// Redirects.

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let storage = Scripted::new(|_, _| Answer::new(200, "bytes"));
    let at = format!("http://{}/bucket/x?X-Signature=abc", storage.host());
    let server = Scripted::new(move |request, _| match request.header("authorization") {
        Some(_) => Answer::new(307, "").header("Location", &at),
        None => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=x"),
    });
    let (client, _directory) = client_with(&passwords(&server.host(), "user", "geheim"));
    let name = name(&server.host(), "a");
    assert_eq!(pull(&client, &name, &layer(b"bytes")), (Ok(()), b"bytes".to_vec(), 5));
    let asked = &storage.requests()[0];
    assert_eq!(asked.line(), "GET /bucket/x?X-Signature=abc");
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(asked.header("user-agent"), Some("rbuild-tests"));
}

#[test]
fn credentials_are_not_given_to_a_storage_that_asks_for_them() {
    let storage =
        Scripted::new(|_, _| Answer::new(401, "").header("WWW-Authenticate", "Basic realm=give"));
    let at = format!("http://{}/x?X-Signature=abc", storage.host());
    let server = Scripted::new(move |_, _| Answer::new(307, "").header("Location", &at));
    let (client, _directory) = client_with(&passwords(&server.host(), "user", "geheim"));
    let (result, ..) = pull(&client, &name(&server.host(), "a"), &layer(b"bytes"));
    let want = format!(
        "{} refused access to blob {} of {}/a (401): no reason given",
        storage.host(),
        Digest::of(b"bytes"),
        server.host()
    );
    assert_eq!(result, Err(want));
    assert_eq!(storage.requests().len(), 1);
}

#[test]
fn redirects_within_the_registry_keep_the_credentials_and_end() {
    let server = Scripted::new(|request, _| match request.header("authorization") {
        Some(_) if request.target.starts_with("/moved") => Answer::new(200, "bytes"),
        Some(_) => Answer::new(302, "").header("Location", "/moved"),
        None => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=x"),
    });
    let (client, _directory) = client_with(&passwords(&server.host(), "user", "geheim"));
    assert_eq!(pull(&client, &name(&server.host(), "a"), &layer(b"bytes")).0, Ok(()));

    let circle = Scripted::new(|_, _| Answer::new(302, "").header("Location", "/round"));
    let error = self::client().manifest(&name(&circle.host(), "a")).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{} violates the registry protocol: more than 10 redirects", circle.host())
    );
}

// Retries.

#[test]
fn busy_servers_are_asked_again_after_the_pause_they_ask_for() {
    let server = Scripted::new(|_, n_before| match n_before {
        0 => Answer::new(429, "").header("Retry-After", "1"),
        1 => Answer::new(503, ""),
        _ => Answer::new(200, "bytes"),
    });
    let started = Instant::now();
    assert_eq!(pull(&client(), &name(&server.host(), "a"), &layer(b"bytes")).0, Ok(()));
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn retry_after_may_be_a_date_by_the_servers_clock_and_too_long_a_time() {
    let server = Scripted::new(|_, n_before| match n_before {
        0 => Answer::new(503, "")
            .header("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
            .header("Retry-After", "Sun, 06 Nov 1994 08:49:38 GMT"),
        _ => Answer::new(200, "bytes"),
    });
    let started = Instant::now();
    assert_eq!(pull(&client(), &name(&server.host(), "a"), &layer(b"bytes")).0, Ok(()));
    assert!(started.elapsed() >= Duration::from_secs(1));

    let server = Scripted::new(|_, _| Answer::new(429, "").header("Retry-After", "3600"));
    let started = Instant::now();
    let error = client().manifest(&name(&server.host(), "a")).unwrap_err().to_string();
    let host = server.host();
    let want = format!(
        "{host} answered 429 for {host}/a:latest: no reason given; it asks for a pause of \
         3600 s"
    );
    assert_eq!((error, server.requests().len()), (want, 1));
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn retries_end_and_some_answers_are_final() {
    for (status, n_requests) in
        [(500, 3), (502, 3), (429, 3), (404, 1), (403, 1), (400, 1), (418, 1)]
    {
        let server = Scripted::new(move |_, _| {
            Answer::new(status, r#"{"errors":[{"code":"X","message":"no"}]}"#)
        });
        let host = server.host();
        let error = client().manifest(&name(&host, "a")).unwrap_err().to_string();
        let want = match status {
            404 => {
                format!("{host}/a:latest does not exist; check the name, and that it was pushed")
            }
            403 => format!("{host} denied access to {host}/a:latest (403): no (X)"),
            _ => format!("{host} answered {status} for {host}/a:latest: no (X)"),
        };
        assert_eq!((error, server.requests().len()), (want, n_requests));
    }
}

#[test]
fn servers_that_hang_up_are_asked_again() {
    let server = Scripted::new(|_, n_before| match n_before {
        0 => Answer::hang_up(),
        1 => Answer::new(200, manifest_of(b"{}")).cut_at(20),
        _ => Answer::new(200, manifest_of(b"{}")),
    });
    let fetched = client().manifest(&name(&server.host(), "a")).unwrap();
    assert_eq!(fetched.bytes, manifest_of(b"{}"));
    assert_eq!(fetched.media_type, MediaType::OciManifest);

    let never = Scripted::new(|_, _| Answer::hang_up());
    let error = client().manifest(&name(&never.host(), "a")).unwrap_err();
    assert_eq!(error.to_string(), format!("the connection to {} broke", never.host()));
    assert_eq!(never.requests().len(), 3);
}

/// Returns the bytes that a request's `Range` asks for, as an answer.
fn ranged(request: &Request, bytes: &[u8]) -> Answer {
    match request.header("range") {
        None => Answer::new(200, bytes),
        Some(range) => {
            let start: usize =
                range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
            let total = bytes.len();
            Answer::new(206, &bytes[start..])
                .header("Content-Range", format!("bytes {start}-{}/{total}", total - 1))
        }
    }
}

#[test]
fn broken_downloads_are_resumed_where_they_broke() {
    let bytes = some_bytes(300_000);
    let all = bytes.clone();
    let server = Scripted::new(move |request, n_before| {
        let answer = ranged(request, &all);
        if n_before < 2 { answer.cut_at(100_000) } else { answer }
    });
    let (result, sink, moved) = pull(&client(), &name(&server.host(), "a"), &layer(&bytes));
    assert_eq!((result, sink == bytes, moved), (Ok(()), true, 300_000));
    let requests = server.requests();
    let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-"), Some("bytes=200000-")]);
}

#[test]
fn downloads_are_resumed_from_servers_that_know_no_ranges() {
    let bytes = some_bytes(300_000);
    let all = bytes.clone();
    let server = Scripted::new(move |_, n_before| {
        let answer = Answer::new(200, &all);
        if n_before == 0 { answer.cut_at(100_000) } else { answer }
    });
    let (result, sink, moved) = pull(&client(), &name(&server.host(), "a"), &layer(&bytes));
    assert_eq!((result, sink == bytes, moved), (Ok(()), true, 300_000));
}

#[test]
fn ranges_that_start_elsewhere_are_refused() {
    let bytes = some_bytes(1000);
    let all = bytes.clone();
    let server = Scripted::new(move |request, _| match request.header("range") {
        None => Answer::new(200, &all).cut_at(500),
        Some(_) => Answer::new(206, &all[400..]).header("Content-Range", "bytes 400-999/1000"),
    });
    let (result, sink, _) = pull(&client(), &name(&server.host(), "a"), &layer(&bytes));
    let want = format!(
        "{} violates the registry protocol: it sent another range of the blob than requested",
        server.host()
    );
    assert_eq!((result, sink), (Err(want), bytes[..500].to_vec()));
}

#[test]
fn broken_uploads_restart_and_report_progress_once() {
    let server = Scripted::new(|request, n_before| match (request.method.as_str(), n_before) {
        ("HEAD", _) => Answer::new(404, ""),
        ("POST", _) => Answer::new(202, "").header("Location", format!("/upload/{n_before}?s=1")),
        ("PUT", 2) => Answer::hang_up(),
        _ => Answer::new(201, ""),
    });
    let bytes = some_bytes(100_000);
    let pushed = push(&client(), &name(&server.host(), "a"), &bytes, None).unwrap();
    assert_eq!(pushed, (PushOutcome::Uploaded, 100_000));
    let digest = Digest::of(&bytes).to_string();
    let hex = digest.strip_prefix("sha256:").unwrap();
    assert_eq!(
        server.lines(),
        [
            format!("HEAD /v2/a/blobs/{digest}"),
            "POST /v2/a/blobs/uploads/".to_owned(),
            format!("PUT /upload/1?s=1&digest=sha256:{hex}"),
            format!("HEAD /v2/a/blobs/{digest}"),
            "POST /v2/a/blobs/uploads/".to_owned(),
            format!("PUT /upload/4?s=1&digest=sha256:{hex}"),
        ]
    );
    assert!(server.requests()[5].body == bytes);
}

// Mounts.

/// Starts a registry that answers a mount with `answer`, requires tokens, and accepts every upload.
fn mounting(answer: Answer) -> Scripted {
    with_tokens(
        |_, _| Answer::new(200, r#"{"token":"good"}"#),
        move |request| match request.method.as_str() {
            "HEAD" => Answer::new(404, ""),
            "POST" if request.target.contains("mount=") => answer.clone(),
            "POST" => Answer::new(202, "").header("Location", "/upload/own"),
            _ => Answer::new(201, ""),
        },
    )
}

#[test]
fn mounts_ask_for_both_repositories_and_may_end_in_an_upload() {
    let uploading = Answer::new(202, "").header("Location", "/upload/mount?state=x");
    for (answer, pushed, put) in [
        (Answer::new(201, ""), (PushOutcome::Mounted, 0), None),
        (uploading, (PushOutcome::Uploaded, 5), Some("/upload/mount?state=x&digest=")),
        (Answer::new(202, ""), (PushOutcome::Uploaded, 5), Some("/upload/own?digest=")),
        (Answer::new(403, ""), (PushOutcome::Uploaded, 5), Some("/upload/own?digest=")),
        (Answer::new(404, ""), (PushOutcome::Uploaded, 5), Some("/upload/own?digest=")),
        (Answer::new(500, ""), (PushOutcome::Uploaded, 5), Some("/upload/own?digest=")),
    ] {
        let server = mounting(answer);
        let got = push(&client(), &name(&server.host(), "to"), b"bytes", Some("from")).unwrap();
        let lines = server.lines();
        let digest = Digest::of(b"bytes");
        assert_eq!(got, pushed, "{lines:?}");
        assert!(lines.contains(
            &"GET /token?service=a%20b&scope=repository:to:pull,push&scope=repository:from:pull"
                .to_owned()
        ));
        assert!(lines.contains(&format!("POST /v2/to/blobs/uploads/?mount={digest}&from=from")));
        let put = put.map(|put| format!("PUT {put}{digest}"));
        assert_eq!(lines.iter().find(|line| line.starts_with("PUT")), put.as_ref());
    }
}

// Wrong bytes.

#[test]
fn flipped_bytes_are_found() {
    let bytes = some_bytes(1000);
    let mut flipped = bytes.clone();
    flipped[500] ^= 1;
    let (want, got) = (Digest::of(&bytes), Digest::of(&flipped));
    let server = Scripted::new(move |_, _| Answer::new(200, &flipped));
    let (result, ..) = pull(&client(), &name(&server.host(), "a"), &layer(&bytes));
    let host = server.host();
    let text = format!("wrong digest of blob {want} of {host}/a: expected {want}, got {got}");
    assert_eq!(result, Err(text));
    assert_eq!(server.requests().len(), 1);

    let name = name(&host, "a").with_digest(want);
    let error = client().manifest(&name).unwrap_err();
    let RegistryError::WrongDigest { want: w, got: g, .. } = error else { panic!("{error}") };
    assert_eq!((w, g), (want, got));
}

#[test]
fn wrong_sizes_are_found_before_too_much_is_written() {
    for (n_bytes, chunked, got, n_written) in
        [(999, false, 999, 0), (1001, false, 1001, 0), (999, true, 999, 999), (5000, true, 5000, 0)]
    {
        let server = Scripted::new(move |_, _| {
            let bytes = some_bytes(n_bytes);
            if !chunked {
                return Answer::new(200, bytes);
            }
            let mut body = format!("{n_bytes:x}\r\n").into_bytes();
            body.extend(bytes);
            body.extend(b"\r\n0\r\n\r\n");
            // No length is announced.
            Answer::new(200, body)
                .header("Transfer-Encoding", "chunked")
                .header("Content-Length", "")
        });
        let blob = layer(&some_bytes(1000));
        let (result, sink, _) = pull(&client(), &name(&server.host(), "a"), &blob);
        let what = format!("blob {} of {}/a", blob.digest, server.host());
        let want = format!("wrong size of {what}: expected 1000 bytes, got {got}");
        assert_eq!((result, sink.len()), (Err(want), n_written));
    }
}

#[test]
fn manifests_that_are_not_what_the_registry_says_are_refused() {
    let server = Scripted::new(|_, _| {
        Answer::new(200, manifest_of(b"{}"))
            .header("Content-Type", MediaType::OciManifest.as_str())
            .header("Docker-Content-Digest", Digest::of(b"other").to_string())
    });
    let error = client().manifest(&name(&server.host(), "a")).unwrap_err();
    let RegistryError::WrongDigest { want, got, .. } = error else { panic!("{error}") };
    assert_eq!((want, got), (Digest::of(b"other"), Digest::of(&manifest_of(b"{}"))));

    let error = client()
        .push_manifest(&name(&server.host(), "a"), &MediaType::OciManifest, &manifest_of(b"{}"))
        .unwrap_err();
    let RegistryError::WrongDigest { want, got, .. } = error else { panic!("{error}") };
    assert_eq!((want, got), (Digest::of(&manifest_of(b"{}")), Digest::of(b"other")));
}

#[test]
fn manifests_of_another_digest_are_not_pushed() {
    let server = Scripted::new(|_, _| Answer::new(201, ""));
    let name = name(&server.host(), "a").with_digest(Digest::of(b"other"));
    let error = client().push_manifest(&name, &MediaType::OciManifest, b"{}").unwrap_err();
    assert!(matches!(error, RegistryError::WrongDigest { .. }), "{error}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn manifests_without_end_are_refused() {
    let server = Scripted::new(|_, _| Answer::new(200, vec![b' '; (4 << 20) + 1]));
    let error = client().manifest(&name(&server.host(), "a")).unwrap_err().to_string();
    let want = format!("{}/a:latest is longer than the limit of 4194304 bytes", server.host());
    assert_eq!(error, want);
}

#[test]
fn digests_are_fetched_where_head_does_not_tell() {
    for status in [200, 405] {
        let server = Scripted::new(move |request, _| match request.method.as_str() {
            "HEAD" => Answer::new(status, ""),
            _ => Answer::new(200, manifest_of(b"{}")),
        });
        let digest = client().digest(&name(&server.host(), "a")).unwrap();
        assert_eq!(digest, Digest::of(&manifest_of(b"{}")));
        assert_eq!(server.lines(), ["HEAD /v2/a/manifests/latest", "GET /v2/a/manifests/latest"]);
    }
}

// Mirrors.

#[test]
fn mirrors_are_asked_in_order_and_told_the_registry() {
    let without = Scripted::new(|_, _| Answer::new(404, ""));
    let with = Scripted::new(|_, _| Answer::new(200, manifest_of(b"{}")));
    let client = client_with_mirrors("docker.io", &[&without.host(), &with.host()]);
    let fetched = client.manifest(&"busybox:1".parse().unwrap()).unwrap();
    assert_eq!(fetched.bytes, manifest_of(b"{}"));
    for mirror in [&without, &with] {
        assert_eq!(mirror.lines(), ["GET /v2/library/busybox/manifests/1?ns=docker.io"]);
    }
}

#[test]
fn mirrors_that_fail_are_passed_over_and_the_registry_counts() {
    let dead = unused_address();
    let locked = Scripted::new(|_, _| Answer::new(401, ""));
    let wrong = Scripted::new(|_, _| Answer::new(200, "wrong"));
    let mirrors = [dead, locked.host(), wrong.host()];
    let mirrors = mirrors.each_ref().map(String::as_str);
    let own = Scripted::new(|request, _| match request.target.contains("sha256:") {
        true => Answer::new(200, "bytes"),
        false => Answer::new(404, ""),
    });
    let client = client_with_mirrors(&own.host(), &mirrors);
    let digest = Digest::of(b"bytes");
    let image = name(&own.host(), "a").with_digest(digest);
    assert_eq!(client.manifest(&image).unwrap().bytes, b"bytes");
    assert_eq!(own.lines(), [format!("GET /v2/a/manifests/{digest}")]);

    let all_without = Scripted::new(|_, _| Answer::new(404, ""));
    let client = client_with_mirrors(&own.host(), &[&all_without.host()]);
    let error = client.manifest(&name(&own.host(), "a:t")).unwrap_err();
    assert!(error.is_not_found());
    let RegistryError::NotFound { what } = error.own() else { panic!("{error}") };
    assert_eq!(*what, format!("{}/a:t", own.host()));
    let (mirror, own) = (all_without.host(), own.host());
    let want = format!("http://{mirror} does not have it; http://{own} does not have it");
    assert_eq!(error.to_string(), want);
}

#[test]
fn every_place_that_was_asked_has_its_own_answer() {
    let dead = unused_address();
    let without = Scripted::new(|_, _| Answer::new(404, ""));
    let locked = Scripted::new(|_, _| Answer::new(401, ""));
    let own = unused_address();
    let client = client_with_mirrors(&own, &[&dead, &without.host(), &locked.host()]);
    // A mirror that did not answer is not asked again, but is still listed.
    for _ in 0..2 {
        let error = client.manifest(&name(&own, "a:t")).unwrap_err();
        assert!(matches!(error.own(), RegistryError::Unreachable { .. }), "{error}");
        let text = error.to_string();
        let answers: Vec<&str> = text.split("; ").collect();
        let starts = [
            format!("http://{dead} cannot be reached: "),
            format!("http://{} does not have it", without.host()),
            format!("http://{} refused access (401): ", locked.host()),
            format!("http://{own} cannot be reached: "),
        ];
        assert_eq!(answers.len(), starts.len(), "{text}");
        for (answer, start) in answers.iter().zip(&starts) {
            assert!(answer.starts_with(start), "{answer}");
        }
    }
}

#[test]
fn downloads_that_a_mirror_breaks_off_go_on_at_the_registry() {
    let bytes = some_bytes(1000);
    let (half, all) = (bytes.clone(), bytes.clone());
    let mirror = Scripted::new(move |_, n_before| match n_before {
        0 => Answer::new(200, &half).cut_at(400),
        _ => Answer::new(404, ""),
    });
    let own = Scripted::new(move |request, _| ranged(request, &all));
    let client = client_with_mirrors(&own.host(), &[&mirror.host()]);
    assert_eq!(pull(&client, &name(&own.host(), "a"), &layer(&bytes)), (Ok(()), bytes, 1000));
    assert_eq!(own.requests()[0].header("range"), Some("bytes=400-"));
}

#[test]
fn pushes_do_not_go_to_mirrors() {
    let mirror = Scripted::new(|_, _| Answer::new(500, ""));
    let registry = DockerRegistry::open();
    let client = client_with_mirrors(registry.host(), &[&mirror.host()]);
    let pushed = push(&client, &name(registry.host(), "a"), b"bytes", None).unwrap();
    assert_eq!((pushed, mirror.requests().len()), ((PushOutcome::Uploaded, 5), 0));
}
