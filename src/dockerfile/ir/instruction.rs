//! Instructions and what they are made of.

use crate::diag::{Span, Spanned};

use super::Mount;

/// Text as written, quotes, escapes and variables still in it.
pub type Word = Spanned<String>;

/// The character that continues lines and escapes others, chosen by `# escape=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `\`, the default.
    #[default]
    Backslash,
    /// `` ` ``, for Windows paths.
    Backtick,
}

impl Escape {
    /// The character.
    #[must_use]
    pub const fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// A `# check=` directive: which build checks are not wanted, and whether the rest are errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Check {
    /// Rules to skip; `all` skips every one.
    pub skip: Vec<String>,
    /// Experimental rules to run; `all` runs every one.
    pub experimental: Vec<String>,
    /// Whether a violated rule fails the build.
    pub error: bool,
}

/// The parser directives at the top of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// `# syntax=`: which frontend the author expects.
    pub syntax: Option<Word>,
    /// `# escape=`.
    pub escape: Option<Spanned<Escape>>,
    /// `# check=`.
    pub check: Option<Spanned<Check>>,
}

/// A whole Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dockerfile {
    /// What stands at the top.
    pub directives: Directives,
    /// The ARGs before the first FROM.
    pub meta_args: Vec<Instruction>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// Returns the value of `TARGETSTAGE`: `target` as given, else the name of the last stage, else
    /// `default` (BuildKit, `dockerfile2llb.toDispatchState`).
    #[must_use]
    pub fn target_stage(&self, target: Option<&str>) -> String {
        let last = self.stages.last().and_then(|stage| stage.from.name.as_ref());
        let named = target.map(str::to_owned);
        named
            .or_else(|| last.map(|(_, name)| name.value.to_ascii_lowercase()))
            .unwrap_or_else(|| "default".to_owned())
    }
}

/// A FROM and all that follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The FROM itself.
    pub from: From,
    /// Where the FROM stands.
    pub span: Span,
    /// The FROM as a person would see it in a log: one line.
    pub text: String,
    /// Rules that a `# check=skip=` comment right above the FROM switches off there.
    pub skip_checks: Vec<String>,
    /// The instructions after it.
    pub instructions: Vec<Instruction>,
}

/// One instruction with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The whole instruction, heredoc bodies included, without the line ending.
    pub span: Span,
    /// The keyword as written.
    pub keyword: Word,
    /// The instruction as one line (continuations folded, heredoc bodies left out), for logs.
    pub text: String,
    /// Rules that a `# check=skip=` comment right above switches off here.
    pub skip_checks: Vec<String>,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `ARG name[=default]…`
    Arg(Vec<Arg>),
    /// `ENV name=value…` or `ENV name value`
    Env(Vec<Pair>),
    /// `LABEL name=value…`
    Label(Vec<Pair>),
    /// `RUN …`
    Run(Run),
    /// `COPY …`
    Copy(Copy),
    /// `ADD …`
    Add(Add),
    /// `WORKDIR path`
    Workdir(Word),
    /// `USER user[:group]`
    User(Word),
    /// `EXPOSE port[/protocol]…`
    Expose(Expose),
    /// `VOLUME path…`
    Volume(Vec<Word>),
    /// `CMD …`
    Cmd(ShellOrExec),
    /// `ENTRYPOINT …`
    Entrypoint(ShellOrExec),
    /// `SHELL ["…"]`
    Shell(Vec<Word>),
    /// `STOPSIGNAL signal`
    Stopsignal(Word),
    /// `HEALTHCHECK …`
    Healthcheck(Healthcheck),
    /// `ONBUILD instruction`
    Onbuild(Onbuild),
    /// `MAINTAINER text`
    Maintainer(Word),
}

/// `FROM [--platform=P] image [AS name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The keyword as written.
    pub keyword: Word,
    /// The flag's value.
    pub platform: Option<Word>,
    /// Image, stage name or `scratch`.
    pub image: Word,
    /// `AS` as written, and the name as written (names are compared in lower case).
    pub name: Option<(Word, Word)>,
}

/// One declaration of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// The name.
    pub name: Word,
    /// The default; `Some("")` after `name=`.
    pub default: Option<Word>,
}

/// One `name=value`, of ENV or LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name, not expanded yet.
    pub name: Word,
    /// The value, not expanded yet.
    pub value: Word,
    /// Whether it was written `name value`.
    pub legacy: bool,
}

