//! `rbuild imagetools`: indexes over images of registries, compared with docker buildx.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::process::{Command, Stdio};

use rbuild::oci::{Digest, Reference};
use serde_json::Value;

use crate::support::container::docker_client;
use crate::support::env::{Done, Env};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::{Answer, DockerRegistry, Scripted, client};

/// Needs no emulation, because nothing runs. A label has what Go escapes in JSON.
const FILES: &str =
    "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\nLABEL a=\"<b> & \\\"c\\\"\"\n";
const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];

/// Pushes an image for each platform by its digest, as runners of a pipeline do. Returns their digests.
fn push_all(env: &Env, repository: &str) -> Vec<String> {
    let push = |platform: &&str| {
        let output = format!("type=image,name={repository},push-by-digest=true,push=true");
        let args = ["--platform", platform, "-o", &output, "--metadata-file", "metadata.json"];
        env.build(FILES, &args).ok();
        let metadata: Value =
            serde_json::from_slice(&fs::read(env.path("metadata.json")).unwrap()).unwrap();
        metadata["containerimage.digest"].as_str().unwrap().to_owned()
    };
    PLATFORMS.iter().map(push).collect()
}

fn create(env: &Env, args: &[&str]) -> Done {
    env.rbuild(&[&["imagetools", "create"], args].concat())
}

/// Returns the document of a name in its registry.
fn raw(env: &Env, name: &str) -> Value {
    serde_json::from_str(&env.rbuild(&["imagetools", "inspect", "--raw", name]).ok().stdout)
        .unwrap()
}

fn platforms(index: &Value) -> Vec<String> {
    let platform = |entry: &Value| entry["platform"]["architecture"].as_str().unwrap().to_owned();
    index["manifests"].as_array().unwrap().iter().map(platform).collect()
}

fn digest_of(name: &str) -> Digest {
    client().digest(&name.parse::<Reference>().unwrap()).unwrap()
}

/// The job that joins the images in the multi-runner example of docker/build-push-action
/// (<https://docs.docker.com/build/ci/github-actions/multi-platform/>): a shell makes the arguments of what
/// docker/metadata-action and the other jobs wrote.
#[test]
fn join_of_a_pipeline_works_unchanged() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    let name = format!("{}/team/app", registry.host());
    for digest in push_all(&env, &name) {
        env.write(&format!("digests/{}", digest.strip_prefix("sha256:").unwrap()), "");
    }
    let metadata = format!(r#"{{"tags":["{name}:main","{name}:1.2"],"labels":{{}}}}"#);
    let script = format!(
        "docker() {{ shift; {} \"$@\"; }}\n\
         docker buildx imagetools create $(jq -cr '.tags | map(\"-t \" + .) | join(\" \")' <<< \"$DOCKER_METADATA_OUTPUT_JSON\") $(printf '{name}@sha256:%s ' *)\n\
         docker buildx imagetools inspect {name}:1.2",
        env!("CARGO_BIN_EXE_rbuild")
    );
    let mut shell = Command::new("bash");
    shell.args(["-euc", &script]).current_dir(env.path("context/digests"));
    shell.env("DOCKER_METADATA_OUTPUT_JSON", metadata).env("HOME", env.path("."));
    let shown = Done::of(shell.output().unwrap()).ok().stdout;
    let mut found = platforms(&raw(&env, &format!("{name}:main")));
    found.sort();
    assert_eq!(found, ["amd64", "arm", "arm64"]);
    assert!(shown.contains("  Platform:  linux/arm/v7\n"), "{shown}");
    assert_eq!(digest_of(&format!("{name}:main")), digest_of(&format!("{name}:1.2")));
}

