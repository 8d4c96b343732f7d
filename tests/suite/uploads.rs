//! Uploads that break midway, of blobs and of streams of unknown length.
#![expect(clippy::unwrap_used, reason = "tests panic on failure")]

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rbuild::oci::{Descriptor, Digest, LayerCompression, MediaType, Reference};
use rbuild::registry::{Client, PushOutcome, RegistryError};

use crate::support::env::{Done, Env};
use crate::support::proxy::{Fault, Head, Proxy};
use crate::support::registry::{Answer, DockerRegistry, Request, Scripted, client};

const MIB: u64 = 1 << 20;

fn name(host: &str) -> Reference {
    format!("{host}/a:t").parse().unwrap()
}

/// Returns bytes that do not repeat.
fn some_bytes(n_bytes: u64) -> Vec<u8> {
    let words = (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(usize::try_from(n_bytes).unwrap()).collect()
}

fn n_bytes(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

/// Pushes `bytes`. Returns the result, the number of bytes that progress reported, and how often
/// `bytes` was opened.
fn push(
    client: &Client,
    host: &str,
    bytes: &[u8],
) -> (Result<PushOutcome, RegistryError>, u64, usize) {
    let (told, opened) = (AtomicU64::new(0), AtomicUsize::new(0));
    let open = || -> io::Result<Box<dyn Read + Send>> {
        opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Cursor::new(bytes.to_vec())))
    };
    let blob = Descriptor::of(MediaType::OciLayer(LayerCompression::None), bytes);
    let report = |n| {
        told.fetch_add(n, Ordering::Relaxed);
    };
    let result = client.push_blob(&name(host), &blob, None, &open, &report);
    (result, told.into_inner(), opened.into_inner())
}

/// Sends `bytes` as a stream of unknown length.
fn stream(client: &Client, host: &str, bytes: &[u8]) -> Result<(), RegistryError> {
    let mut upload = client.start_upload(&name(host))?;
    assert_eq!(upload.send(&mut Cursor::new(bytes), &|_| ())?, n_bytes(bytes));
    upload.finish(Digest::of(bytes))
}

/// A registry that keeps the data of a broken upload, and reports its length.
struct Keeping {
    server: Scripted,
    blobs: Arc<Mutex<Vec<Vec<u8>>>>,
}

fn keeping() -> Keeping {
    let blobs: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let open: Mutex<Vec<u8>> = Mutex::default();
    let kept = Arc::clone(&blobs);
    let server = Scripted::new(move |request, n_before| {
        let mut open = open.lock().unwrap();
        let at = |status, open: &[u8]| {
            let answer = Answer::new(status, "").header("Location", format!("/upload/{n_before}"));
            answer.header("Range", format!("0-{}", open.len().saturating_sub(1)))
        };
        match request.method.as_str() {
            "HEAD" => Answer::new(404, ""),
            "POST" => {
                open.clear();
                at(202, &open)
            }
            "PATCH" if !starts_at(request, open.len()) => Answer::new(416, ""),
            "PATCH" => {
                open.extend(&request.body);
                at(202, &open)
            }
            "GET" => at(204, &open),
            "PUT" => {
                open.extend(&request.body);
                kept.lock().unwrap().push(std::mem::take(&mut *open));
                Answer::new(201, "")
            }
            _ => Answer::new(204, ""),
        }
    });
    Keeping { server, blobs }
}

/// Returns whether a request's content range begins at `place`, or the request has none.
fn starts_at(request: &Request, place: usize) -> bool {
    let range = request.header("content-range");
    range.is_none_or(|range| range.split('-').next() == Some(&place.to_string()))
}

/// Returns a plan that cuts the first `n` uploads after `at` bytes.
fn cutting(n: usize, at: u64) -> impl Fn(&Head) -> Fault + Send + Sync + 'static {
    let left = AtomicUsize::new(n);
    move |head| {
        let sends = head.line().starts_with("PATCH ") || head.line().starts_with("PUT ");
        let less = |left: usize| left.checked_sub(1);
        if sends && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return Fault::CutRequest(at);
        }
        Fault::None
    }
}

#[test]
fn large_uploads_go_on_where_they_broke() {
    let registry = keeping();
    let proxy = Proxy::new(&registry.server.host(), cutting(2, 5 * MIB));
    let bytes = some_bytes(20 * MIB);
    let (pushed, told, _) = push(&client(), &proxy.host(), &bytes);
    assert_eq!((pushed.unwrap(), told), (PushOutcome::Uploaded, 20 * MIB));
    assert!(*registry.blobs.lock().unwrap() == [bytes]);
    let requests = registry.server.requests();
    let sent: Vec<(&str, u64)> = requests
        .iter()
        .filter(|request| request.method == "PATCH")
        .map(|request| (request.header("content-range").unwrap_or("-"), n_bytes(&request.body)))
        .collect();
    let range = |from: u64| format!("{from}-{}", 20 * MIB - 1);
    assert_eq!(
        sent,
        [("-", 5 * MIB), (range(5 * MIB).as_str(), 5 * MIB), (range(10 * MIB).as_str(), 10 * MIB),]
    );
}

