//! Many steps.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests say what they mean with them"
)]

use std::fmt::Write as _;
use std::fs;

use crate::support::env::{Env, Who};

/// A stage of `n_steps`, some of which hide what earlier ones made, near to them and far from them.
fn stage_of(n_steps: usize) -> String {
    let mut dockerfile = String::from("FROM base:1\n");
    for number in 0..n_steps {
        let change = match number {
            10 => "mkdir -p /d/e && echo ten > /d/ten && chown 3:4 /d && chmod 2711 /d/e",
            20 => "rm /old/file && echo base > /kept && echo a > /a && ln /kept /linked",
            // A mark of a removal, and then a directory, in one part of the stack.
            30 => "rm /a",
            40 => "mkdir /a && touch /a/inside && chmod 700 /a",
            // An opaque directory, and a file in place of a directory, over another part.
            300 => "rm -r /d && mkdir /d && echo new > /d/new && chown 5:6 /d",
            310 => "rm -r /old/folder && echo file > /old/folder",
            320 => "rm /old/folder && mkdir /old/folder && touch /old/folder/c",
            330 => "chmod 1777 /w && rm -r /w/5 && echo late >> /kept",
            _ => {
                writeln!(dockerfile, "WORKDIR /w/{number}").unwrap();
                continue;
            }
        };
        writeln!(dockerfile, "RUN {change}").unwrap();
    }
    dockerfile
}

fn stage_of_many_steps_shows_what_one_layer_shows(who: Who, n_steps: usize) {
    let env = Env::of(who);
    env.base();
    let seen = "find / -xdev -not -path '/proc*' -not -path '/sys*' -not -path '/dev*' -not -name seen -exec \
                stat -c '%n %f %u:%g %s' {} + | sort > /tmp/seen";
    let dockerfile = format!("{}RUN {seen}\n", stage_of(n_steps));
    env.build(&dockerfile, &["-o", "files", "-t", "high:1"]).ok();
    let files = |name: &str| fs::read_to_string(env.path("files").join(name)).unwrap();
    assert_eq!((&*files("d/new"), &*files("kept")), ("new\n", "base\nlate\n"));
    for gone in ["d/ten", "d/e", "old/file", "old/folder/a", "w/5"] {
        assert!(!env.path("files").join(gone).exists(), "{gone}");
    }
    let flat = format!("FROM scratch\nCOPY --from=high:1 / /\nRUN rm /tmp/seen && {seen}\n");
    env.build(&flat, &["-o", "flat"]).ok();
    let flat = fs::read_to_string(env.path("flat/tmp/seen")).unwrap();
    // A directory's size is the file system's own affair.
    let sizes = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [name, mode, owner, size] if mode.starts_with('4') || size.is_empty() => {
                format!("{name} {mode} {owner}")
            }
            _ => line.to_owned(),
        });
        lines.collect()
    };
    assert_eq!(sizes(&files("tmp/seen")), sizes(&flat));
    assert!(flat.contains("/old/folder/c ") && !flat.contains("/old/file"), "{flat}");
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn priv_stage_of_2000_steps() {
    if let Some(who) = Who::root() {
        stage_of_many_steps_shows_what_one_layer_shows(who, 2000);
    }
}

#[test]
fn priv_stage_of_600_steps_of_a_user() {
    if let Some(who) = Who::user() {
        stage_of_many_steps_shows_what_one_layer_shows(who, 600);
    }
}