#[test]
fn indexes_are_appended_filtered_and_annotated() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    let repository = format!("{}/a", registry.host());
    let digests = push_all(&env, &repository);
    let name = format!("{repository}:1");
    create(&env, &["-t", &name, &digests[0], "--annotation", "index:k=v"]).ok();
    create(&env, &["-t", &name, "--append", &digests[1]]).ok();
    assert_eq!(platforms(&raw(&env, &name)), ["amd64", "arm64"]);
    let descriptor = raw(&env, &name)["manifests"][1].to_string();
    env.write("descriptor", &descriptor);
    let file = env.path("context/descriptor").display().to_string();
    create(&env, &["-t", &name, "--file", &file, "--metadata-file", "result.json"]).ok();
    assert_eq!(platforms(&raw(&env, &name)), ["arm64"]);
    let result: Value =
        serde_json::from_slice(&fs::read(env.path("result.json")).unwrap()).unwrap();
    assert_eq!(result["containerimage.descriptor"]["digest"], digest_of(&name).to_string());
    assert_eq!(result["image.name"], repository);
    let sources: Vec<String> =
        digests.iter().map(|digest| format!("{repository}@{digest}")).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let annotation = "manifest-descriptor[linux/arm64]:k=v";
    let options =
        ["--dry-run", "--annotation", annotation, "--platform", "linux/arm64,linux/amd64"];
    let dry = create(&env, &[&options[..], &sources].concat()).ok().stdout;
    let index: Value = serde_json::from_str(&dry).unwrap();
    assert_eq!(platforms(&index), ["amd64", "arm64"]);
    assert_eq!(index["manifests"][1]["annotations"]["k"], "v");
    assert_eq!(index["manifests"][0].get("annotations"), None);
    // Without an index over it, the image keeps its digest.
    create(&env, &["-t", &name, "--prefer-index=false", sources[0]]).ok();
    assert_eq!(digest_of(&name).to_string(), digests[0]);
}

#[test]
fn images_are_copied_with_mounts_on_one_registry_and_relayed_to_another() {
    let (registry, other) = (DockerRegistry::open(), DockerRegistry::open());
    let proxy = Proxy::new(registry.host(), |_request| Fault::None);
    let env = Env::new();
    let source = format!("{}/from/app", proxy.host());
    let digests = push_all(&env, &source);
    create(
        &env,
        &[
            &["-t", &format!("{source}:1")],
            &digests.iter().map(String::as_str).collect::<Vec<_>>()[..],
        ]
        .concat(),
    )
    .ok();
    let index = digest_of(&format!("{source}:1"));
    let n_before = proxy.lines().len();
    let mounted = format!("{}/to/app:2", proxy.host());
    let said = create(&env, &["-t", &mounted, &format!("{source}:1")]).ok();
    assert!(said.stderr.contains(&format!("pushing {index} to {mounted}")), "{}", said.stderr);
    let lines = proxy.lines()[n_before..].to_vec();
    let of = |start: &str, part: &str| {
        lines.iter().filter(|line| line.starts_with(start) && line.contains(part)).count()
    };
    assert_eq!(of("POST", "/blobs/uploads/"), 6, "a config and a layer each: {lines:#?}");
    assert_eq!(
        (of("GET", "/blobs/"), of("PUT", "/blobs/"), of("PATCH", "")),
        (0, 0, 0),
        "{lines:#?}"
    );
    assert_eq!(digest_of(&mounted), index);
    let copied = format!("{}/elsewhere:3", other.host());
    create(&env, &["--progress", "none", "-t", &copied, &mounted]).ok();
    assert_eq!(digest_of(&copied), index);
    let shown = env.rbuild(&["inspect", "--remote", "--platform", "linux/arm64", &copied]).ok();
    assert!(shown.stdout.contains("linux/arm64"), "{}", shown.stdout);
    env.rbuild(&["pull", "--all-platforms", &copied]).ok();
}