#[test]
fn streams_go_on_where_they_broke() {
    let registry = keeping();
    // However much is in transit when the connection breaks, the lost part is within the last 4
    // MiB.
    let proxy = Proxy::new(&registry.server.host(), cutting(2, 2 * MIB));
    let bytes = some_bytes(6 * MIB);
    stream(&client(), &proxy.host(), &bytes).unwrap();
    assert!(*registry.blobs.lock().unwrap() == [bytes]);
}

#[test]
fn registries_that_forget_broken_uploads_get_the_blob_again() {
    let registry = DockerRegistry::open();
    let proxy = Proxy::new(registry.host(), cutting(2, 3 * MIB));
    let bytes = some_bytes(8 * MIB);
    let (pushed, told, opened) = push(&client(), &proxy.host(), &bytes);
    assert_eq!((pushed.unwrap(), told, opened), (PushOutcome::Uploaded, 8 * MIB, 3));
    assert!(client().blob_exists(&name(registry.host()), Digest::of(&bytes)).unwrap());
    // A long stream cannot be sent again: its start is gone by then.
    let proxy = Proxy::new(registry.host(), cutting(1, 9 * MIB));
    let error = stream(&client(), &proxy.host(), &some_bytes(15 * MIB)).unwrap_err();
    assert!(matches!(error, RegistryError::Broken { .. }), "{error}");
    let proxy = Proxy::new(registry.host(), cutting(1, MIB / 2));
    stream(&client(), &proxy.host(), &some_bytes(MIB)).unwrap();
}

#[test]
fn streams_reach_a_real_registry_in_one_piece_or_in_several() {
    let registry = DockerRegistry::open();
    let (client, name) = (client(), name(registry.host()));
    let bytes = some_bytes(9 * MIB + 1);
    stream(&client, registry.host(), &bytes).unwrap();
    assert!(client.blob_exists(&name, Digest::of(&bytes)).unwrap());
    stream(&client, registry.host(), b"").unwrap();
    assert!(client.blob_exists(&name, Digest::of(b"")).unwrap());

    let mut upload = client.start_upload(&name).unwrap();
    for piece in [&b"one "[..], b"", b"two ", b"three"] {
        upload.send(&mut &*piece, &|_| ()).unwrap();
    }
    assert_eq!(upload.n_bytes(), 13);
    upload.finish(Digest::of(b"one two three")).unwrap();
    assert!(client.blob_exists(&name, Digest::of(b"one two three")).unwrap());

    let mut upload = client.start_upload(&name).unwrap();
    upload.send(&mut &b"other"[..], &|_| ()).unwrap();
    let error = upload.finish(Digest::of(b"bytes")).unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 400, .. }), "{error}");
}

#[test]
fn uploads_that_are_given_up_are_ended_at_the_registry() {
    let registry = DockerRegistry::open();
    let proxy = Proxy::new(registry.host(), |_| Fault::None);
    let mut upload = client().start_upload(&name(&proxy.host())).map(drop);
    assert!(upload.is_ok());
    assert_eq!(proxy.lines(), ["POST /v2/a/blobs/uploads/", "DELETE /v2/a/blobs/uploads/*"]);
    upload = stream(&client(), &proxy.host(), b"bytes");
    assert!(upload.is_ok());
    assert_eq!(proxy.lines().len(), 5, "{:?}", proxy.lines());
}

#[test]
fn lost_answers_do_not_lose_uploads() {
    for n_bytes in [MIB, 5 * MIB] {
        let registry = DockerRegistry::open();
        let lost = AtomicUsize::new(0);
        let proxy = Proxy::new(registry.host(), move |head| {
            let is_first = || lost.fetch_add(1, Ordering::SeqCst) == 0;
            let is_last = head.line().starts_with("PUT ");
            if is_last && is_first() { Fault::LoseAnswer } else { Fault::None }
        });
        let bytes = some_bytes(n_bytes);
        let (pushed, told, opened) = push(&client(), &proxy.host(), &bytes);
        assert_eq!((pushed.unwrap(), told, opened), (PushOutcome::Uploaded, n_bytes, 1));
    }
}

#[test]
fn proxies_that_limit_requests_get_smaller_ones() {
    let registry = DockerRegistry::open();
    let proxy = Proxy::new(registry.host(), |head| {
        let n_bytes = head.header("content-length").and_then(|text| text.parse::<u64>().ok());
        let is_stream = head.header("transfer-encoding").is_some();
        let is_long = is_stream || n_bytes.is_some_and(|n_bytes| n_bytes > MIB);
        if is_long { Fault::Status(413, None) } else { Fault::None }
    });
    for n_bytes in [2 * MIB, 5 * MIB] {
        let (pushed, ..) = push(&client(), &proxy.host(), &some_bytes(n_bytes));
        assert_eq!(pushed.unwrap(), PushOutcome::Uploaded);
    }
    stream(&client(), &proxy.host(), &some_bytes(6 * MIB + 5)).unwrap();
}

