//! Instructions and their arguments.
//!
//! Types follow the sections of the Dockerfile reference
//! (<https://docs.docker.com/reference/dockerfile/>) and keep what the author wrote: values are
//! expanded by `expand`, once the variables are known.

use std::time::Duration;

use crate::diag::{Span, Spanned};

use super::Mount;

/// Text as written, with its quotes, escapes and variables.
pub type Word = Spanned<String>;

/// The character that continues lines and escapes others, chosen by `# escape=`
/// (<https://docs.docker.com/reference/dockerfile/#escape>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `\`, used unless the file has a directive.
    #[default]
    Backslash,
    /// `` ` ``, for Windows paths.
    Backtick,
}

impl Escape {
    /// Returns the character itself.
    #[must_use]
    pub const fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// A `# check=` directive: the build checks to skip, and whether the others are errors
/// (<https://docs.docker.com/reference/dockerfile/#check>).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Check {
    /// Rules to skip; `all` skips every one.
    pub skip: Vec<String>,
    /// Experimental rules to run; `all` runs every one.
    pub experimental: Vec<String>,
    /// True if a violated rule fails the build.
    pub error: bool,
}

/// The parser directives at the top of the file
/// (<https://docs.docker.com/reference/dockerfile/#parser-directives>).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// Value of `# syntax=`: the frontend that the author expects.
    pub syntax: Option<Word>,
    /// Value of `# escape=`.
    pub escape: Option<Spanned<Escape>>,
    /// Value of `# check=`.
    pub check: Option<Spanned<Check>>,
}

/// A Dockerfile after parsing: directives, global ARGs and stages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dockerfile {
    /// Parser directives, from the first lines of the file.
    pub directives: Directives,
    /// The ARGs before the first FROM.
    pub meta_args: Vec<Instruction>,
    /// Stages, in source order.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// Returns the file's escape character.
    #[must_use]
    pub fn escape(&self) -> Escape {
        self.directives.escape.map_or_else(Escape::default, |escape| escape.value)
    }

    /// Returns the value of `TARGETSTAGE`: `target` as given, else the name of the last stage, else
    /// `default` (BuildKit, `dockerfile2llb.toDispatchState`).
    #[must_use]
    pub fn target_stage(&self, target: Option<&str>) -> String {
        let named = target.map(str::to_owned);
        named
            .or_else(|| self.stages.last().and_then(Stage::name))
            .unwrap_or_else(|| "default".to_owned())
    }
}

/// A build stage: a FROM and the instructions up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Arguments of its FROM.
    pub from: From,
    /// Span of the FROM instruction.
    pub span: Span,
    /// The FROM in one line, for logs.
    pub text: String,
    /// Rules that a `# check=skip=` comment directly above the FROM disables for it.
    pub skip_checks: Vec<String>,
    /// Instructions after the FROM.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// Returns the stage's name in lower case, as names are compared.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.from.name.as_ref().map(|(_, name)| name.value.to_ascii_lowercase())
    }
}

/// One instruction and its source location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Span of the instruction with its heredoc bodies, without the line ending.
    pub span: Span,
    /// The keyword as written, in upper or lower case.
    pub keyword: Word,
    /// The instruction in one line, for logs: continuations folded, heredoc bodies left out.
    pub text: String,
    /// Rules that a `# check=skip=` comment directly above disables for this instruction.
    pub skip_checks: Vec<String>,
    /// The instruction itself with its arguments.
    pub kind: Kind,
}

impl Instruction {
    /// Iterates over the words that may name a stage or an image: `--from` of COPY and `from=` of
    /// the mounts of a RUN.
    pub fn from_words(&self) -> impl Iterator<Item = &Word> {
        let copy = if let Kind::Copy(copy) = &self.kind { copy.from.as_ref() } else { None };
        let mounts = if let Kind::Run(run) = &self.kind { run.mounts.as_slice() } else { &[] };
        copy.into_iter().chain(mounts.iter().filter_map(|mount| mount.value.from.as_ref()))
    }
}

