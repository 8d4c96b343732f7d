//! Output for programs matches the schemas in `docs/schemas` exactly.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests may panic and access the system directly"
)]

use std::fs;

use serde_json::{Value, json};

use crate::support::env::{Done, Env};
use crate::support::registry::{Answer, DockerRegistry, Scripted};
use crate::support::source;

/// A kind of JSON document, with its schema.
struct Form {
    name: &'static str,
    validator: jsonschema::Validator,
}

impl Form {
    /// Reads the schema at this path.
    fn new(name: &'static str) -> Self {
        let text = source::text_of(name);
        let mut schema: Value = serde_json::from_str(&text).unwrap();
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        // Readers of these documents accept unknown members; here each must be described.
        close(&mut schema);
        let validator = jsonschema::options().should_validate_formats(true).build(&schema);
        Self { name, validator: validator.unwrap() }
    }

    /// Checks documents, which may be one per line or span several lines.
    fn check(&self, text: &str) -> Vec<Value> {
        let documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let documents: Vec<Value> = documents.map(|document| document.expect(text)).collect();
        assert!(!documents.is_empty(), "{}: nothing was printed", self.name);
        for document in &documents {
            if let Err(error) = self.validator.validate(document) {
                panic!("{}: {document:#}: {error} at {}", self.name, error.instance_path());
            }
        }
        documents
    }
}

/// Forbids members that are not described, in every object.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            if members.contains_key("properties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns the standard output of a command.
fn printed(env: &Env, args: &[&str]) -> String {
    env.rbuild(args).ok().stdout
}

const DOCKERFILE: &str = "FROM base:1 AS tool\n\
    RUN --mount=type=cache,target=/c echo tool > /tool; rm -rf /old/directory\n\
    FROM base:1\n\
    ENV A=1\n\
    COPY --from=tool /tool /old/file\n\
    RUN echo more > /more; ln -s /more /link\n";

/// Returns a store with images of several kinds, a failed build, and a build that used the cache.
fn filled() -> Env {
    let env = Env::new();
    env.base();
    let metadata = ["-t", "app:1", "--metadata-file", "metadata.json"];
    env.build(DOCKERFILE, &metadata).ok();
    let both = ["--platform", "linux/amd64,linux/arm64", "-t", "both:1"];
    let args = [&both[..], &["--metadata-file", "index.json"]].concat();
    env.build("FROM scratch\nCOPY Dockerfile /\n", &args).ok();
    env.build("FROM base:1\nRUN false\n", &[]).fails(1, &[]);
    env.build(&DOCKERFILE.replace("echo more", "echo less"), &["-t", "app:2"]).ok();
    env.build("FROM base:1\nLABEL a=b\n", &["-o", "type=cacheonly", "--metadata-file", "m"]).ok();
    env
}

#[test]
fn priv_documents_are_what_their_schemas_say() {
    let env = filled();
    let images = Form::new("docs/schemas/images.schema.json")
        .check(&printed(&env, &["images", "--json", "--no-trunc"]));
    assert!(images.iter().any(|image| image["IsIndex"] == true));
    let history = Form::new("docs/schemas/image-history.schema.json");
    history.check(&printed(&env, &["history", "--json", "app:1"]));
    let inspect = Form::new("docs/schemas/inspect.schema.json");
    for args in [&["app:1"][..], &["both:1"], &["both:1", "--platform", "linux/arm64"]] {
        inspect.check(&printed(&env, &[&["inspect", "--json"], args].concat()));
    }
    let diff = Form::new("docs/schemas/diff.schema.json");
    for (old, new) in [("base:1", "app:1"), ("app:1", "app:2"), ("app:2", "app:2")] {
        diff.check(&printed(&env, &["diff", "--json", old, new]));
    }
    let (registry, files) = (DockerRegistry::open(), Scripted::new(|_, _| Answer::new(200, "x")));
    let name = format!("{}/base:1", registry.host());
    env.build("FROM base:1\n", &["-t", &name, "--push"]).ok();
    env.rbuild(&["rmi", &name]).ok();
    env.build(&format!("FROM {name}\nADD http://{}/f /f\n", files.host()), &[]).ok();
    let usage =
        &Form::new("docs/schemas/du.schema.json").check(&printed(&env, &["du", "--json"]))[0];
    let kinds: Vec<&Value> =
        usage["Records"].as_array().unwrap().iter().map(|record| &record["Type"]).collect();
    for kind in ["image", "step", "cachemount", "base", "download"] {
        assert!(kinds.contains(&&json!(kind)), "{kind} in {kinds:?}");
    }
    let metadata = Form::new("docs/schemas/metadata.schema.json");
    for (file, has_config) in [("metadata.json", true), ("index.json", false), ("m", true)] {
        let document = &metadata.check(&fs::read_to_string(env.path(file)).unwrap())[0];
        let config = &document["containerimage.config.digest"];
        assert_eq!(config.is_string(), has_config, "{document}");
    }
}