#[test]
fn refusals_are_heard_before_many_bytes_are_sent() {
    let registry = DockerRegistry::open();
    let proxy = Proxy::new(registry.host(), |head| match head.line().starts_with("PATCH ") {
        true => Fault::Status(403, None),
        false => Fault::None,
    });
    let (pushed, told, _) = push(&client(), &proxy.host(), &some_bytes(20 * MIB));
    let error = pushed.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    assert_eq!(told, 0);
}

/// Returns a plan that refuses the first stream.
fn refusing_one() -> impl Fn(&Head) -> Fault + Send + Sync + 'static {
    let is_first = AtomicBool::new(true);
    move |head| {
        let streams = head.line().starts_with("PATCH ");
        let refused = streams && is_first.swap(false, Ordering::SeqCst);
        if refused { Fault::Status(403, None) } else { Fault::None }
    }
}

#[test]
fn large_layers_go_up_while_they_are_packed() {
    let registry = DockerRegistry::open();
    let unchanged = Proxy::new(registry.host(), |_| Fault::None);
    let refusing = Proxy::new(registry.host(), refusing_one());
    // A stream whose upload succeeded is known to be in the registry.
    for (at, (proxy, n_streams, n_asked)) in
        [(unchanged, 1, 0), (refusing, 2, 1)].iter().enumerate()
    {
        let env = Env::new();
        env.write("large", some_bytes(12 * MIB + u64::try_from(at).unwrap()));
        let name = format!("{}/large:1", proxy.host());
        env.build("FROM scratch\nCOPY large /\n", &["-t", &name]).ok();
        env.rbuild(&["push", &name]).ok();
        let lines = proxy.lines();
        let is_stream = |line: &&String| line.starts_with("PATCH ");
        assert_eq!(lines.iter().filter(is_stream).count(), *n_streams, "{lines:#?}");
        let is_question = |line: &&String| line.starts_with("HEAD /v2/large/blobs/");
        let before = lines.iter().take_while(|line| !is_stream(line)).filter(is_question).count();
        let after = lines.iter().filter(is_question).count() - before;
        // Neither the layer, whose digest was not known yet, nor the config, which is new.
        assert_eq!((before, after), (0, *n_asked), "{lines:#?}");
        let image = format!("docker://{}/large:1", registry.host());
        let copy = ["--insecure-policy", "copy", "--src-tls-verify=false", &image, "oci:out:1"];
        Done::of(env.program("skopeo").args(copy).output().unwrap()).ok();
        rbuild::image::verify_layout(&env.path("out")).unwrap();
    }
}

#[test]
fn proxies_that_cannot_be_asked_are_not_asked_again() {
    let registry = DockerRegistry::open();
    let proxy = Proxy::new(registry.host(), |head| match head.header("expect") {
        Some(_) => Fault::Status(417, None),
        None => Fault::None,
    });
    for n_bytes in [2 * MIB, 5 * MIB] {
        let (pushed, told, _) = push(&client(), &proxy.host(), &some_bytes(n_bytes));
        assert_eq!((pushed.unwrap(), told), (PushOutcome::Uploaded, n_bytes));
    }
    stream(&client(), &proxy.host(), &some_bytes(3 * MIB)).unwrap();
}

/// Returns a plan that answers a request that ends an upload or stores a manifest.
fn answering(path: &'static str) -> impl Fn(&Head) -> Fault + Send + Sync + 'static {
    move |head| {
        let line = head.line();
        let is_it = line.starts_with("PUT ") && line.contains(path);
        if is_it { Fault::Status(200, None) } else { Fault::None }
    }
}

#[test]
fn upload_that_a_proxy_accepts_by_itself_is_not_done() {
    let registry = DockerRegistry::open();
    for n_bytes in [MIB, 5 * MIB] {
        let bytes = some_bytes(n_bytes);
        let proxy = Proxy::new(registry.host(), answering("/blobs/uploads/"));
        let error = push(&client(), &proxy.host(), &bytes).0.unwrap_err();
        assert!(matches!(error, RegistryError::NotStored { status: 200, .. }), "{error}");
        let error = stream(&client(), &proxy.host(), &bytes).unwrap_err();
        assert!(matches!(error, RegistryError::NotStored { status: 200, .. }), "{error}");
    }
}

#[test]
fn manifest_that_a_proxy_accepts_by_itself_is_not_pushed() {
    let registry = DockerRegistry::open();
    let index = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let proxy = Proxy::new(registry.host(), answering("/manifests/"));
    let push = |host: &str| client().push_manifest(&name(host), &MediaType::OciIndex, index);
    let error = push(&proxy.host()).unwrap_err();
    assert!(matches!(error, RegistryError::NotStored { status: 200, .. }), "{error}");
    // Existing content counts as pushed, whichever server answers.
    assert_eq!(push(registry.host()).unwrap(), Digest::of(index));
    assert_eq!(push(&proxy.host()).unwrap(), Digest::of(index));
}