/// An instruction's keyword and arguments; FROM begins a [`Stage`] instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Declares variables: `ARG name[=default]…`
    Arg(Vec<Arg>),
    /// Sets variables of the image: `ENV name=value…` or `ENV name value`
    Env(Vec<Pair>),
    /// Adds metadata to the image: `LABEL name=value…`
    Label(Vec<Pair>),
    /// Executes a command and keeps its changes: `RUN …`
    Run(Run),
    /// Copies files from a context, stage or image: `COPY …`
    Copy(Copy),
    /// Copies files, URLs and git repositories: `ADD …`
    Add(Add),
    /// Sets and creates the working directory: `WORKDIR path`
    Workdir(Word),
    /// Sets the user of later commands: `USER user[:group]`
    User(Word),
    /// Documents ports of the image: `EXPOSE port[/protocol]…`
    Expose(Expose),
    /// Declares mount points of the image: `VOLUME path…`
    Volume(Vec<Word>),
    /// Sets the default command: `CMD …`
    Cmd(ShellOrExec),
    /// Sets the executable of the image: `ENTRYPOINT …`
    Entrypoint(ShellOrExec),
    /// Sets the shell of later commands: `SHELL ["…"]`
    Shell(Vec<Word>),
    /// Sets the signal that stops a container: `STOPSIGNAL signal`
    Stopsignal(Word),
    /// Sets or disables the health check: `HEALTHCHECK …`
    Healthcheck(Healthcheck),
    /// Adds a trigger for builds on this image: `ONBUILD instruction`
    Onbuild(Onbuild),
    /// Names the author (deprecated): `MAINTAINER text`
    Maintainer(Word),
}

/// Arguments of `FROM [--platform=P] image [AS name]`
/// (<https://docs.docker.com/reference/dockerfile/#from>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The keyword as written, in upper or lower case.
    pub keyword: Word,
    /// Value of `--platform`, if given.
    pub platform: Option<Word>,
    /// Name of an image or earlier stage, or `scratch`.
    pub image: Word,
    /// `AS` and the stage name, both as written; [`Stage::name`] returns the name for comparison.
    pub name: Option<(Word, Word)>,
}

/// One variable that an ARG declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Name of the variable, which holds no `$`.
    pub name: Word,
    /// Default value; empty, not `None`, after `name=`.
    pub default: Option<Word>,
}

/// One `name=value` of ENV or LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Name, not yet expanded.
    pub name: Word,
    /// Value, not yet expanded.
    pub value: Word,
    /// True if written in the legacy form, `name value`.
    pub legacy: bool,
}

/// A command in shell form or in exec form
/// (<https://docs.docker.com/reference/dockerfile/#shell-and-exec-form>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellOrExec {
    /// Text for the shell, with continuations folded.
    Shell(Word),
    /// Arguments, from a JSON array.
    Exec(Vec<Word>),
}

/// A here-document: the lines between `<<NAME` and a line that consists of `NAME`
/// (<https://docs.docker.com/reference/dockerfile/#here-documents>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Terminator: the name without its quotes.
    pub name: Word,
    /// Opening token as written, with file descriptor and dash, as in `3<<-"EOF"`.
    pub opening: Word,
    /// True if variables in the body are expanded: no part of the name was quoted.
    pub expand: bool,
    /// True if leading tabs are removed (`<<-`).
    pub strip_tabs: bool,
    /// Lines of the body, each with its newline; tabs are already removed if `strip_tabs`.
    pub body: Word,
}

/// The command of a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunForm {
    /// Text for the shell. With heredocs (`cat <<A >f`), `text` is the first line; bodies and
    /// terminators follow it when the shell is called.
    Shell {
        /// Command line, with continuations folded.
        text: Word,
        /// Heredocs that the command line opens, in order.
        heredocs: Vec<Heredoc>,
    },
    /// A heredoc alone (`RUN <<NAME`): its body is the script.
    Script(Heredoc),
    /// Arguments, from a JSON array.
    Exec(Vec<Word>),
}

