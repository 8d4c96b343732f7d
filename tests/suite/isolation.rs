//! The matrix of isolation: each way of starting rbuild, and each isolation of steps there, builds
//! the images that root builds on the host.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::OnceLock;

use rbuild::sandbox::Isolation;

use crate::support::container::Docker;
use crate::support::env::{Done, Env, Who, skip};
use crate::support::sandbox::{TestUser, has_overlays_in_memory};

/// The kinds of isolation that rbuild has. Cells that need another one are counted, and not run.
const READY: &[Isolation] =
    &[Isolation::Namespace, Isolation::SingleId, Isolation::Chroot, Isolation::Emulated];

/// A value of `--isolation`; [`Ask::Auto`] passes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Auto,
    Namespace,
    Chroot,
    Emulated,
}

impl Ask {
    const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Namespace => "namespace",
            Self::Chroot => "chroot",
            Self::Emulated => "emulated",
        }
    }
}

/// Expected result of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// All images, with this isolation of their steps.
    Images(Isolation),
    /// An error of this isolation, with this text, for each image with a step.
    Refusal(Isolation, &'static str),
}
use Expect::{Images, Refusal};

/// The start of rbuild.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// By root of the host.
    Root,
    /// By a user with subordinate ids.
    User,
    /// By a user who is not in `/etc/subuid`.
    Nobody,
    /// In a container with these options of `docker run`.
    Docker(&'static [&'static str]),
    /// By a user, as root of a namespace of bubblewrap that has no other id, with these options.
    Bubblewrap(&'static [&'static str]),
}

/// A row of the matrix.
#[derive(Debug)]
struct Way {
    start: Start,
    /// The directory for the store and temporary files.
    scratch: &'static str,
    cells: [(Ask, Expect); 4],
    /// Images that fail there with an isolation, with a part of the error. An empty text stands for an
    /// image that differs.
    exceptions: &'static [(Isolation, &'static str, &'static str)],
}

const NO_NAMESPACE: &str = "user namespace";
/// In a user namespace, mknod(2) of a device fails with `EPERM` (user_namespaces(7)).
const NO_DEVICES: &[(Isolation, &str, &str)] = &[(Isolation::Namespace, "devices", "mknod")];
/// Docker's filter refuses chroot(2) without `CAP_SYS_CHROOT`, before a supervisor could answer it.
const NO_CHROOT: &[(Isolation, &str, &str)] = &[(Isolation::Emulated, "chroot", "change root")];
/// Without a supervisor, names of a lower file stay one file when a step changes it (docs/store.md).
const ONE_FILE: &[(Isolation, &str, &str)] = &[(Isolation::Namespace, "lower", "")];

const ROOT: Way = Way {
    start: Start::Root,
    scratch: "",
    cells: [
        (Ask::Auto, Images(Isolation::Namespace)),
        (Ask::Namespace, Images(Isolation::Namespace)),
        (Ask::Chroot, Images(Isolation::Chroot)),
        (Ask::Emulated, Images(Isolation::Emulated)),
    ],
    exceptions: &[],
};
const USER: Way = Way {
    start: Start::User,
    cells: [
        (Ask::Auto, Images(Isolation::Namespace)),
        (Ask::Namespace, Images(Isolation::Namespace)),
        (Ask::Chroot, Refusal(Isolation::Chroot, "chroot")),
        (Ask::Emulated, Images(Isolation::Emulated)),
    ],
    exceptions: NO_DEVICES,
    ..ROOT
};
const NOBODY: Way = Way {
    start: Start::Nobody,
    cells: [
        (Ask::Auto, Images(Isolation::SingleId)),
        (Ask::Namespace, Images(Isolation::SingleId)),
        (Ask::Chroot, Refusal(Isolation::Chroot, "chroot")),
        (Ask::Emulated, Images(Isolation::Emulated)),
    ],
    ..ROOT
};
const DOCKER_DEFAULT: Way = Way {
    start: Start::Docker(&[]),
    scratch: "/var/lib/rbuild",
    cells: [
        (Ask::Auto, Images(Isolation::Chroot)),
        (Ask::Namespace, Refusal(Isolation::Namespace, NO_NAMESPACE)),
        (Ask::Chroot, Images(Isolation::Chroot)),
        (Ask::Emulated, Images(Isolation::Emulated)),
    ],
    exceptions: &[],
};
const DOCKER_USER: Way = Way {
    start: Start::Docker(&["--user=1000"]),
    scratch: "/tmp/rbuild",
    cells: [
        (Ask::Auto, Images(Isolation::Emulated)),
        (Ask::Namespace, Refusal(Isolation::Namespace, NO_NAMESPACE)),
        (Ask::Chroot, Refusal(Isolation::Chroot, "chroot")),
        (Ask::Emulated, Images(Isolation::Emulated)),
    ],
    exceptions: &[],
};
const DOCKER_HARDENED: Way = Way {
    start: Start::Docker(&[
        "--user=1000",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--read-only",
        "--tmpfs=/tmp:exec",
    ]),
    exceptions: NO_CHROOT,
    ..DOCKER_USER
};
/// Docker mounts file systems in memory with `noexec` unless told otherwise.
const DOCKER_HARDENED_NOEXEC: Way = Way {
    start: Start::Docker(&[
        "--user=1000",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--read-only",
        "--tmpfs=/tmp",
    ]),
    cells: [
        (Ask::Auto, Images(Isolation::Emulated)),
        (Ask::Namespace, Refusal(Isolation::Namespace, NO_NAMESPACE)),
        (Ask::Chroot, Refusal(Isolation::Chroot, "chroot")),
        (Ask::Emulated, Images(Isolation::Emulated)),
    ],
    exceptions: NO_CHROOT,
    ..DOCKER_USER
};
/// The store is on the overlay of the container, which cannot hold the changes of another overlay: they
/// are made in memory.
const DOCKER_PRIVILEGED: Way =
    Way { start: Start::Docker(&["--privileged"]), exceptions: &[], ..DOCKER_PRIVILEGED_ON_DISK };
