//! Squashed images: the same files in fewer layers.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests may panic and access the system directly"
)]

use crate::support::env::{Env, Who, as_root_and_as_user};
use crate::support::images::{Layout, entries};

const DOCKERFILE: &str = "FROM base:1\n\
    RUN echo big > /big; mkdir /d; echo 1 > /d/a; chown 7:8 /d; chmod 4755 /d/a\n\
    COPY file /d/\n\
    RUN rm /big /old/file; ln /d/a /d/b; rm -r /old/directory; mkdir /old/directory\n\
    ENV A=b\n\
    WORKDIR /w\n";

/// Builds the image as an OCI layout, and returns it.
fn built(env: &Env, name: &str, more: &[&str]) -> Layout {
    let output = format!("type=oci,tar=false,compression=uncompressed,dest={name}");
    let args = ["-t", name, "-o", &output, "--reproducible"];
    env.build(DOCKERFILE, &[&args[..], more].concat()).ok();
    let verified = rbuild::image::verify_layout(&env.path(name));
    verified.unwrap();
    Layout::read(&env.path(name))
}

as_root_and_as_user!(squashed_image_has_the_same_files_in_one_layer_above_the_base);

fn squashed_image_has_the_same_files_in_one_layer_above_the_base(who: Who) {
    let env = Env::of(who);
    env.write("file", "content\n");
    env.hand_over("context");
    env.base();
    let plain = built(&env, "plain", &[]);
    assert_eq!(plain.layers.len(), 5);
    let new = built(&env, "new", &["--squash"]);
    assert_eq!(new.layers.len(), 2);
    assert_eq!(new.layers[0], plain.layers[0], "the base is kept");
    let names: Vec<String> = entries(&new.layers[1]).into_keys().collect();
    let want = [
        "d/",
        "d/a",
        "d/b",
        "d/file",
        "old/",
        "old/.wh.file",
        "old/directory/",
        "old/directory/.wh.a",
        "old/directory/.wh.b",
        "w/",
    ];
    assert_eq!(names, want);
    let all = built(&env, "all", &["--squash-all"]);
    assert_eq!(all.layers.len(), 1);
    for (name, layout) in [("new", &new), ("all", &all)] {
        let done = env.rbuild(&["diff", "--json", "plain", name]).ok();
        let changes: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(changes["Files"].as_array().map(Vec::len).unwrap_or_default(), 0, "{changes}");
        assert_eq!(layout.config["config"], plain.config["config"]);
        let history = layout.config["history"].as_array().unwrap();
        let n_layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
        assert_eq!(n_layers, layout.layers.len(), "{history:?}");
    }
    // The same inputs give the same layer.
    assert_eq!(built(&env, "again", &["--squash"]).layers, new.layers);
}

#[test]
fn squashed_image_has_no_inline_cache() {
    let env = Env::new();
    let args = ["--squash", "--cache-to", "type=inline"];
    env.build("FROM scratch\nCOPY . /\n", &args).fails(2, &["cannot have an inline cache"]);
    env.build("FROM scratch\nCOPY . /\n", &["--squash", "--squash-all"])
        .fails(2, &["--squash-all"]);
}