#[test]
fn referrers_are_copied_and_attestations_listed() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    let repository = format!("{}/signed", registry.host());
    let image = push_all(&env, &repository)[0].clone();
    let client = client();
    let name: Reference = format!("{repository}@{image}").parse().unwrap();
    let manifest: Value = serde_json::from_slice(&client.manifest(&name).unwrap().bytes).unwrap();
    let artifact = |kind: &str| {
        let document = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": kind, "config": manifest["config"], "layers": [],
            "subject": { "mediaType": manifest["mediaType"], "digest": image, "size": 1 },
        });
        let bytes = serde_json::to_vec(&document).unwrap();
        let digest = Digest::of(&bytes);
        let by_digest = name.with_digest(digest);
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned().into();
        client.push_manifest(&by_digest, &media_type, &bytes).unwrap();
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": kind,
            "digest": digest.to_string(), "size": bytes.len(),
        })
    };
    let attestation = artifact("application/vnd.docker.attestation.manifest.v1+json");
    let signature = artifact("application/vnd.dev.cosign.artifact.sig.v1+json");
    let other = artifact("application/vnd.example.other");
    // This registry has no API for referrers, so there is a tag (distribution-spec, "Referrers Tag Schema").
    let list = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [attestation, signature, other],
    });
    let tag: Reference = format!("{repository}:{}", image.replace(':', "-")).parse().unwrap();
    let index_type = "application/vnd.oci.image.index.v1+json".to_owned().into();
    client.push_manifest(&tag, &index_type, &serde_json::to_vec(&list).unwrap()).unwrap();

    let target = format!("{}/copied:1", registry.host());
    create(&env, &["-t", &target, &format!("{repository}@{image}")]).ok();
    let index = raw(&env, &target);
    assert_eq!(platforms(&index), ["amd64", "unknown"]);
    assert_eq!(index["manifests"][1]["digest"], attestation["digest"]);
    assert_eq!(index["manifests"][1]["annotations"]["vnd.docker.reference.digest"], image);
    let has = |document: &Value| {
        let digest: Digest = document["digest"].as_str().unwrap().parse().unwrap();
        client.digest(&target.parse::<Reference>().unwrap().with_digest(digest)).is_ok()
    };
    assert_eq!((has(&attestation), has(&signature), has(&other)), (true, true, false));
}

