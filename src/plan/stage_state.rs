//! Applies the instructions of a stage to its config and its scope, one after the other.

use std::path::{Component as PathComponent, Path};

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir::{self, Escape, HealthcheckTest, Kind, ShellOrExec, Word};
use crate::dockerfile::scope::{GlobalScope, StageScope, is_proxy};
use crate::oci::{DEFAULT_PATH, Healthcheck, ImageConfig, Platform};

use super::add_remote;
use super::mounts::{self, MountScope};
use super::{
    BaseImage, ConfigChanges, CopyFrom, CopyOperation, HistoryLine, InlineFile, Network, Operation,
    PlannedSource, Request, RunMount, RunOperation, Step, WorkdirOperation, history, mode,
    permissions, ports, redacted, signal, volumes,
};

/// Hostname of RUN steps, as in BuildKit; `BUILDKIT_SANDBOX_HOSTNAME` overrides it
/// (<https://docs.docker.com/reference/dockerfile/#buildkit-built-in-build-args>).
const HOSTNAME: &str = "buildkitsandbox";
/// Directory for the script of a `RUN <<EOF` whose body begins with `#!`, as in BuildKit.
const SCRIPT_DIRECTORY: &str = "/dev/pipes";

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// Sources that the `--from` and `from=` of one instruction resolve to.
pub(super) struct InstructionSources {
    /// Source of a COPY.
    pub(super) from: CopyFrom,
    /// Source of each mount of a RUN, in order.
    pub(super) mounts: Vec<Option<CopyFrom>>,
}

/// Config and scope of a stage after some of its instructions.
#[derive(Debug, Clone)]
pub(super) struct StageState {
    pub(super) config: ImageConfig,
    scope: StageScope,
    /// True if this stage has set CMD. Otherwise ENTRYPOINT clears the CMD of the base image
    /// (<https://docs.docker.com/reference/dockerfile/#understand-how-cmd-and-entrypoint-interact>).
    cmd_set: bool,
    /// ONBUILD instructions that run in stages that start from this one.
    triggers: Vec<ir::Instruction>,
    /// Number of ports that EXPOSE has listed so far.
    n_ports: usize,
    /// True if the working directory depends on an image whose config is not known.
    workdir_is_unknown: bool,
}

impl StageState {
    /// Starts a stage from `scratch`.
    pub(super) fn scratch(platform: &Platform, escape: Escape) -> Self {
        Self::new(ImageConfig::scratch(platform), Vec::new(), escape)
    }

    /// Starts a stage from an image.
    pub(super) fn image(base: &BaseImage, escape: Escape) -> Self {
        Self::new(base.config.clone(), base.triggers.clone(), escape)
    }

    /// Starts a stage from an image whose config is not known.
    pub(super) fn unknown_image(platform: &Platform, escape: Escape) -> Self {
        let scope = StageScope::of_unknown_image(escape);
        Self { scope, workdir_is_unknown: true, ..Self::scratch(platform, escape) }
    }

    fn new(mut config: ImageConfig, triggers: Vec<ir::Instruction>, escape: Escape) -> Self {
        if config.config.env("PATH").is_none() {
            config.config.set_env("PATH", DEFAULT_PATH);
        }
        config.config.on_build.clear();
        config.created = None;
        let env = config.config.env.iter();
        let env = env.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let scope = StageScope::of_env(escape, env);
        let (cmd_set, n_ports, workdir_is_unknown) = (false, 0, false);
        Self { config, scope, cmd_set, triggers, n_ports, workdir_is_unknown }
    }

    /// Starts a stage from this one, which hands on everything, ARGs included.
    pub(super) fn child(&self) -> Self {
        let mut child = Self { cmd_set: false, ..self.clone() };
        child.config.config.on_build.clear();
        child
    }

    /// Applies the changes of the command line that come before the first instruction. Returns the step of
    /// variables.
    pub(super) fn begin(&mut self, changes: &ConfigChanges, span: Span) -> Option<Step> {
        if changes.drops_labels {
            self.config.config.labels.clear();
        }
        if changes.env.is_empty() {
            return None;
        }
        for (name, value) in &changes.env {
            self.scope.set_env(name, value);
            self.config.config.set_env(name, value);
        }
        let text = format!("ENV {}", joined(&changes.env));
        let history = Some(history::metadata(text.clone()));
        Some(Step { span, text, operation: None, history })
    }