/// A synonym that reads better where labels are meant.
pub type Label = Pair;

/// A command as text for the shell, or as its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellOrExec {
    /// Text for the shell, continuations folded.
    Shell(Word),
    /// A JSON array.
    Exec(Vec<Word>),
}

/// A here-document: what stands between `<<NAME` and a line that says `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The name without quotes: the terminator.
    pub name: Word,
    /// The opening token as written, file descriptor and dash included, as in `3<<-"EOF"`.
    pub opening: Word,
    /// Whether the body is subject to expansion: no part of the name was quoted.
    pub expand: bool,
    /// Whether leading tabs are removed (`<<-`).
    pub strip_tabs: bool,
    /// The lines, each with its newline, tabs already removed when `strip_tabs`.
    pub body: Word,
}

/// What a RUN is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunForm {
    /// Text for the shell. With heredocs in it (`cat <<A >f`), `text` is the first line, and each
    /// heredoc's body and terminator follow it when the shell is called.
    Shell {
        /// The command line.
        text: Word,
        /// The heredocs that the command line opens, in order.
        heredocs: Vec<Heredoc>,
    },
    /// `RUN <<NAME` and nothing else: the body is the script.
    Script(Heredoc),
    /// A JSON array.
    Exec(Vec<Word>),
}

/// `RUN [flags] …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `--mount=`, in order.
    pub mounts: Vec<Spanned<Mount>>,
    /// `--network=`.
    pub network: Option<Spanned<RunNetwork>>,
    /// `--security=`.
    pub security: Option<Spanned<RunSecurity>>,
    /// `--device=`, as written.
    pub devices: Vec<Word>,
    /// The command.
    pub form: RunForm,
}

/// `RUN --network=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// What the command line says.
    Default,
    /// Only a loopback interface.
    None,
    /// The host's.
    Host,
}

/// `RUN --security=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunSecurity {
    /// The sandbox.
    Sandbox,
    /// All capabilities, no filter.
    Insecure,
}

/// What COPY and ADD have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyFlags {
    /// `--chown=`.
    pub chown: Option<Word>,
    /// `--chmod=`.
    pub chmod: Option<Word>,
    /// `--link[=bool]`.
    pub link: Option<Spanned<bool>>,
    /// `--exclude=`, in order.
    pub exclude: Vec<Word>,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, a pattern, or (ADD) a URL or git repository: variables still in it.
    Path(Word),
    /// A file made on the spot.
    Heredoc(Heredoc),
}

/// `COPY [flags] source… destination`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The common flags.
    pub flags: CopyFlags,
    /// `--from=`.
    pub from: Option<Word>,
    /// `--parents[=bool]`.
    pub parents: Option<Spanned<bool>>,
    /// At least one.
    pub sources: Vec<CopySource>,
    /// The last argument.
    pub destination: Word,
}

/// `ADD [flags] source… destination`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// The common flags.
    pub flags: CopyFlags,
    /// `--keep-git-dir[=bool]`.
    pub keep_git_dir: Option<Spanned<bool>>,
    /// `--checksum=`.
    pub checksum: Option<Word>,
    /// `--unpack[=bool]`.
    pub unpack: Option<Spanned<bool>>,
    /// At least one.
    pub sources: Vec<CopySource>,
    /// The last argument.
    pub destination: Word,
}

/// `EXPOSE …`: words, not expanded yet (one variable may hold several ports).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expose {
    /// The words as written.
    pub ports: Vec<Word>,
}

/// `HEALTHCHECK …`. Durations are nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// `--interval=`.
    pub interval: Option<i64>,
    /// `--timeout=`.
    pub timeout: Option<i64>,
    /// `--start-period=`.
    pub start_period: Option<i64>,
    /// `--start-interval=`.
    pub start_interval: Option<i64>,
    /// `--retries=`.
    pub retries: Option<i64>,
    /// What to run.
    pub test: HealthcheckTest,
}

/// What a health check runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthcheckTest {
    /// `NONE`: an inherited check is switched off.
    None,
    /// `CMD …`
    Cmd(ShellOrExec),
}

/// `ONBUILD instruction`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger as it is stored in the image's config: continuations folded, heredoc bodies
    /// kept.
    pub text: Word,
    /// The trigger, parsed.
    pub instruction: Box<Instruction>,
}
