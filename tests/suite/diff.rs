//! `rbuild diff` of two images, compared with what other tools find after unpacking both.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::env::{Done, Env};
use crate::support::normal::normal;

const OLD: &str = "FROM base:1\n\
    ENV A=1 B=1\n\
    RUN mkdir /d && head -c 9000 /dev/zero > /d/big && echo 1 > /d/mode && echo 1 > /d/owner\n\
    RUN ln -s big /d/link && echo 1 > /d/type && echo old > /only-old && echo x > /same\n\
    CMD [\"old\"]\n";
const NEW: &str = "FROM base:1\n\
    ENV A=2 B=1\n\
    RUN mkdir /d && head -c 12000 /dev/zero > /d/big && echo 1 > /d/mode && echo 1 > /d/owner\n\
    RUN ln -s mode /d/link && mkdir /d/type && echo x > /same && rm -r /old/directory\n\
    RUN chmod 600 /d/mode && chown 5:6 /d/owner && echo new > /only-new && rm /old/file\n\
    USER 1000\n\
    CMD [\"old\"]\n";

fn env() -> Env {
    let env = Env::new();
    env.base();
    for (name, text) in [("old:1", OLD), ("new:1", NEW)] {
        let directory = name.trim_end_matches(":1");
        env.build(text, &["-t", name, "--reproducible", "-o", directory]).ok();
    }
    env
}

#[test]
fn priv_two_images_differ_in_config_and_in_files_by_layer() {
    let env = env();
    let page = env.rbuild(&["diff", "old:1", "new:1"]).ok().stdout;
    assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page:?}");
    insta::assert_snapshot!("diff", normal(&page));
    let code = |args: &[&str]| env.rbuild(&[&["diff", "--exit-code"], args].concat()).code;
    assert_eq!((code(&["old:1", "new:1"]), code(&["old:1", "old:1"])), (Some(1), Some(0)));
    let same = env.rbuild(&["diff", "old:1", "old:1"]).ok().stdout;
    assert!(same.contains("The images are identical."), "{same}");
    env.rbuild(&["diff", "old:1", "none:1"]).fails(3, &["no image none:1 in the store"]);
}

#[test]
fn priv_the_document_names_what_diff_finds_in_the_unpacked_images() {
    let env = env();
    let text = env.rbuild(&["diff", "--json", "old:1", "new:1"]).ok().stdout;
    let shown: Value = serde_json::from_str(&text).unwrap();
    let files = shown["Files"].as_array().unwrap();
    let is = |file: &&Value, way: &str| file["Ways"].as_array().unwrap().contains(&json!(way));
    let paths = |ways: &[&str]| -> BTreeSet<String> {
        let found = files.iter().filter(|file| ways.iter().any(|way| is(file, way)));
        found.map(|file| file["Path"].as_str().unwrap().to_owned()).collect()
    };
    // diff(1) does not compare modes and owners.
    let args = ["-rq", "--no-dereference", "old", "new"];
    let done = Done::of(env.program("diff").args(args).output().unwrap());
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let mut seen = BTreeSet::new();
    for line in done.stdout.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let path = match words.as_slice() {
            ["Only", "in", directory, name] => {
                format!("{}/{name}", directory.trim_end_matches(':'))
            }
            ["Files", path, ..] | ["Symbolic", "links", path, ..] | ["File", path, ..] => {
                (*path).to_owned()
            }
            _ => line.to_owned(),
        };
        let path = path.trim_start_matches("old").trim_start_matches("new").to_owned();
        seen.insert(path);
    }
    let mut told = paths(&["added", "removed", "type", "content"]);
    // For a removed directory, diff(1) names the directory only.
    told.retain(|path| !path.starts_with("/old/directory/"));
    assert_eq!(told, seen);
    assert_eq!(paths(&["mode"]), ["/d/mode".to_owned()].into());
    assert_eq!(paths(&["owner"]), ["/d/owner".to_owned()].into());
    let at = |path: &str| {
        let file = files.iter().find(|file| file["Path"] == path).unwrap();
        (file["Image"].as_str().unwrap(), file["Layer"].as_u64().unwrap())
    };
    assert_eq!(at("/d/big"), ("new", 2));
    assert_eq!(at("/old/directory/a"), ("new", 3));
    assert_eq!(at("/d/owner"), ("new", 4));
    assert_eq!(at("/only-old"), ("old", 3));
    assert_eq!((&shown["SharedLayers"], &shown["IsSame"]), (&json!(1), &json!(false)));
    let env_change = json!({ "Member": "Env", "Removed": ["A=1"], "Added": ["A=2"] });
    assert!(shown["Config"].as_array().unwrap().contains(&env_change), "{}", shown["Config"]);
}

/// Loads `good:1` again as `evil:1`, with a sequence that sets the window title in every text.
fn with_evil(env: &Env) {
    env.build("FROM base:1\n", &["-t", "good:1", "-o", "type=docker,dest=good.tar"]).ok();
    fs::create_dir(env.path("archive")).unwrap();
    let tar = |args: &[&str]| Done::of(env.program("tar").args(args).output().unwrap()).ok();
    tar(&["-xf", "good.tar", "-C", "archive"]);
    let path = env.path("archive/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let config = env.path("archive").join(manifest[0]["Config"].as_str().unwrap());
    let mut config: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    let title = "\u{1b}]0;pwn\u{7}";
    config["variant"] = json!(title);
    config["author"] = json!(title);
    for entry in config["history"].as_array_mut().unwrap() {
        entry["comment"] = json!(title);
        entry["created_by"] = json!(title);
    }
    manifest[0]["Config"] = json!("evil.json");
    manifest[0]["RepoTags"] = json!(["evil:1"]);
    fs::write(env.path("archive/evil.json"), config.to_string()).unwrap();
    fs::write(path, manifest.to_string()).unwrap();
    for name in ["index.json", "oci-layout"] {
        drop(fs::remove_file(env.path("archive").join(name)));
    }
    tar(&["-cf", "evil.tar", "-C", "archive", "."]);
    env.rbuild(&["load", "-i", "evil.tar"]).ok();
}

#[test]
fn priv_control_sequences_of_an_image_are_not_shown() {
    let env = Env::new();
    env.base();
    with_evil(&env);
    for args in [
        &["diff", "good:1", "evil:1"][..],
        &["diff", "evil:1", "good:1"],
        &["history", "evil:1"],
        &["history", "--no-trunc", "evil:1"],
        &["inspect", "evil:1"],
        &["images"],
    ] {
        let done = env.rbuild(args).ok();
        let shown = done.stdout + &done.stderr;
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {shown:?}");
        assert!(args == ["images"] || shown.contains("]0;pwn"), "{args:?}: {shown}");
    }
}