/// Flags and command of a RUN (<https://docs.docker.com/reference/dockerfile/#run>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Settings of a `# rbuild:` comment directly above.
    pub patience: Option<Patience>,
    /// Values of `--mount`, in order.
    pub mounts: Vec<Spanned<Mount>>,
    /// Value of `--network`, if given.
    pub network: Option<Spanned<RunNetwork>>,
    /// Value of `--security`, if given.
    pub security: Option<Spanned<RunSecurity>>,
    /// Values of `--device`, as written.
    pub devices: Vec<Word>,
    /// Command in any of its forms.
    pub form: RunForm,
}

/// The time and the attempts that a RUN gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patience {
    /// Maximum duration of its command.
    pub timeout: Option<Duration>,
    /// Number of times that a failed command is re-run.
    pub n_retries: u32,
}

/// Value of `RUN --network` (<https://docs.docker.com/reference/dockerfile/#run---network>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// The network of the build, set by the command line.
    Default,
    /// No network but a loopback interface.
    None,
    /// The network of the host.
    Host,
}

/// Value of `RUN --security` (<https://docs.docker.com/reference/dockerfile/#run---security>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunSecurity {
    /// In the sandbox, as without the flag.
    Sandbox,
    /// With all capabilities and without a seccomp filter.
    Insecure,
}

/// Flags that COPY and ADD share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyFlags {
    /// Value of `--chown`, not yet expanded.
    pub chown: Option<Word>,
    /// Value of `--chmod`, not yet expanded.
    pub chmod: Option<Word>,
    /// Value of `--link`; true without a value.
    pub link: Option<Spanned<bool>>,
    /// Patterns of `--exclude`, in order.
    pub exclude: Vec<Word>,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, a pattern or, for ADD, a URL or git repository; not yet expanded.
    Path(Word),
    /// A file whose content is in the Dockerfile.
    Heredoc(Heredoc),
}

/// Arguments of `COPY [flags] source… destination`
/// (<https://docs.docker.com/reference/dockerfile/#copy>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Flags shared by COPY and ADD.
    pub flags: CopyFlags,
    /// Value of `--from`: a stage, image or named context.
    pub from: Option<Word>,
    /// Value of `--parents`; true without a value.
    pub parents: Option<Spanned<bool>>,
    /// Sources in order, at least one.
    pub sources: Vec<CopySource>,
    /// Destination, the last argument.
    pub destination: Word,
}

/// Arguments of `ADD [flags] source… destination`
/// (<https://docs.docker.com/reference/dockerfile/#add>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// Flags shared by COPY and ADD.
    pub flags: CopyFlags,
    /// Value of `--keep-git-dir`; true without a value.
    pub keep_git_dir: Option<Spanned<bool>>,
    /// Value of `--checksum`, not yet expanded.
    pub checksum: Option<Word>,
    /// Value of `--unpack`; true without a value.
    pub unpack: Option<Spanned<bool>>,
    /// Sources in order, at least one.
    pub sources: Vec<CopySource>,
    /// Destination, the last argument.
    pub destination: Word,
}

/// Arguments of EXPOSE. One word can expand to several ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expose {
    /// Words in order, not yet expanded.
    pub ports: Vec<Word>,
}

/// Arguments of HEALTHCHECK; durations are in nanoseconds, as in the image config
/// (<https://docs.docker.com/reference/dockerfile/#healthcheck>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// Time between two checks (`--interval`).
    pub interval: Option<i64>,
    /// Time after which a check has failed (`--timeout`).
    pub timeout: Option<i64>,
    /// Time in which failures do not count (`--start-period`).
    pub start_period: Option<i64>,
    /// Time between two checks in the start period (`--start-interval`).
    pub start_interval: Option<i64>,
    /// Failures in a row that make a container unhealthy (`--retries`).
    pub retries: Option<i64>,
    /// The check itself, or `NONE`.
    pub test: HealthcheckTest,
}

/// The test of a HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthcheckTest {
    /// `NONE`: disables an inherited check.
    None,
    /// `CMD …`: the command to run.
    Cmd(ShellOrExec),
}

/// The trigger of an ONBUILD (<https://docs.docker.com/reference/dockerfile/#onbuild>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// Trigger as stored in the image config: continuations folded, heredoc bodies kept.
    pub text: Word,
    /// Trigger as a parsed instruction.
    pub instruction: Box<Instruction>,
}
