//! Cache keys: the names under which results of steps are stored (`ARCHITECTURE.md`, "Cache keys").
//!
//! The hashed bytes are a domain tag with a version, then every component with its name and value,
//! each after its length. A change of this encoding needs a new tag.

use std::fmt;

use crate::tree::{ContentDigest, ContentWriter};

use super::{
    CopyOperation, MountAccess, Network, PlannedSource, Remote, RemoteCopySource, RunMount,
    RunMountKind, RunOperation, RunSettings, WorkdirOperation,
};

/// The BLAKE3 hash of an operation, alone or on a certain parent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// Makes a key from its 32 bytes, as the store keeps them.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A named input of a key, stored beside the record to explain a later miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Name, as in `environment variable PATH`.
    pub name: String,
    /// Value as it is hashed.
    pub value: String,
}

/// The components of an operation's key, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationKey {
    domain: &'static str,
    components: Vec<Component>,
}

/// The name of a stack of layers: made from the keys of their operations (definition) or from their
/// contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain([u8; 32]);

impl Chain {
    /// Returns the name of the empty stack.
    #[must_use]
    pub fn empty() -> Self {
        Self(*ContentWriter::new("rbuild/chain/v1").finish().as_bytes())
    }

    /// Returns the name of the stack with one more layer, identified by `name`.
    #[must_use]
    pub fn push(self, name: &[u8; 32]) -> Self {
        let mut key = ContentWriter::new("rbuild/chain/v1");
        key.field(&self.0);
        key.field(name);
        Self(*key.finish().as_bytes())
    }
}

impl Chain {
    /// Returns the 32 bytes of the name.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the name as a content digest, for a key by definition.
    #[must_use]
    pub const fn as_content(self) -> ContentDigest {
        ContentDigest::new(self.0)
    }
}

/// Name of the component for the working directory.
///
/// Names are hashed. One that changed would have every stored step rebuilt, so this keeps its first
/// spelling; `explain` shows another one.
const WORKING_DIRECTORY: &str = "working folder";

impl OperationKey {
    /// Makes the key of a RUN. `selected` has the digest of the files of each mount, in order, or
    /// `None` for a mount without files.
    #[must_use]
    pub fn run(run: &RunOperation, selected: &[Option<String>]) -> Self {
        let mut key = Self::new("rbuild/run/v1");
        for (at, argument) in run.argv.iter().enumerate() {
            key.add(format!("argument {at}"), argument);
        }
        for (name, value) in &run.env {
            key.add(format!("environment variable {name}"), value);
        }
        key.add(WORKING_DIRECTORY, &run.cwd);
        key.add("user", &run.user);
        key.add(
            "network",
            match run.network {
                // Both reach what is outside: a step that is found in the cache did so in one of them.
                Network::Host | Network::Private => "host",
                Network::None => "none",
            },
        );
        for file in &run.files {
            key.add(format!("heredoc {}", file.target), &file.content);
        }
        key.add("hostname", &run.hostname);
        key.add("platform", &run.platform);
        if run.insecure {
            key.add("security", "insecure");
        }
        key.settings(&run.settings);
        let none = std::iter::repeat(&None);
        for (mount, files) in run.mounts.iter().zip(selected.iter().chain(none)) {
            key.mount(mount, files.as_deref());
        }
        key
    }

    /// Adds settings. Only the names of `--add-host` count: addresses may change from build to build.
    fn settings(&mut self, settings: &RunSettings) {
        for (name, _address) in &settings.hosts {
            self.add("host", name);
        }
        for limit in &settings.ulimits {
            self.add(format!("limit {}", limit.name), format!("{}:{}", limit.soft, limit.hard));
        }
        for name in &settings.add_caps {
            self.add(format!("capability {name}"), "added");
        }
        for name in &settings.drop_caps {
            self.add(format!("capability {name}"), "dropped");
        }
        if let Some(bytes) = settings.shm_bytes {
            self.add("size of /dev/shm", bytes.to_string());
        }
    }