const DOCKER_PRIVILEGED_ON_DISK: Way = Way {
    start: Start::Docker(&["--privileged", "--env=RBUILD_MAX_IN_MEMORY=0"]),
    cells: [
        (Ask::Auto, Images(Isolation::Namespace)),
        (Ask::Namespace, Images(Isolation::Namespace)),
        (Ask::Chroot, Images(Isolation::Chroot)),
        (Ask::Emulated, Images(Isolation::Emulated)),
    ],
    exceptions: ONE_FILE,
    ..DOCKER_DEFAULT
};
/// As docs/ci.md says for steps with namespaces, with a file system for the store.
const DOCKER_PRIVILEGED_VOLUME: Way = Way {
    start: Start::Docker(&["--privileged", "--tmpfs=/var/lib/rbuild:exec,suid,dev"]),
    cells: ROOT.cells,
    ..DOCKER_DEFAULT
};
/// The other options of docs/ci.md. rbuild may create user namespaces, but not mount without one.
const DOCKER_UNCONFINED: Way = Way {
    start: Start::Docker(&[
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--security-opt=systempaths=unconfined",
        "--tmpfs=/var/lib/rbuild:exec,suid,dev",
    ]),
    cells: ROOT.cells,
    exceptions: NO_DEVICES,
    ..DOCKER_DEFAULT
};
/// Root without capabilities: the kernel maps root to no further namespace (user_namespaces(7)).
const BUBBLEWRAP: Way = Way {
    start: Start::Bubblewrap(&[]),
    cells: [
        (Ask::Auto, Images(Isolation::Emulated)),
        (Ask::Namespace, Refusal(Isolation::Namespace, NO_NAMESPACE)),
        (Ask::Chroot, Refusal(Isolation::Chroot, "chroot")),
        (Ask::Emulated, Images(Isolation::Emulated)),
    ],
    ..ROOT
};
const BUBBLEWRAP_WITH_CAPABILITIES: Way =
    Way { start: Start::Bubblewrap(&["--cap-add", "ALL"]), cells: NOBODY.cells, ..ROOT };