    /// Takes the triggers that run right after FROM.
    pub(super) fn take_triggers(&mut self) -> Vec<ir::Instruction> {
        std::mem::take(&mut self.triggers)
    }

    /// Returns whether the last instruction depends on an unknown base image; an error in it is not
    /// certain then.
    pub(super) fn has_read_unknown(&self) -> bool {
        self.scope.has_read_unknown()
    }

    /// Expands the variables in a word.
    pub(super) fn expand(&self, word: &Word) -> Result<String> {
        Ok(self.scope.expand(word)?)
    }

    /// Applies one instruction and returns its step.
    pub(super) fn apply(
        &mut self,
        instruction: &ir::Instruction,
        sources: InstructionSources,
        request: &Request,
        globals: &GlobalScope,
    ) -> Result<Step> {
        self.scope.begin_instruction();
        let (operation, history) = match &instruction.kind {
            Kind::Run(run) => self.run(run, sources.mounts, request)?,
            Kind::Copy(copy) => {
                let parents = copy.parents.is_some_and(|parents| parents.value);
                let operation = self.copy(
                    "COPY",
                    &copy.flags,
                    &copy.sources,
                    &copy.destination,
                    parents,
                    sources.from,
                )?;
                copied(operation)
            }
            Kind::Add(add) => copied(self.add(add)?),
            Kind::Workdir(path) => self.workdir(path)?,
            Kind::Arg(args) => (None, Some(self.arg(args, request, globals)?)),
            kind @ (Kind::Env(_)
            | Kind::Label(_)
            | Kind::User(_)
            | Kind::Expose(_)
            | Kind::Volume(_)
            | Kind::Cmd(_)
            | Kind::Entrypoint(_)
            | Kind::Shell(_)
            | Kind::Stopsignal(_)
            | Kind::Healthcheck(_)
            | Kind::Onbuild(_)
            | Kind::Maintainer(_)) => (None, self.metadata(kind)?),
        };
        // The URL of an ADD may contain a password.
        let text = if matches!(instruction.kind, Kind::Add(_)) {
            redacted(&instruction.text)
        } else {
            instruction.text.clone()
        };
        Ok(Step { span: instruction.span, text, operation, history })
    }