    /// Adds a mount. Files written to a mount never reach a layer, so neither the name and content of a
    /// cache nor the value of a secret is part of the key.
    fn mount(&mut self, mount: &RunMount, files: Option<&str>) {
        let owned = |MountAccess { mode, uid, gid }: &MountAccess| {
            format!("mode {mode:o} owner {uid}:{gid}")
        };
        let what = match &mount.kind {
            RunMountKind::Bind { .. } => "bind".to_owned(),
            RunMountKind::Cache { sharing, access, .. } => {
                format!("cache {} {}", sharing.name(), owned(access))
            }
            // Like a cache, it may hold any files: they are not read.
            RunMountKind::Host(volume) => {
                format!("volume {} {}", volume.access.name(), volume.source.display())
            }
            RunMountKind::Tmpfs { bytes } => format!("tmpfs {bytes}"),
            RunMountKind::Secret { id, env, required, access } => {
                let env = env.as_ref().map_or(String::new(), |env| format!(" in {env}"));
                let required = if *required { " required" } else { "" };
                format!("secret {} {id}{env}{required} {}", id.len(), owned(access))
            }
            RunMountKind::Ssh { id, required, access } => {
                let required = if *required { " required" } else { "" };
                format!("ssh {} {id}{required} {}", id.len(), owned(access))
            }
        };
        let access = if mount.read_only { "read-only" } else { "writable" };
        self.add(format!("mount {}", mount.target), format!("{access} {what}"));
        if let Some(files) = files {
            self.add(format!("files at {}", mount.target), files);
        }
    }

    /// Makes the key of a COPY or ADD whose sources have the content `selected`.
    #[must_use]
    pub fn copy(copy: &CopyOperation, selected: &ContentDigest) -> Self {
        let mut key = Self::new("rbuild/copy/v1");
        let from_context = copy.from.is_context();
        key.add("from", if from_context { "context" } else { "image" });
        for (at, part) in copy.parts.iter().enumerate() {
            match part {
                PlannedSource::Path { text, .. } => key.add(format!("source {at}"), text),
                PlannedSource::Inline { name, content } => {
                    key.add(format!("heredoc {name}"), content);
                }
                PlannedSource::Remote(part) => key.add_remote(at, part),
            }
        }
        key.add("destination", &copy.destination);
        key.add(WORKING_DIRECTORY, &copy.workdir);
        for (name, value) in [("--chown", &copy.chown), ("--chmod", &copy.chmod)] {
            if let Some((text, _)) = value {
                key.add(name, text);
            }
        }
        for (name, set) in
            [("--link", copy.link), ("--parents", copy.parents), ("unpack", copy.unpack)]
        {
            if set {
                key.add(name, "true");
            }
        }
        for pattern in &copy.exclude {
            key.add("--exclude", pattern);
        }
        key.add("files", format!("{selected:?}"));
        key
    }

    /// Makes the key of a WORKDIR.
    #[must_use]
    pub fn workdir(workdir: &WorkdirOperation) -> Self {
        let mut key = Self::new("rbuild/workdir/v1");
        key.add("path", &workdir.path);
        key.add("user", &workdir.user);
        key
    }

    /// Adds the time to which file times are clamped, which changes the bytes of the layer.
    #[must_use]
    pub fn clamped(mut self, epoch_s: Option<i64>) -> Self {
        if let Some(epoch_s) = epoch_s {
            self.add("clamped to", epoch_s.to_string());
        }
        self
    }

    /// Adds a fetched source without its content, which is part of `files`.
    fn add_remote(&mut self, at: usize, part: &RemoteCopySource) {
        match &part.source {
            Remote::Url(url) => self.add(format!("download {at}"), &url.name),
            Remote::Git(git) => {
                self.add(format!("repository {at}"), git.shown());
                self.add(format!("folder {at}"), git.subdir.as_deref().unwrap_or_default());
                let options = [git.keep_git_dir == Some(true), git.submodules, git.commit_time];
                self.add(format!("checkout {at}"), format!("{options:?}"));
            }
        }
        if part.unpack {
            self.add(format!("unpack {at}"), "true");
        }
    }

    fn new(domain: &'static str) -> Self {
        Self { domain, components: Vec::new() }
    }

    fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.components.push(Component { name: name.into(), value: value.into() });
    }

    /// Returns the components, in order.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Returns the key of the operation alone, on any parent.
    #[must_use]
    pub fn key(&self) -> CacheKey {
        let mut key = ContentWriter::new(self.domain);
        for component in &self.components {
            key.field(component.name.as_bytes());
            key.field(component.value.as_bytes());
        }
        CacheKey(*key.finish().as_bytes())
    }
}