#[test]
fn priv_documents_about_builds_are_what_their_schemas_say() {
    let env = filled();
    let plan = Form::new("docs/schemas/plan.schema.json");
    let planned = printed(&env, &["plan", "--json", "context"]);
    plan.check(&planned);
    env.write("Dockerfile", format!("{DOCKERFILE}RUN true\n"));
    let fates = plan.check(&printed(&env, &["plan", "--json", "context"]))[0].to_string();
    assert!(fates.contains("\"cached\"") && fates.contains("\"runs\""), "{fates}");
    let list = printed(&env, &["history", "--json"]);
    assert_eq!(list, printed(&env, &["history", "ls", "--json"]));
    let builds = Form::new("docs/schemas/builds.schema.json").check(&list);
    assert!(builds.iter().any(|build| build["status"] == "failed"), "{list}");
    let ids: String = builds.iter().map(|b| format!("{}\n", b["id"].as_str().unwrap())).collect();
    assert_eq!(printed(&env, &["history", "-q"]), ids);
    let explain = Form::new("docs/schemas/explain.schema.json");
    for build in &builds {
        let id = build["id"].as_str().unwrap();
        let explained = &explain.check(&printed(&env, &["explain", "--json", id]))[0];
        let made = explained["not_cached"].as_array().unwrap();
        for step in made {
            assert_ne!(step["outcome"], "cached", "{explained}");
        }
        let text = printed(&env, &["explain", id]);
        for step in made.iter().filter_map(|step| step["reason"].as_str()) {
            assert!(text.contains(step), "{step} in {text}");
        }
    }
}

/// A command line, its exit status, and a part of its error message.
type Early<'a> = (&'a [&'a str], i32, &'a str);

#[test]
fn errors_before_a_build_are_json_too() {
    let progress = Form::new("docs/schemas/progress.schema.json");
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let cases: [Early<'_>; 7] = [
        (&["build", "context", "--no-such-option"], 2, "unexpected argument '--no-such-option'"),
        (&["build", "nowhere"], 2, "nowhere"),
        (&["build", "context", "-o", "type=unknown"], 2, "--output type=unknown"),
        (&["build", "context", "--push"], 2, "pushing needs a name"),
        (&["build", "context", "--platform", "linus/amd64"], 2, "linus"),
        (&["bild", "context"], 2, "unknown command `bild`"),
        (
            &["plan", "context", "--check"],
            2,
            "--check and --call cannot be used with `rbuild plan`",
        ),
    ];
    for (args, code, want) in cases {
        let done = env.rbuild(&[args, &["--progress=json"]].concat());
        assert_eq!(done.code, Some(code), "{args:?}: {}", done.stderr);
        let events = progress.check(&done.stderr);
        assert_eq!(events[0]["event"], "started", "{}", done.stderr);
        assert_eq!(events.len(), 2, "{}", done.stderr);
        let failed = &events[1];
        assert_eq!((&failed["event"], &failed["exit_status"]), (&json!("failed"), &json!(code)));
        let message = failed["message"].as_str().unwrap();
        assert!(message.contains(want) && !message.contains("Usage:"), "{failed}");
    }
    // As two arguments; and not where it is another program's option.
    let done = env.rbuild(&["build", "--progress", "json", "--bad", "context"]);
    progress.check(&done.stderr);
    let done: Done = env.rbuild(&["build", "--bad", "context", "--", "--progress=json"]);
    assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
    let done = env.rbuild(&["build", "--progress=json", "--help"]).ok();
    assert!(done.stdout.contains("Usage:") && done.stderr.is_empty(), "{}", done.stderr);
}
