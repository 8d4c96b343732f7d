//! The most common mistakes: `testdata/broken/<name>` holds a context, the command line, and
//! everything that rbuild prints about it.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::env::{Done, Env};
use crate::support::proxy::tunnel_to;
use crate::support::registry::DockerRegistry;

/// Number of cases.
const N_CASES: usize = 54;

/// As long as a registry's address on any port that the kernel chooses, so that carets stay
/// aligned.
const SHOWN_REGISTRY: &str = "127.0.0.1:50000";
const SHOWN_PRIVATE: &str = "127.0.0.1:50001";
/// An address on which no server listens.
const NOBODY: &str = "127.0.0.1:1";

/// Output of Debian's apt-get without a network.
const APT_GET: &str = r#"#!/bin/sh
if [ "$1" = update ]; then
  echo "Reading package lists..."
  touch /var-lists
  exit 0
fi
echo "Reading package lists..."
echo "Building dependency tree..."
echo "Reading state information..."
echo "E: Unable to locate package $3" >&2
exit 100
"#;

/// Services that the cases use.
struct World {
    env: Env,
    registry: DockerRegistry,
    private: DockerRegistry,
}

impl World {
    fn new() -> Self {
        let mut env = Env::new();
        let (registry, private) = (DockerRegistry::open(), DockerRegistry::with_password());
        env.write_base();
        for applet in ["wget", "whoami"] {
            symlink("busybox", env.path("base/bin").join(applet)).unwrap();
        }
        // Requests for Docker Hub are answered by the test's registry, which has none of its
        // images.
        fs::write(env.path("registries.toml"), "[registry.\"docker.io\"]\nhttp = true\n").unwrap();
        env.set("RBUILD_REGISTRIES", &env.shown("registries.toml"));
        env.set("HTTP_PROXY", &format!("http://{}", tunnel_to(registry.host())));
        env.set("NO_PROXY", "127.0.0.1");
        env.set("RBUILD_ROOT", &env.shown("store"));
        env.base();
        env.write("apt-get", APT_GET);
        env.build("FROM base:1\nCOPY --chmod=755 apt-get /bin/\n", &["-t", "debian:1"]).ok();
        for (name, file, platform) in [
            ("team/app:1.0", "FROM base:1\n", "linux/amd64"),
            ("team/many:1.0", "FROM scratch\n", "linux/amd64,linux/arm64"),
        ] {
            let name = format!("{}/{name}", registry.host());
            env.build(file, &["--platform", platform, "-t", &name, "--push"]).ok();
        }
        Self { env, registry, private }
    }

    /// Runs the command of a case in its context. Returns the command, its messages and its exit
    /// status.
    fn output(&self, case: &Path) -> String {
        let context = self.env.path("context");
        fs::remove_dir_all(&context).unwrap();
        self.copy(&case.join("context"), &context);
        if case.ends_with("foreign-program") {
            fs::write(context.join("tool"), program(LOONGARCH)).unwrap();
        }
        if case.ends_with("missing-loader") {
            fs::write(context.join("server"), program(HERE)).unwrap();
        }
        let command = fs::read_to_string(case.join("command")).unwrap();
        let words: Vec<&str> = command.split_whitespace().collect();
        let (program, args) = words.split_first().unwrap();
        assert_eq!(*program, "rbuild", "{}", case.display());
        let mut rbuild = self.env.program(env!("CARGO_BIN_EXE_rbuild"));
        let done = Done::of(rbuild.args(args).current_dir(&context).output().unwrap());
        assert_eq!(done.stdout, "", "{}", case.display());
        let code = done.code.unwrap_or_else(|| panic!("{}: a signal", case.display()));
        assert!((1..=3).contains(&code), "{}: {code}\n{}", case.display(), done.stderr);
        format!("$ {command}{}[exit status {code}]\n", self.shown(&done.stderr))
    }

    /// Copies a context and inserts the addresses of the registries.
    fn copy(&self, from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
            if from.is_dir() {
                self.copy(&from, &to);
                continue;
            }
            // Keeps the mode.
            fs::copy(&from, &to).unwrap();
            let text = fs::read_to_string(&from).unwrap();
            let put_in = text
                .replace("{registry}", self.registry.host())
                .replace("{private}", self.private.host())
                .replace("{nobody}", NOBODY);
            if put_in != text {
                fs::write(&to, put_in).unwrap();
            }
        }
    }

    /// Returns the text without the parts that differ between runs.
    fn shown(&self, text: &str) -> String {
        let text = text
            .replace(self.registry.host(), SHOWN_REGISTRY)
            .replace(self.private.host(), SHOWN_PRIVATE)
            .replace(&self.env.shown("context"), "/home/you/app");
        without_times(&text)
    }
}

/// Returns the text with zeros for the times in lines about steps.
fn without_times(text: &str) -> String {
    let word = |word: &str| {
        let number = word.strip_suffix('s').unwrap_or(word);
        let is_time = number.contains('.') && number.parse::<f64>().is_ok();
        if is_time { word.replace(|c: char| c.is_ascii_digit(), "0") } else { word.to_owned() }
    };
    let line = |line: &str| match line.strip_prefix('#') {
        Some(_) => line.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n",
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// `e_machine` of a processor that none of our machines has, and of this machine's processor.
const LOONGARCH: u16 = 258;
const HERE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// Returns the head of a 64-bit program whose loader is in no image.
fn program(machine: u16) -> Vec<u8> {
    let loader = b"/lib/ld-linux.so.2\0";
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    bytes.extend(machine.to_le_bytes());
    // e_phoff; e_ehsize, e_phentsize, e_phnum.
    bytes.resize(32, 0);
    bytes.push(64);
    bytes.resize(52, 0);
    bytes.extend([64, 0, 56, 0, 1, 0]);
    bytes.resize(64, 0);
    // PT_INTERP, p_offset, p_filesz.
    bytes.push(3);
    bytes.resize(72, 0);
    bytes.push(120);
    bytes.resize(96, 0);
    bytes.push(u8::try_from(loader.len()).unwrap());
    bytes.resize(120, 0);
    bytes.extend(loader);
    bytes
}

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/broken");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

#[test]
fn every_broken_build_says_how_to_fix_it() {
    let cases = cases();
    assert_eq!(cases.len(), N_CASES);
    let world = World::new();
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for case in cases {
        let output = world.output(&case);
        settings.set_snapshot_path(&case);
        settings.bind(|| insta::assert_snapshot!("output", output));
    }
    assert_eq!(world.env.leftovers("store"), "");
}
