//! `--load` into an engine behind a socket, and through podman.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rbuild::oci::Digest;
use serde_json::{Value, json};

use crate::support::env::{Done, Env, Who, as_root_and_as_user};

const APP: &str = "FROM base:1\nRUN echo 1 > /one\n";

as_root_and_as_user!(an_image_is_loaded_into_an_engine);

/// State of the engine: images, behaviour, and what it received.
#[derive(Default)]
struct State {
    /// The layers of its only image.
    layers: Vec<String>,
    /// Answers to loads, in order; later loads succeed.
    refusals: Vec<(u16, String)>,
    archives: Vec<PathBuf>,
}

/// A stand-in for Docker's engine, as far as rbuild uses it.
struct Engine {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Engine {
    fn start(directory: &Path) -> Self {
        let socket = directory.join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, directory) = (Arc::clone(&state), directory.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up is not a fault of the engine.
                drop(stream.and_then(|stream| serve(stream, &shared, &directory)));
            }
        });
        Self { socket, state }
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn archives(&self) -> Vec<PathBuf> {
        self.state.lock().unwrap().archives.clone()
    }
}

fn serve(stream: UnixStream, state: &Mutex<State>, directory: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let mut state = state.lock().unwrap();
    let (status, body) = match target.as_str() {
        "/info" => (200, json!({ "ServerVersion": "28.5", "DriverStatus": [["Backing", "x"]] })),
        "/version" => (200, json!({ "Version": "28.5" })),
        "/images/json" => (200, json!([{ "Id": "sha256:1", "Created": 1 }])),
        "/images/sha256:1/json" => (200, json!({ "RootFS": { "Layers": state.layers } })),
        "/images/load?quiet=1" => {
            let path = directory.join(format!("loaded-{}.tar", state.archives.len()));
            fs::write(&path, chunks(&mut reader)?)?;
            state.archives.push(path);
            match state.refusals.is_empty() {
                true => (200, json!({ "stream": "Loaded image: app:1\n" })),
                false => {
                    let (status, message) = state.refusals.remove(0);
                    let name = if status == 200 { "error" } else { "message" };
                    (status, json!({ name: message }))
                }
            }
        }
        other => (404, json!({ "message": format!("no {other}") })),
    };
    let (body, mut stream) = (body.to_string(), stream);
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    )
}

/// Reads a chunked body (RFC 9112, 7.1).
fn chunks(reader: &mut BufReader<UnixStream>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16).unwrap();
        reader.by_ref().take(size).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Returns how many of the image's layers are in an archive, and how many the image has.
fn layers_in(archive: &Path) -> (usize, usize) {
    let listed = Command::new("tar").arg("tf").arg(archive).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let manifest =
        Command::new("tar").arg("xOf").arg(archive).arg("manifest.json").output().unwrap();
    let manifest: Value = serde_json::from_slice(&manifest.stdout).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    let is_there = |layer: &&Value| listed.lines().any(|line| line == layer.as_str().unwrap());
    (layers.iter().filter(is_there).count(), layers.len())
}