#[test]
fn failures_name_what_is_missing() {
    let registry = DockerRegistry::open();
    let env = Env::new();
    let host = registry.host();
    let name = format!("{host}/a:1");
    create(&env, &[]).fails(2, &["needs the name of an image"]);
    create(&env, &[&name]).fails(2, &["needs --tag NAME, or --dry-run"]);
    create(&env, &["-t", &name, &format!("{host}/a:absent")])
        .fails(3, &["a:absent", "does not exist"]);
    let digest = Digest::of(b"x").to_string();
    let two = ["-t", &name, "-t", &format!("{host}/b:1"), &digest];
    create(&env, &two).fails(3, &["could be in several repositories", "REPOSITORY@sha256"]);
    create(&env, &["-t", &name, "{}"]).fails(2, &["not a descriptor"]);
    create(&env, &["-t", &name, "oci-layout://x"]).fails(2, &["layouts are not supported"]);
    create(&env, &["-t", &name, "--file", "absent"]).fails(3, &["absent"]);
    create(&env, &["-t", &name, &name, "--annotation", "x:k=v"]).fails(2, &["is not a level"]);
    let inspect = |format: &str| env.rbuild(&["imagetools", "inspect", "--format", format, &name]);
    inspect("{{.Name").fails(2, &["--format", "has no `}}`"]);
    env.rbuild(&["imagetools", "inspect", &name]).fails(3, &["does not exist"]);
    env.rbuild(&["imagetools", "inspect", "--raw", "--format", "x", &name]).fails(2, &["--raw"]);
    // A document of a registry is not trusted.
    let odd = Scripted::new(|_request, _n_before| {
        Answer::new(200, r#"{"schemaVersion":2,"manifests":[{"digest":7}]}"#)
            .header("Content-Type", "application/vnd.oci.image.index.v1+json")
    });
    let odd = format!("{}/a:1", odd.host());
    env.rbuild(&["imagetools", "inspect", &odd]).fails(3, &["is not valid"]);
    create(&env, &["-t", &name, &odd, &odd]).fails(3, &["is not valid"]);
}

/// Commands whose results are compared with docker's. `NAME` is an index, `ONE` an image.
const TEMPLATES: [&str; 16] = [
    "{{json .}}",
    "{{json .Manifest}}",
    "{{json .Image}}",
    "{{.Name}}",
    "{{json .Name}}",
    "{{range .Manifest.Manifests}}{{.Digest}} {{end}}",
    "{{json (index .Image \"linux/arm64\")}}",
    "{{json (index .Image \"linux/none\")}}",
    "{{(index .Manifest.Manifests 0).Digest}}",
    "{{range $i, $m := .Manifest.Manifests}}{{if $i}},{{end}}{{$m.Platform.OS}}/{{$m.Platform.Architecture}}{{with $m.Platform.Variant}}/{{.}}{{end}}{{end}}",
    "{{range $p, $i := .Image}}{{$p}}: {{$i.Config.Labels.a}} {{$i.RootFS.DiffIDs}} {{len $i.History}};{{end}}",
    "{{with .Manifest}}{{.Digest}} {{.Size}} {{.MediaType}}{{end}}",
    "{{with .Manifest}}{{.Annotations}}{{end}}",
    "{{(index .Image \"linux/arm64\").Config.Entrypoint}} {{(index .Image \"linux/arm64\").Author}}",
    "{{range .Manifest.Manifests}}{{if and (eq .Platform.Architecture \"arm64\") (gt .Size 1)}}{{.Digest}}{{else}}-{{end}}{{end}}",
    "{{printf \"%q %d\" .Name (len .Manifest.Manifests)}} {{- \"x\" | printf \"%s\\n\" -}}  y",
];

#[test]
fn results_are_those_of_docker_buildx() {
    let Some(docker) = docker_client() else { return };
    let registry = DockerRegistry::open();
    let env = Env::new();
    let repository = format!("{}/compared", registry.host());
    let digests = push_all(&env, &repository);
    let docker = |args: &[&str]| {
        let mut command = Command::new(&docker);
        command.args(["buildx", "imagetools"]).args(args).stdin(Stdio::null());
        Done::of(command.output().unwrap()).ok().stdout
    };
    let ours = |args: &[&str]| env.rbuild(&[&["imagetools"], args].concat()).ok().stdout;
    let sources: Vec<String> =
        digests.iter().map(|digest| format!("{repository}@{digest}")).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    for options in [
        &[][..],
        &["--annotation", "index:k=<v> & w"],
        &["--annotation", "manifest-descriptor[linux/arm64]:k=v", "--annotation", "index:a=b"],
    ] {
        let args = [&["create", "--dry-run"], options, &sources].concat();
        assert_eq!(ours(&args), docker(&args), "{options:?}");
    }
    let (name, one) = (format!("{repository}:1"), format!("{repository}:one"));
    docker(&[&["create", "-t", &name], &sources[..]].concat());
    docker(&["create", "--prefer-index=false", "-t", &one, sources[0]]);
    let args = ["create", "--dry-run", "--append", "-t", &name, sources[1]];
    assert_eq!(ours(&args), docker(&args));
    for name in [&name, &one] {
        for args in [&["inspect", name][..], &["inspect", "--raw", name]] {
            assert_eq!(ours(args), docker(args), "{args:?}");
        }
    }
    for template in TEMPLATES {
        let args = ["inspect", "--format", template, &name];
        assert_eq!(ours(&args), docker(&args), "{template}");
    }
    for template in ["{{json .}}", "{{json .Image.Config}}", "{{.Image.OS}}", "{{json .Manifest}}"]
    {
        let args = ["inspect", "--format", template, &one];
        assert_eq!(ours(&args), docker(&args), "{template}");
    }
}