impl CacheKey {
    /// Returns the key of this operation on a parent.
    #[must_use]
    pub fn on(self, parent: Chain) -> Self {
        let mut key = ContentWriter::new("rbuild/step/v1");
        key.field(&parent.0);
        key.field(&self.0);
        Self(*key.finish().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::CopyFrom;

    fn run(argv: &[&str], env: &[(&str, &str)]) -> RunOperation {
        RunOperation {
            argv: argv.iter().map(|text| (*text).to_owned()).collect(),
            env: env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            proxy: vec![("HTTP_PROXY".to_owned(), "x".to_owned())],
            cwd: "/".to_owned(),
            user: String::new(),
            network: Network::Host,
            insecure: false,
            mounts: Vec::new(),
            patience: crate::dockerfile::ir::Patience::default(),
            settings: RunSettings::default(),
            files: Vec::new(),
            hostname: "buildkitsandbox".to_owned(),
            platform: "linux/amd64".to_owned(),
        }
    }

    #[test]
    fn run_key_is_pinned() {
        let key =
            OperationKey::run(&run(&["/bin/sh", "-c", "true"], &[("PATH", "/bin")]), &[]).key();
        assert_eq!(
            key.to_string(),
            "9fe130f38774163d5188a625e584335d8b4ecb8c6bea3efef346a80ea1d0cd92"
        );
    }

    #[test]
    fn run_key_separates_arguments_and_leaves_out_proxies() {
        let key = |argv: &[&str]| OperationKey::run(&run(argv, &[]), &[]).key();
        assert_ne!(key(&["a", "b"]), key(&["ab"]));
        assert_ne!(key(&["a b"]), key(&["a", "b"]));
        let mut other = run(&["a"], &[]);
        other.proxy.clear();
        assert_eq!(OperationKey::run(&other, &[]).key(), key(&["a"]));
    }

    fn mount(kind: RunMountKind) -> RunMount {
        let span = crate::diag::Span::default();
        RunMount { span, kind, target: "/t".to_owned(), read_only: false }
    }

    const ACCESS: MountAccess = MountAccess { mode: 0o755, uid: 0, gid: 0 };

    #[test]
    fn run_key_has_the_files_of_mounts_but_no_caches_or_secrets() {
        let key = |mount: RunMount, files: Option<&str>| {
            let mut run = run(&["a"], &[]);
            run.mounts = vec![mount];
            OperationKey::run(&run, &[files.map(str::to_owned)]).key()
        };
        let bind = || mount(RunMountKind::Bind { from: CopyFrom::Context, source: "/".to_owned() });
        assert_ne!(key(bind(), Some("1")), key(bind(), Some("2")));
        assert_ne!(key(bind(), Some("1")), key(RunMount { read_only: true, ..bind() }, Some("1")));
        // The same files from another source give the same key.
        let from = CopyFrom::Stage(0);
        let staged = mount(RunMountKind::Bind { from, source: "/elsewhere".to_owned() });
        assert_eq!(key(bind(), Some("1")), key(staged, Some("1")));
        let cache = |id: &str, sharing, access| {
            let (id, source) = (id.to_owned(), "/".to_owned());
            key(mount(RunMountKind::Cache { id, sharing, from: None, source, access }), None)
        };
        let (shared, locked) =
            (crate::dockerfile::ir::Sharing::Shared, crate::dockerfile::ir::Sharing::Locked);
        assert_eq!(cache("one", shared, ACCESS), cache("other", shared, ACCESS));
        assert_ne!(cache("one", shared, ACCESS), cache("one", locked, ACCESS));
        assert_ne!(
            cache("one", shared, ACCESS),
            cache("one", shared, MountAccess { uid: 1, ..ACCESS })
        );
        let secret = |id: &str, env: Option<&str>| {
            let (id, env) = (id.to_owned(), env.map(str::to_owned));
            key(mount(RunMountKind::Secret { id, env, required: false, access: ACCESS }), None)
        };
        assert_ne!(secret("a", None), secret("b", None));
        assert_ne!(secret("a", Some("b")), secret("a in b", None));
    }

    #[test]
    fn run_key_has_names_of_hosts_without_their_addresses() {
        let key = |name: &str, address: &str| {
            let mut run = run(&["a"], &[]);
            run.settings.hosts = vec![(name.to_owned(), address.to_owned())];
            OperationKey::run(&run, &[]).key()
        };
        assert_eq!(key("a", "10.0.0.1"), key("a", "10.0.0.2"));
        assert_ne!(key("a", "10.0.0.1"), key("b", "10.0.0.1"));
    }

    #[test]
    fn step_key_depends_on_the_parent() {
        let operation = OperationKey::run(&run(&["a"], &[]), &[]).key();
        let other = Chain::empty().push(&[1; 32]);
        assert_ne!(operation.on(Chain::empty()), operation.on(other));
    }
}