fn an_image_is_loaded_into_an_engine(who: Who) {
    let mut env = Env::of(who);
    env.base();
    let engine = Engine::start(&env.path("."));
    env.set("DOCKER_HOST", &engine.host());
    let done = env.build(APP, &["-t", "app:1", "--load", "--iidfile", "iid"]).ok();
    assert!(done.stderr.contains("Loaded image: app:1\n"), "{}", done.stderr);
    let archive = engine.archives().pop().unwrap();
    assert_eq!(layers_in(&archive), (2, 2));
    let from = format!("docker-archive:{}:app:1", archive.display());
    let config = Command::new("skopeo").args(["inspect", "--config", "--raw", &from]).output();
    let config = Digest::of(&config.unwrap().stdout).to_string();
    assert_eq!(config, fs::read_to_string(env.path("iid")).unwrap());

    // Layers that the engine has are left out, but not those above a layer that it lacks.
    let shown: Value =
        serde_json::from_str(&env.rbuild(&["inspect", "--json", "app:1"]).ok().stdout).unwrap();
    let layers: Vec<String> = serde_json::from_value(shown["Layers"].clone()).unwrap();
    engine.state.lock().unwrap().layers = vec![layers[0].clone()];
    env.build(APP, &["-t", "app:1", "-o", "type=docker"]).ok();
    assert_eq!(layers_in(&engine.archives().pop().unwrap()), (1, 2));
    engine.state.lock().unwrap().layers = vec![layers[1].clone()];
    env.build(APP, &["-t", "app:1", "--load=docker"]).ok();
    assert_eq!(layers_in(&engine.archives().pop().unwrap()), (2, 2));

    // The engine reports a layer that it no longer has.
    {
        let mut state = engine.state.lock().unwrap();
        state.layers.clone_from(&layers);
        state.refusals.push((200, "open layer.tar: no such file".to_owned()));
    }
    let before = engine.archives().len();
    env.build(APP, &["-t", "app:1", "--load"]).ok();
    let archives = engine.archives();
    assert_eq!(
        archives[before..].iter().map(|path| layers_in(path)).collect::<Vec<_>>(),
        [(0, 2), (2, 2)]
    );

    {
        let mut state = engine.state.lock().unwrap();
        state.layers.clear();
        state.refusals.push((500, "no space\u{1b}[31m left".to_owned()));
    }
    env.build(APP, &["--load"]).fails(3, &["engine.sock refused the image: no space[31m left"]);
    env.build(APP, &["--load", "--platform", "linux/amd64,linux/arm64"])
        .fails(2, &["--load support one platform"]);
    env.set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    env.build(APP, &["--load"]).fails(3, &["cannot connect to the engine at /nowhere/engine.sock"]);
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn docker_plugin_loads_into_the_engine_if_there_is_one_and_no_other_output() {
    let mut env = Env::new();
    env.base();
    env.rbuild(&["docker-plugin", "install"]).ok();
    env.write("Dockerfile", APP);
    let engine = Engine::start(&env.path("."));
    let plugin = env.shown("docker/cli-plugins/docker-buildx");
    let run = |env: &Env, args: &[&str]| {
        let mut command = env.program(&plugin);
        command.env("RBUILD_ROOT", env.path("store")).args(args);
        Done::of(command.output().unwrap())
    };
    let n_loaded = || engine.archives().len();
    // As `docker -H HOST build` starts a plugin.
    run(&env, &["-H", &engine.host(), "buildx", "build", "-t", "app:1", "context"]).ok();
    assert_eq!(n_loaded(), 1);
    env.set("DOCKER_HOST", &engine.host());
    for args in [&["-o", "type=cacheonly"][..], &["--call=check"]] {
        let _checked = run(&env, &[&["buildx", "build", "context"], args].concat());
    }
    assert_eq!(n_loaded(), 1);
    run(&env, &["buildx", "build", "--load", "--push=false", "context"]).ok();
    assert_eq!(n_loaded(), 2);
    let both = ["buildx", "build", "--platform=linux/amd64,linux/386", "context"];
    let done = run(&env, &both);
    assert!(done.stderr.contains("an engine holds one platform of an image"), "{}", done.stderr);
    env.set("DOCKER_HOST", "unix:///nowhere/engine.sock");
    let done = run(&env, &["buildx", "build", "-t", "app:2", "context"]).ok();
    assert!(done.stderr.contains("docker's engine is not running"), "{}", done.stderr);
    assert!(env.rbuild(&["images", "-q", "app:2"]).ok().stdout.len() > 1);
    assert_eq!(n_loaded(), 2);
}

#[test]
fn priv_podman_reads_the_archive_from_its_standard_input() {
    let mut env = Env::new();
    env.base();
    fs::create_dir(env.path("bin")).unwrap();
    let script = |text: &str| {
        let path = env.path("bin/podman");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let archive = env.shown("got.tar");
    script(&format!(
        "echo \"$@\" >&2; /bin/busybox cat > {archive}; echo Loaded image: localhost/app:1"
    ));
    env.write("Dockerfile", APP);
    let run = |env: &Env, args: &[&str]| {
        let mut command = env.command(&[&["build", "context"], args].concat());
        Done::of(command.output().unwrap())
    };
    let path = env.shown("bin");
    env.set("PATH", &path);
    let done = run(&env, &["-t", "app:1", "--load=podman"]).ok();
    assert!(done.stderr.contains("Loaded image: localhost/app:1\n"), "{}", done.stderr);
    assert_eq!(layers_in(&env.path("got.tar")), (2, 2));
    let script =
        |text: &str| fs::write(env.path("bin/podman"), format!("#!/bin/sh\n{text}\n")).unwrap();
    script("/bin/busybox cat > /dev/null; echo no room for it >&2; exit 125");
    run(&env, &["--load=podman"]).fails(3, &["`podman load` failed: no room for it"]);
    fs::remove_file(env.path("bin/podman")).unwrap();
    run(&env, &["--load=podman"]).fails(3, &["podman was not found", "-o type=docker,dest=FILE"]);
}
