//! Help at the shell prompt: completion, and the manual.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests run a shell and panic on failure"
)]

use std::fs;

use crate::support::env::{Done, Env};

/// Returns bash's completions of these words, the last of which is incomplete.
fn offered(env: &Env, words: &[&str]) -> Vec<String> {
    let rbuild = env!("CARGO_BIN_EXE_rbuild");
    let (last, before) =
        (words.len() - 1, if words.len() > 1 { words[words.len() - 2] } else { "" });
    let script = format!(
        "source <({rbuild} completion bash); COMP_WORDS=({}); COMP_CWORD={last}; \
         _rbuild rbuild '{}' '{before}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words[last],
    );
    let bash = env.program("bash").args(["--norc", "-c", &script]).output();
    Done::of(bash.unwrap()).ok().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let env = Env::new();
    for (words, want) in [
        (&["rbuild", "pru"][..], &["prune"][..]),
        (&["rbuild", "prune", "--dry"], &["--dry-run"]),
        (&["rbuild", "build", "--no-c"], &["--no-cache", "--no-cache-filter"]),
        (&["rbuild", "--no-cache-"], &["--no-cache-filter"]),
        (&["rbuild", "completion", "z"], &["zsh"]),
    ] {
        assert_eq!(offered(&env, words), want, "{words:?}");
    }
}

#[test]
fn every_shell_gets_a_script_with_every_command() {
    let env = Env::new();
    let commands = ["build", "prune", "history", "completion"];
    for shell in ["bash", "zsh", "fish"] {
        let script = env.rbuild(&["completion", shell]).ok().stdout;
        let missing: Vec<_> = commands.iter().filter(|name| !script.contains(*name)).collect();
        assert!(missing.is_empty() && script.len() > 1000, "{shell}: {missing:?}");
    }
    env.rbuild(&["completion", "tcsh"]).fails(2, &["tcsh", "bash"]);
}

#[test]
fn manual_has_a_page_for_each_command_and_each_option_on_it() {
    let env = Env::new();
    env.rbuild(&["man", "pages/man1"]).ok();
    let page = |name: &str| fs::read_to_string(env.path("pages/man1").join(name)).unwrap();
    assert!(page("rbuild.1").contains(".TH rbuild"));
    let build = page("rbuild-build.1");
    let help = env.rbuild(&["build", "--help"]).ok().stdout;
    let mut n_options = 0;
    for word in help.split_whitespace().filter(|word| word.starts_with("--")) {
        let option = word.trim_end_matches(|c: char| !c.is_ascii_lowercase());
        let option = option.split(['=', '[']).next().unwrap_or_default();
        assert!(build.contains(&option.replace('-', "\\-")), "{option} is not on the page");
        n_options += 1;
    }
    assert!(n_options > 40, "the help was read: {n_options}");
}

#[test]
fn short_help_is_a_line_an_option_and_long_help_says_more() {
    let env = Env::new();
    let short = env.rbuild(&["build", "-h"]).ok().stdout;
    let wide: Vec<&str> = short.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    let options: Vec<&str> = short.lines().filter(|line| line.contains(" --")).collect();
    assert!(options.len() > 40, "{short}");
    for heading in ["Inputs:", "Cache:", "RUN steps:", "Global options:"] {
        assert!(short.contains(&format!("\n{heading}\n")), "{short}");
    }
    assert_eq!(env.rbuild(&["-h"]).ok().stdout.lines().filter(|l| l.len() > 100).count(), 0);
    // The help is the same without the word `build`.
    assert_eq!(env.rbuild(&["-t", "a", "-h"]).ok().stdout, short);
    let long = env.rbuild(&["build", "--help"]).ok().stdout;
    assert!(long.contains("mounts=true for the directories of RUN --mount=type=cache"), "{long}");
    assert!(long.contains("[possible values: default, none, host, private]"), "{long}");
    assert!(long.lines().count() > 2 * short.lines().count());
}

#[test]
fn rbuild_alone_says_what_to_type_here() {
    let env = Env::new();
    let alone = || {
        let mut rbuild = env.program(env!("CARGO_BIN_EXE_rbuild"));
        let done = Done::of(rbuild.current_dir(env.path("context")).output().unwrap());
        assert_eq!((done.code, &*done.stdout), (Some(2), ""));
        done.stderr
    };
    assert!(alone().contains("a small one is\n\n  FROM busybox\n"), "{}", alone());
    env.write("Dockerfile.\u{1b}]0;pwn\u{7}\n", "FROM scratch\n");
    assert!(alone().contains(r" -f Dockerfile.\u{1b}]0;pwn\u{7}\n ."), "{}", alone());
    assert!(!alone().contains(|c: char| c.is_control() && c != '\n'), "{:?}", alone());
    let missing = env.build("", &["-f", "none"]);
    assert!(!missing.stderr.contains(|c: char| c.is_control() && c != '\n'), "{missing:?}");
    std::fs::remove_dir_all(env.path("context")).unwrap();
    std::fs::create_dir(env.path("context")).unwrap();
    env.write("docker/Dockerfile", "FROM scratch\n");
    let want = "There is no ./Dockerfile, but docker/Dockerfile; build that with\n\n  \
                rbuild -t context docker\n";
    assert!(alone().contains(want), "{}", alone());
    env.write("Dockerfile", "FROM scratch\n");
    let want = "Build ./Dockerfile with\n\n  rbuild -t context .\n";
    assert!(alone().contains(want), "{}", alone());
}