/// The images: a name and a Dockerfile. All but [`WITHOUT_STEPS`] have steps.
const IMAGES: &[(&str, &str)] = &[
    (
        WITHOUT_STEPS,
        "FROM base:1 AS one\n\
         COPY --chown=7:8 --chmod=4755 script /own\n\
         WORKDIR /deep/er\n\
         FROM base:1\n\
         COPY --from=one /own /deep /to/\n\
         USER 5:6\n\
         WORKDIR /home/five\n",
    ),
    ("true", "FROM base:1\nRUN true\n"),
    (
        "files",
        "FROM base:1\n\
         RUN set -e; mkdir -p /d/e; echo text > /d/file; chmod 640 /d/file; chown 1000:1000 /d /d/file; \
             ln -s file /d/link; chown -h 7:8 /d/link; ln /d/file /d/hard; rm /old/file; rm -r /old/directory; \
             chmod 1777 /d/e; touch -d @1 /d/early; mv /d/early /d/moved; mkfifo -m 600 /d/pipe; \
             stat -c '%a %u %g %F' /d /d/* > /stat; stat -c '%h %s' /d/file >> /stat\n\
         RUN set -e; stat -c '%a %u %g %F' /d /d/* > /later; stat -c '%h %s' /d/file >> /later; chown 3:4 /old; \
             mkdir /d/new; mv /d/new /d/newer; rm /bin/seq\n",
    ),
    (
        "lower",
        "FROM base:1\n\
         RUN set -e; mkdir -p /d/e; echo text > /d/file; ln /d/file /d/hard; ln /d/file /d/third; ln /d/file /d/fourth; touch -d @1 /d/e; \
             echo solo > /solo; echo pair > /pair; ln /pair /pair2\n\
         RUN set -e; echo more >> /d/file; chmod 600 /d/third; chown 5:6 /d/fourth; mv /d /moved; \
             mkdir /d; cat /moved/hard > /d/content; stat -c '%n %s %a %u' /moved/* > /list\n\
         RUN set -e; ln /solo /solo2; echo more >> /solo2; chmod 640 /solo; cat /solo /solo2 > /texts; rm /solo2; \
             ln /pair /pair3; echo more >> /pair3; chown 7 /pair; cat /pair /pair2 /pair3 >> /texts; \
             stat -c '%n %s %a %u' /solo /pair /pair2 /pair3 >> /texts\n",
    ),
    (
        "setuid",
        "FROM base:1\n\
         RUN set -e; cp /bin/busybox /suid; chown 5:6 /suid; chmod 6755 /suid; stat -c '%a %u %g' /suid > /stat; \
             mkdir /group; chown 0:9 /group; chmod 2775 /group; mkdir /group/in; touch /group/file; \
             stat -c '%a %u %g' /group/* >> /stat; chown 8 /suid; stat -c '%a %u %g' /suid >> /stat\n",
    ),
    (
        "mounts",
        "FROM base:1 AS other\n\
         RUN mkdir /made && echo other > /made/by\n\
         FROM base:1\n\
         RUN --mount=type=secret,id=key test \"$(cat /run/secrets/key)\" = value && \
             test $(stat -c %a:%u /run/secrets/key) = 400:0\n\
         RUN --mount=type=secret,id=key,target=/key,mode=0444,uid=5 stat -c '%a %u' /key > /stat\n\
         RUN --mount=type=cache,target=/cache echo kept > /cache/file\n\
         RUN --mount=type=cache,target=/cache cat /cache/file > /of-cache\n\
         RUN --mount=type=bind,target=/context cat /context/script > /of-context && ! touch /context/new\n\
         RUN --mount=type=bind,from=other,source=/made,target=/made,rw cat /made/by > /of-stage && touch /made/new\n\
         RUN --mount=type=tmpfs,target=/memory echo gone > /memory/file && stat -c '%a %u' /memory > /of-memory\n\
         RUN test ! -e /memory/file\n",
    ),
    (
        "user",
        "FROM base:1\n\
         RUN mkdir -p /home/app && chown 1000:1000 /home/app && chmod 700 /home/app\n\
         USER 1000:1000\n\
         WORKDIR /home/app\n\
         RUN touch mine && id -u > id && id -g >> id && pwd >> id && stat -c '%u %g' mine >> id\n\
         USER 1001\n\
         RUN id > /tmp/id; echo done\n\
         USER 1000\n\
         RUN <<EOF\n\
         #!/bin/sh\n\
         set -e\n\
         exec 3< id\n\
         readlink /proc/self/fd/3 > link\n\
         head -c 0 /proc/self/maps\n\
         cat /proc/self/fd/3 > copy\n\
         EOF\n",
    ),
    (
        "permissions",
        "FROM base:1\n\
         RUN echo secret > /root/file && chmod 600 /root/file && chmod 700 /root && chmod 1777 /tmp\n\
         USER 1000\n\
         RUN cat /root/file > /tmp/read 2>/dev/null; touch /etc/new 2>/dev/null; chown 0 /tmp/read 2>/dev/null; \
             chmod 777 /old/file 2>/dev/null; kill -0 1 2>/dev/null; stat -c '%s %u' /tmp/read > /tmp/stat\n\
         USER 0\n\
         RUN test ! -e /etc/new && stat -c %a /old/file > /stat\n\
         RUN --mount=type=cache,id=private,target=/cache mkdir -m 700 /cache/private && echo secret > /cache/private/file\n\
         USER 1000\n\
         RUN --mount=type=cache,id=private,target=/cache cd /cache; ! cat private/file && ! mkdir private/new && \
             ! stat private/file && ! ls private\n",
    ),
    (
        "accounts",
        "FROM base:1\n\
         RUN echo app:x:1000:1001::/home/app:/bin/sh >> /etc/passwd && echo app:x:1001: >> /etc/group && \
             mkdir -p /home/app && chown app:app /home/app && chmod 2750 /home/app && \
             /bin/busybox su -s /bin/sh app -c 'id; cd; touch own; mkdir in; stat -c %u:%g:%a own in; ! ls /root/x' > /id\n\
         RUN chown -R app: /old && chown :0 /old/file && stat -c '%n %u %g' /old /old/* > /list\n\
         USER app\n\
         RUN id > ~/id && echo $HOME >> ~/id\n",
    ),
    (
        "chroot",
        "FROM base:1\n\
         RUN set -e; mkdir -p /jail/bin /jail/dev; cp /bin/busybox /jail/bin/sh; echo inside > /jail/file; \
             /bin/busybox chroot /jail /bin/sh -c 'read -r x < /file; echo $x; pwd; echo made > /made' > /seen; \
             /bin/busybox chroot /jail /bin/sh -c 'read -r x < /../../seen' 2>/dev/null && exit 1; chown 5:6 /jail/made\n",
    ),
    (
        "devices",
        "FROM base:1\n\
         RUN mknod /null c 1 3 && mknod -m 640 /disk b 7 0 && chown 0:6 /disk && \
             stat -c '%F %t %T %a %g' /null /disk > /stat\n",
    ),
    (
        "proc",
        "FROM base:1\n\
         RUN set -e; cat /proc/self/status > /dev/null; readlink /proc/self/exe > /facts; \
             cd /proc/self; ls | grep -x -e status -e maps -e fd >> /facts; \
             readlink /proc/self/root >> /facts; \
             tr '\\0' ' ' < /proc/self/cmdline >> /facts; test -d /proc/$$; \
             head -c 4 /proc/meminfo >> /facts; cat /proc/sys/kernel/ostype >> /facts; \
             test -d /sys/kernel; ! echo 1 > /proc/sys/kernel/sysrq; umask >> /facts\n",
    ),
    (
        "dev",
        "FROM base:1\n\
         RUN set -e; ls /dev > /list; grep -x -e null -e zero -e full -e random -e urandom -e tty -e fd -e std.. \
             -e std... -e shm -e pts -e ptmx /list > /names; rm /list; test -c /dev/null; \
             cd /dev; stat -c '%n %a %t %T %F' null zero full random urandom tty >> /names; cd /; \
             echo gone > /dev/null; head -c 8 /dev/zero | wc -c >> /names; head -c 8 /dev/urandom | wc -c >> /names; \
             ! echo > /dev/full; cd /dev/shm; echo shared > file; cat file >> /names\n",
    ),
    (
        "streams",
        "FROM base:1\n\
         RUN set -e; echo out > /dev/stdout; echo err > /dev/stderr; echo three 3> /dev/fd/2 >&3; \
             echo piped | sed s/piped/through/ | cat > /piped; cat < /dev/stdin > /input; cat < /dev/null >> /input; \
             exec 4> /four; echo four >&4; readlink /proc/self/fd/4 >> /four\n",
    ),
    (
        "background",
        "FROM base:1\n\
         RUN (sleep 1; touch /late) & (while true; do sleep 1; done) & sleep 7654 & echo $? > /started\n\
         RUN sleep 2; test ! -e /late; ! ps | grep '[s]leep 7654'\n",
    ),
    (
        "scripts",
        "FROM base:1\n\
         COPY --chmod=755 script /bin/script\n\
         RUN script one > /one\n\
         RUN [\"/bin/script\", \"two\"]\n\
         RUN <<EOF\n\
         echo first > /lines\n\
         echo \"$0\" | wc -l >> /lines\n\
         EOF\n\
         RUN <<EOF\n\
         #!/bin/cat\n\
         printed\n\
         EOF\n\
         SHELL [\"/bin/busybox\", \"sh\", \"-ec\"]\n\
         ENV VARIABLE=value\n\
         ARG ARGUMENT=more\n\
         RUN echo $VARIABLE $ARGUMENT > /variables; env | sed 's/=.*//' | sort > /env\n",
    ),
    (
        "stages",
        "FROM base:1 AS build\n\
         RUN mkdir -p /out/bin && echo '#!/bin/sh' > /out/bin/tool && chmod 755 /out/bin/tool && \
             chown -R 12:34 /out && ln /out/bin/tool /out/same && echo log > /log\n\
         FROM base:1\n\
         RUN --mount=from=build,target=/build cp -p /build/out/bin/tool /copied\n\
         COPY --from=build /out /opt\n\
         COPY --from=build --chown=5 /log /var/log/build\n\
         RUN stat -c '%n %a %u %g' /copied /opt /opt/bin/tool /opt/same /var/log/build > /stat; stat -c %h /opt/same >> /stat\n",
    ),
    (FAILING, "FROM base:1\nRUN echo kept > /kept\nRUN touch /lost && exit 7\n"),
    (
        "killed",
        "FROM base:1\nRUN sh -c 'kill -KILL $$'; echo $? > /code; ! false; sh -c 'exit 9' || echo $? >> /code\n",
    ),
];
const WITHOUT_STEPS: &str = "copy";
/// This build fails everywhere.
const FAILING: &str = "failing";
/// The name under which results contain what `rbuild doctor` says.
const DOCTOR: &str = "(doctor)";