    /// Applies an instruction that only changes the config.
    fn metadata(&mut self, kind: &Kind) -> Result<Option<HistoryLine>> {
        let line = match kind {
            Kind::Env(pairs) => self.env(pairs)?,
            Kind::Label(pairs) => self.label(pairs)?,
            Kind::User(user) => {
                // A variable without a value leaves an empty name, which is root.
                let user = self.scope.expand(user)?;
                self.config.config.user.clone_from(&user);
                format!("USER {user}")
            }
            Kind::Expose(expose) => self.expose(&expose.ports)?,
            Kind::Volume(paths) => self.volume(paths)?,
            Kind::Cmd(command) => {
                let argv = self.command(command);
                self.cmd_set = true;
                self.config.config.args_escaped = true;
                let line = format!("CMD {}", history::quoted(&argv));
                self.config.config.cmd = Some(argv);
                line
            }
            Kind::Entrypoint(command) => {
                let argv = self.command(command);
                if !self.cmd_set {
                    self.config.config.cmd = None;
                }
                let line = format!("ENTRYPOINT {}", history::quoted(&argv));
                self.config.config.entrypoint = Some(argv);
                line
            }
            Kind::Shell(words) => {
                self.config.config.shell = texts(words);
                format!("SHELL [{}]", self.config.config.shell.join(" "))
            }
            Kind::Stopsignal(word) => self.stopsignal(word)?,
            Kind::Healthcheck(check) => self.healthcheck(check),
            Kind::Maintainer(word) => {
                self.config.author = Some(word.value.clone());
                format!("MAINTAINER {}", word.value)
            }
            Kind::Onbuild(onbuild) => {
                self.config.config.on_build.push(onbuild.text.value.clone());
                self.triggers.push((*onbuild.instruction).clone());
                return Ok(None);
            }
            Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_) | Kind::Arg(_) => {
                unreachable!("handled by the caller")
            }
        };
        Ok(Some(history::metadata(line)))
    }

    fn arg(
        &mut self,
        args: &[ir::Arg],
        request: &Request,
        globals: &GlobalScope,
    ) -> Result<HistoryLine> {
        let mut line = String::from("ARG");
        // Unlike in ENV, each name sees those before it in the same instruction.
        for arg in args {
            let (name, value) = self.scope.declare_arg(arg, globals, &request.build_args)?;
            line.push(' ');
            line.push_str(&name);
            if let Some(value) = &value {
                line.push('=');
                line.push_str(value);
            }
        }
        Ok(history::metadata(line))
    }

    /// Expands the pairs with the values from before the instruction (Dockerfile reference,
    /// "Environment replacement").
    fn pairs(&self, pairs: &[ir::Pair], what: &str) -> Result<Vec<(String, String)>> {
        let expand = |pair: &ir::Pair| {
            let name = self.scope.expand_non_empty(&pair.name, what)?;
            Ok((name, self.scope.expand(&pair.value)?))
        };
        pairs.iter().map(expand).collect()
    }

    fn env(&mut self, pairs: &[ir::Pair]) -> Result<String> {
        let pairs = self.pairs(pairs, "a name of ENV")?;
        for (name, value) in &pairs {
            self.scope.set_env(name, value);
            self.config.config.set_env(name, value);
        }
        Ok(format!("ENV {}", joined(&pairs)))
    }

    fn label(&mut self, pairs: &[ir::Pair]) -> Result<String> {
        let pairs = self.pairs(pairs, "a name of LABEL")?;
        self.config.config.labels.extend(pairs.iter().cloned());
        Ok(format!("LABEL {}", joined(&pairs)))
    }

    fn expose(&mut self, words: &[Word]) -> Result<String> {
        let expand = |word: &Word| Ok(self.scope.expand_list(word)?);
        let ports = ports::listed(words, self.n_ports, expand)?;
        self.n_ports += ports.len();
        let exposed = ports.iter().map(|port| (port.clone(), Default::default()));
        self.config.config.exposed_ports.extend(exposed);
        Ok(format!("EXPOSE [{}]", ports.join(" ")))
    }

    fn volume(&mut self, words: &[Word]) -> Result<String> {
        let expand = |word: &Word| self.scope.expand_non_empty(word, "a path of VOLUME");
        let paths: Vec<String> = words.iter().map(expand).collect::<std::result::Result<_, _>>()?;
        let volumes = paths.iter().map(|path| (path.clone(), Default::default()));
        self.config.config.volumes.extend(volumes);
        Ok(format!("VOLUME [{}]", paths.join(" ")))
    }

    fn stopsignal(&mut self, word: &Word) -> Result<String> {
        let name = self.scope.expand(word)?;
        if !signal::is_signal(&name) {
            let message = format!("invalid signal: {name}");
            let help = "use a name such as SIGTERM or SIGRTMIN+3, or a number from 1 to 64";
            return Err(Box::new(
                Diagnostic::error(codes::BAD_STOPSIGNAL, word.span, message).help(help),
            ));
        }
        self.config.config.stop_signal.clone_from(&name);
        Ok(format!("STOPSIGNAL {name}"))
    }

    fn healthcheck(&mut self, check: &ir::Healthcheck) -> String {
        let test = match &check.test {
            HealthcheckTest::None => vec!["NONE".to_owned()],
            HealthcheckTest::Cmd(ShellOrExec::Shell(text)) => {
                vec!["CMD-SHELL".to_owned(), text.value.clone()]
            }
            HealthcheckTest::Cmd(ShellOrExec::Exec(words)) => {
                std::iter::once("CMD".to_owned()).chain(texts(words)).collect()
            }
        };
        let line = history::healthcheck(&test, check);
        self.config.config.healthcheck = Some(Healthcheck {
            test,
            interval: check.interval.unwrap_or(0),
            timeout: check.timeout.unwrap_or(0),
            start_period: check.start_period.unwrap_or(0),
            start_interval: check.start_interval.unwrap_or(0),
            retries: check.retries.unwrap_or(0),
        });
        line
    }

    /// Returns the argv of a command: the shell form is passed to SHELL.
    fn command(&self, command: &ShellOrExec) -> Vec<String> {
        match command {
            ShellOrExec::Shell(text) => self.with_shell(text.value.clone()),
            ShellOrExec::Exec(words) => texts(words),
        }
    }

    fn with_shell(&self, text: String) -> Vec<String> {
        let mut argv = self.config.config.shell.clone();
        if argv.is_empty() {
            argv.extend(["/bin/sh", "-c"].map(str::to_owned));
        }
        argv.push(text);
        argv
    }

    fn workdir(&mut self, word: &Word) -> Result<(Option<Operation>, Option<HistoryLine>)> {
        let text = self.scope.expand(word)?;
        let path = join_clean(&self.config.config.working_dir, &text);
        self.workdir_is_unknown =
            self.has_read_unknown() || self.workdir_is_unknown && !text.starts_with('/');
        // An absolute path goes into the config unchanged, as in BuildKit.
        let shown = if text.starts_with('/') { text } else { path.clone() };
        let line = format!("WORKDIR {shown}");
        self.config.config.working_dir = shown;
        if path == "/" {
            return Ok((None, Some(history::metadata(line))));
        }
        let user = self.config.config.user.clone();
        let operation = Operation::Workdir(WorkdirOperation { path, user });
        Ok((Some(operation), Some(history::layer(line))))
    }

    fn run(
        &self,
        run: &ir::Run,
        mounts: Vec<Option<CopyFrom>>,
        request: &Request,
    ) -> Result<(Option<Operation>, Option<HistoryLine>)> {
        permissions::check(run, request)?;
        let mounts = volumes::with_volumes(self.mounts(run, mounts, request)?, request, run);
        let mut files = Vec::new();
        let argv = match &run.form {
            ir::RunForm::Exec(words) => texts(words),
            ir::RunForm::Shell { text, heredocs } => {
                let mut script = text.value.clone();
                for heredoc in heredocs {
                    script.push('\n');
                    script.push_str(&heredoc.body.value);
                    script.push_str(&heredoc.name.value);
                }
                self.with_shell(script)
            }
            ir::RunForm::Script(heredoc) if heredoc.body.value.starts_with("#!") => {
                let target = format!("{SCRIPT_DIRECTORY}/{}", heredoc.name.value);
                files.push(InlineFile {
                    target: target.clone(),
                    content: heredoc.body.value.clone(),
                });
                self.with_shell(target)
            }
            ir::RunForm::Script(heredoc) => self.with_shell(heredoc.body.value.clone()),
        };
        let line =
            format!("RUN {}{} # buildkit", history::args_prefix(&self.scope), argv.join(" "));
        let hostname = request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
        let network = run.network.and_then(|network| Option::<Network>::from(network.value));
        let mut env = self.scope.values().to_vec();
        if self.scope.get("PATH").is_none() {
            env.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        }
        let operation = RunOperation {
            argv,
            env,
            proxy: self.proxies(request),
            cwd: join_clean("/", &self.config.config.working_dir),
            user: self.config.config.user.clone(),
            network: network.unwrap_or(request.network),
            insecure: run.security.is_some_and(|s| s.value == ir::RunSecurity::Insecure),
            mounts,
            patience: patience(run, request),
            settings: request.run.clone(),
            files,
            hostname: hostname.cloned().unwrap_or_else(|| HOSTNAME.to_owned()),
            platform: self.config.platform().to_string(),
        };
        Ok((Some(Operation::Run(operation)), Some(history::layer(line))))
    }

    fn mounts(
        &self,
        run: &ir::Run,
        froms: Vec<Option<CopyFrom>>,
        request: &Request,
    ) -> Result<Vec<RunMount>> {
        let namespace = request.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
        let scope = MountScope {
            variables: &self.scope,
            workdir: &self.config.config.working_dir,
            workdir_is_unknown: self.workdir_is_unknown,
            cache_namespace: namespace.map(String::as_str).filter(|name| !name.is_empty()),
        };
        mounts::expand(&run.mounts, froms, scope)
    }

    /// Returns the proxy build arguments, each in upper and in lower case.
    fn proxies(&self, request: &Request) -> Vec<(String, String)> {
        let given = request.build_args.iter().filter(|(name, _)| is_proxy(name));
        given
            .flat_map(|(name, value)| {
                let cases = [name.to_ascii_uppercase(), name.to_ascii_lowercase()];
                cases.map(|name| (name, value.clone()))
            })
            .collect()
    }

    fn add(&self, add: &ir::Add) -> Result<(CopyOperation, String)> {
        let from = CopyFrom::Context;
        let (mut operation, line) =
            self.copy("ADD", &add.flags, &add.sources, &add.destination, false, from)?;
        add_remote::apply_flags(self, add, &mut operation.parts)?;
        operation.unpack = add.unpack.is_none_or(|unpack| unpack.value);
        Ok((operation, line))
    }

    fn copy(
        &self,
        keyword: &str,
        flags: &ir::CopyFlags,
        sources: &[ir::CopySource],
        destination: &Word,
        parents: bool,
        from: CopyFrom,
    ) -> Result<(CopyOperation, String)> {
        let flag = |word: &Option<Word>| -> Result<Option<(String, Span)>> {
            let expand = |word: &Word| Ok((self.scope.expand(word)?, word.span));
            word.as_ref().map(expand).transpose()
        };
        let (chown, chmod) = (flag(&flags.chown)?, flag(&flags.chmod)?);
        if let Some((text, span)) = &chmod {
            mode::parse(text, *span)?;
        }
        let mut line = keyword.to_owned();
        let shown = [("--chown", &chown), ("--chmod", &chmod)];
        line.push_str(if parents { " --parents" } else { "" });
        for (name, value) in shown {
            line.extend(value.iter().map(|(text, _)| format!(" {name}={text}")));
        }
        let mut parts = Vec::new();
        // Paths before heredocs, as in BuildKit's `dispatchCopy`: a heredoc replaces a file of the
        // same name.
        let is_heredoc = |source: &&ir::CopySource| matches!(source, ir::CopySource::Heredoc(_));
        let (heredocs, paths): (Vec<_>, Vec<_>) = sources.iter().partition(is_heredoc);
        for source in paths.into_iter().chain(heredocs) {
            let part = self.part(keyword, source)?;
            line.push_str(&match &part {
                PlannedSource::Path { text, .. } => format!(" {text}"),
                PlannedSource::Inline { name, .. } => format!(" <<{name}"),
                PlannedSource::Remote(remote) => format!(" {}", remote.shown),
            });
            parts.push(part);
        }
        let destination = self.scope.expand(destination)?;
        line.push_str(&format!(" {destination} # buildkit"));
        let operation = CopyOperation {
            from,
            parts,
            destination,
            workdir: join_clean("/", &self.config.config.working_dir),
            chown,
            chmod,
            link: flags.link.is_some_and(|link| link.value),
            parents,
            exclude: texts(&flags.exclude),
            unpack: false,
        };
        Ok((operation, line))
    }

    fn part(&self, keyword: &str, source: &ir::CopySource) -> Result<PlannedSource> {
        match source {
            ir::CopySource::Heredoc(heredoc) => {
                let name = heredoc.name.value.clone();
                if name.contains('/') || matches!(name.as_str(), "." | "..") {
                    let message =
                        format!("a heredoc of {keyword} cannot create a file named `{name}`");
                    let error = Diagnostic::error(codes::BAD_ARGUMENT, heredoc.name.span, message);
                    return Err(Box::new(
                        error.label(heredoc.name.span, "expected a name without a slash"),
                    ));
                }
                Ok(PlannedSource::Inline { name, content: self.scope.expand_heredoc(heredoc)? })
            }
            ir::CopySource::Path(word) => {
                let text = self.scope.expand(word)?;
                match add_remote::source(&text, word.span, keyword)? {
                    Some(remote) => Ok(PlannedSource::Remote(remote)),
                    None => Ok(PlannedSource::Path { text, span: word.span }),
                }
            }
        }
    }
}

