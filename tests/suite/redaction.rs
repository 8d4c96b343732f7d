//! Passwords in URLs: nothing that rbuild prints or stores may contain one.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::path::Path;

use crate::support::env::{Done, Env};
use crate::support::registry::{Answer, Scripted};

const SECRET: &str = "hunter2";

#[track_caller]
fn clean(what: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(SECRET));
    assert_eq!(line, None, "{what}");
}

#[track_caller]
fn all_clean(done: &Done) {
    clean("standard output", &done.stdout);
    clean("standard error", &done.stderr);
}

fn records(env: &Env) -> String {
    let directory = fs::read_dir(env.path("store/builds")).unwrap();
    directory.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn passwords_of_urls_are_in_no_log_report_record_or_lock_file() {
    let files = Scripted::new(|_, _| Answer::new(200, "content"));
    let url = format!("http://user:{SECRET}@{}/f", files.host());
    let dockerfile = format!(
        "FROM scratch AS Base\n# {url}\nARG URL={url}\nADD {url} /f\nCOPY <<EOF /script\ncurl {url}\nEOF\n"
    );
    let env = Env::new();
    env.write("Dockerfile", dockerfile);
    let lock = env.rbuild(&["lock", "context"]).ok();
    all_clean(&lock);
    clean("the lock file", &read(&env.path("context/rbuild.lock")));
    for progress in ["plain", "json"] {
        let output = format!("type=oci,dest={progress}.tar");
        let args = ["build", "context", "--report", "page.html", "--progress", progress];
        let done = env.rbuild(&[&args[..], &["--no-cache", "--explain", "-o", &output]].concat());
        all_clean(&done.ok());
        clean("the report", &read(&env.path("page.html")));
    }
    let recorded = records(&env);
    assert!(recorded.contains("ADD http://user:xxxxx@"), "{recorded}");
    clean("the records", &recorded);
    let index = fs::read(env.path("store/index.db")).unwrap();
    assert!(!String::from_utf8_lossy(&index).contains(SECRET), "the index holds it");
    for args in
        [&["du", "-v"][..], &["--check", "context"], &["--check", "--format=json", "context"]]
    {
        all_clean(&env.rbuild(args));
    }
}

#[test]
fn passwords_of_urls_are_in_no_error() {
    let url = format!("http://user:{SECRET}@127.0.0.1:1/f");
    for dockerfile in [
        format!("FROM scratch\nADD {url} /f\n"),
        format!("FROM scratch\nADD {url}?x=/y.git#main /f\n"),
        format!("FROM scratch\nADD --checksum=bad {url} /f\n"),
        format!("FROM scratch\nRNU curl {url}\n"),
        format!("FROM {url}\n"),
        format!("FROM scratch\nCOPY {url} /f\n"),
    ] {
        let env = Env::new();
        let page = env.build(&dockerfile, &["--report", "page.html"]);
        assert_ne!(page.code, Some(0), "{dockerfile}");
        all_clean(&page);
        clean("the report", &read(&env.path("page.html")));
        clean("the records", &records(&env));
    }
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch\nCOPY --from=x f /f\n");
    let context = format!("x={url}");
    for args in [
        &["build", "context", "--build-context", &context][..],
        &["build", &url],
        &["build", "context", "--build-context", &url],
        &["build", "context", "-t", &url],
        &["pull", &url],
    ] {
        let done = env.rbuild(args);
        assert_ne!(done.code, Some(0), "{args:?}");
        all_clean(&done);
    }
}