/// Builds all images. For each it prints the name, the exit code and the image's digest, and shows
/// the messages of those that failed.
const SCRIPT: &str = r#"
rbuild=$1 scratch=$2 files=$3
export HOME=$scratch
mkdir -p "$scratch" && "$rbuild" --root "$scratch/store" build "$files/base" -t base:1 --reproducible --quiet \
  >/dev/null || exit 90
for file in "$files"/images/*; do
  image=$("$rbuild" --root "$scratch/store" build "$files/context" -f "$file" --reproducible --quiet \
    --secret "id=key,src=$files/context/script.key" 2>"$scratch/messages")
  code=$?
  echo "${file##*/} $code $image"
  while read -r line; do echo "${file##*/}: $line"; done < "$scratch/messages" >&2
done
doctor=$("$rbuild" --root "$scratch/store" doctor 2>&1)
echo "(doctor) $?" "$(echo "$doctor" | grep '^RUN ')"
exit 0
"#;

/// Result of the builds of a cell, by image.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Built {
    code: i32,
    digest: String,
    messages: String,
}

type Results = BTreeMap<String, Built>;

/// Reads what [`SCRIPT`] prints.
fn results(done: &Done) -> Results {
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let mut results = Results::new();
    for line in done.stdout.lines() {
        let [name, code, digest] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            unreachable!("{line}");
        };
        let prefix = format!("{name}: ");
        let messages = done.stderr.lines().filter_map(|line| line.strip_prefix(&prefix));
        let mut text = String::new();
        for message in messages {
            writeln!(text, "{message}").unwrap();
        }
        let built = Built { code: code.parse().unwrap(), digest: digest.into(), messages: text };
        results.insert(name.to_owned(), built);
    }
    assert_eq!(results.len(), IMAGES.len() + 1, "{}", done.stderr);
    results
}