fn copied((operation, line): (CopyOperation, String)) -> (Option<Operation>, Option<HistoryLine>) {
    (Some(Operation::Copy(operation)), Some(history::layer(line)))
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.value.clone()).collect()
}

fn joined(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

/// Returns an absolute path without `.`, `..`, doubled slashes or a trailing slash.
#[must_use]
pub fn clean_path(path: &str) -> String {
    join_clean("/", path)
}

/// Joins `path` to `directory` and returns an absolute path without `.`, `..`, doubled slashes or a
/// trailing slash.
pub(super) fn join_clean(directory: &str, path: &str) -> String {
    let joined = Path::new("/").join(directory).join(path);
    let mut names: Vec<&str> = Vec::new();
    for component in joined.components() {
        match component {
            PathComponent::Normal(name) => names.extend(name.to_str()),
            PathComponent::ParentDir => drop(names.pop()),
            PathComponent::RootDir | PathComponent::CurDir | PathComponent::Prefix(_) => {}
        }
    }
    format!("/{}", names.join("/"))
}
/// Returns the time and the attempts of a RUN. A comment above it overrides the command line.
fn patience(run: &ir::Run, request: &Request) -> ir::Patience {
    let own = run.patience.unwrap_or_default();
    ir::Patience { timeout: own.timeout.or(request.run.timeout), ..own }
}