/// Returns an environment with the files that [`SCRIPT`] reads.
fn env_for(who: Who) -> Env {
    let env = Env::of(who);
    env.write_base();
    env.write("script", "#!/bin/sh\necho \"$0 $1\" $(id -u)\n");
    env.write("script.key", "value");
    env.write(".dockerignore", "*.key\n");
    fs::create_dir(env.path("images")).unwrap();
    for (name, dockerfile) in IMAGES {
        fs::write(env.path("images").join(name), dockerfile).unwrap();
    }
    fs::set_permissions(env.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    env
}

impl Way {
    /// Builds all images with this isolation, or returns `None` if this machine cannot start rbuild
    /// in this way.
    fn build(&self, ask: Ask) -> Option<Results> {
        let env = match self.start {
            Start::Root | Start::Docker(_) => env_for(Who::root()?),
            Start::User | Start::Bubblewrap(_) => env_for(Who::user()?),
            Start::Nobody => {
                Who::root()?;
                let id = 1_720_000_000 + std::process::id();
                env_for(Who::User(TestUser { uid: id, gid: id }))
            }
        };
        let mut command = match self.start {
            Start::Docker(options) => {
                env.write_container();
                let contained =
                    |options: &[&str], command: &[&str]| env.container(options, command);
                return Some(self.build_in(&env, options, ask, &contained));
            }
            Start::Bubblewrap(options) => bubblewrap(&env, options)?,
            Start::Root | Start::User | Start::Nobody => env.program("sh"),
        };
        if ask != Ask::Auto {
            command.env("RBUILD_ISOLATION", ask.name());
        }
        command.args(["-c", SCRIPT, "sh", env!("CARGO_BIN_EXE_rbuild")]);
        command.args([env.shown("store"), env.shown(".")]);
        Some(results(&Done::of(command.output().unwrap())))
    }

    /// Builds all images in a container with these options.
    fn build_in(
        &self,
        env: &Env,
        options: &[&str],
        ask: Ask,
        contained: &dyn Fn(&[&str], &[&str]) -> Command,
    ) -> Results {
        let mut all: Vec<String> = options.iter().map(ToString::to_string).collect();
        for name in ["base", "context", "images"] {
            all.push(format!("--volume={}:/files/{name}:ro", env.shown(name)));
        }
        if ask != Ask::Auto {
            all.push(format!("--env=RBUILD_ISOLATION={}", ask.name()));
        }
        let all: Vec<&str> = all.iter().map(AsRef::as_ref).collect();
        let script = ["sh", "-c", SCRIPT, "sh", "/usr/bin/rbuild", self.scratch, "/files"];
        results(&Done::of(contained(&all, &script).output().unwrap()))
    }

    /// Checks each cell whose isolation is ready, and counts the others.
    fn check(&self, build: &dyn Fn(Ask) -> Option<Results>) {
        let mut unready = Vec::new();
        for (ask, expect) in self.cells {
            let (Images(needed) | Refusal(needed, _)) = expect;
            let is_ready = READY.contains(&needed);
            if !is_ready {
                unready.push(ask.name());
                if ask != Ask::Auto {
                    continue;
                }
            }
            let (Some(reference), Some(results)) = (reference(), build(ask)) else { return };
            let place = format!("{:?}, --isolation {}", self.start, ask.name());
            if ask == Ask::Auto {
                assert_eq!(results[WITHOUT_STEPS], reference[WITHOUT_STEPS], "{place}");
            }
            if is_ready {
                self.check_cell(&place, expect, reference, &results);
            }
        }
        if !unready.is_empty() {
            skip("isolation", &format!("{:?}: not ready: {}", self.start, unready.join(", ")));
        }
    }

    fn check_cell(&self, place: &str, expect: Expect, reference: &Results, results: &Results) {
        let mut wrong = String::new();
        for (name, built) in results {
            let want = &reference[name];
            let excepted = |(isolation, image, _): &&(Isolation, &str, &str)| {
                *image == name.as_str() && expect == Images(*isolation)
            };
            let exception = self.exceptions.iter().find(excepted);
            let refusal = match (expect, exception) {
                (Refusal(_, text), _) if name != WITHOUT_STEPS => Some(text),
                (Images(_), Some((_, _, text))) => Some(*text),
                // Steps there have no right to chroot(2), with which they could leave their root.
                (Images(Isolation::Chroot), None) if name == "chroot" => Some("change root"),
                _ => None,
            };
            let is_right = match (refusal, name.as_str()) {
                (_, DOCTOR) => doctor_agrees(expect, built),
                (Some(""), _) => built.code == 0,
                (Some(text), _) => built.code != 0 && built.messages.contains(text),
                (None, FAILING) => {
                    built.code == want.code && built.messages.contains("exit code: 7")
                }
                (None, _) => (built.code, &built.digest) == (want.code, &want.digest),
            };
            if !is_right {
                let wanted = refusal.unwrap_or(&want.digest);
                writeln!(wrong, "{name}: {built:?}\n  instead of {} {wanted}", want.code).unwrap();
            }
        }
        assert!(wrong.is_empty(), "{place}:\n{wrong}");
    }
}

/// Returns whether `rbuild doctor` says that steps run, and names no other isolation than expected.
fn doctor_agrees(expect: Expect, doctor: &Built) -> bool {
    let Images(isolation) = expect else {
        return doctor.code != 0 && doctor.digest.contains("does not work");
    };
    let names = [Isolation::SingleId, Isolation::Namespace, Isolation::Chroot, Isolation::Emulated];
    let named = names.map(Isolation::name).into_iter().find(|name| doctor.digest.contains(name));
    doctor.code == 0
        && doctor.digest.contains(" works")
        && named.is_none_or(|name| name == isolation.name())
}

/// Returns what root builds on the host with namespaces, or `None` where that is not possible.
fn reference() -> Option<&'static Results> {
    static RESULTS: OnceLock<Option<Results>> = OnceLock::new();
    let build = || {
        let results = ROOT.build(Ask::Namespace)?;
        for (name, built) in &results {
            assert_eq!(built.code == 0, name != FAILING, "{name}: {}", built.messages);
        }
        Some(results)
    };
    RESULTS.get_or_init(build).as_ref()
}

/// Returns the command for a shell that is root of a namespace without other ids.
fn bubblewrap(env: &Env, options: &[&str]) -> Option<Command> {
    let start = || {
        let mut bwrap = env.program("bwrap");
        bwrap.args(["--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid"]);
        bwrap.args(["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]);
        bwrap.args(["--bind", &env.shown("."), &env.shown(".")]).args(options).arg("sh");
        bwrap
    };
    let trial = start().args(["-c", "true"]).output();
    if trial.is_ok_and(|output| output.status.success()) {
        return Some(start());
    }
    skip("bwrap", "bwrap does not run here as an ordinary user");
    None
}

fn privileged() -> Way {
    if has_overlays_in_memory() {
        return DOCKER_PRIVILEGED;
    }
    Way { exceptions: ONE_FILE, ..DOCKER_PRIVILEGED }
}

macro_rules! ways {
    ($($test:ident $way:expr,)*) => {
        $(#[test]
        fn $test() {
            $way.check(&|ask| $way.build(ask));
        })*
    };
}

ways! {
    priv_root_on_the_host ROOT,
    priv_user_with_subordinate_ids USER,
    priv_user_without_subordinate_ids NOBODY,
    priv_root_of_a_container DOCKER_DEFAULT,
    priv_user_of_a_container DOCKER_USER,
    priv_user_of_a_container_without_rights DOCKER_HARDENED,
    priv_user_of_a_container_that_can_execute_nothing_it_writes DOCKER_HARDENED_NOEXEC,
    priv_root_of_a_privileged_container privileged(),
    priv_root_of_a_privileged_container_with_changes_on_the_disk DOCKER_PRIVILEGED_ON_DISK,
    priv_root_of_a_privileged_container_with_a_volume DOCKER_PRIVILEGED_VOLUME,
    priv_root_of_an_unconfined_container DOCKER_UNCONFINED,
    priv_root_of_a_namespace_with_one_id BUBBLEWRAP,
    priv_root_of_a_namespace_with_one_id_and_capabilities BUBBLEWRAP_WITH_CAPABILITIES,
}

macro_rules! ways_by_docker {
    ($($test:ident $way:expr,)*) => {
        /// The same containers, started by docker.
        mod docker {
            use super::*;

            $(#[test]
            fn $test() {
                by_docker(&$way);
            })*
        }
    };
}

ways_by_docker! {
    priv_root_of_a_container DOCKER_DEFAULT,
    priv_user_of_a_container DOCKER_USER,
    priv_user_of_a_container_without_rights DOCKER_HARDENED,
    priv_user_of_a_container_that_can_execute_nothing_it_writes DOCKER_HARDENED_NOEXEC,
    priv_root_of_a_privileged_container privileged(),
    priv_root_of_a_privileged_container_with_changes_on_the_disk DOCKER_PRIVILEGED_ON_DISK,
    priv_root_of_a_privileged_container_with_a_volume DOCKER_PRIVILEGED_VOLUME,
}

fn by_docker(way: &Way) {
    let Some(root) = Who::root() else { return };
    let env = env_for(root);
    let Some(docker) = Docker::open(&env) else { return };
    let Start::Docker(options) = way.start else { unreachable!("{way:?}") };
    let contained = |options: &[&str], command: &[&str]| docker.container(options, command);
    way.check(&|ask| Some(way.build_in(&env, options, ask, &contained)));
}
