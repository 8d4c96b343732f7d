//! Prints the IR as a Dockerfile that parses to the same IR, except for spans and log texts.

use super::{
    Add, Arg, Check, Copy, CopyFlags, CopySource, Directives, Dockerfile, Escape, From,
    Healthcheck, HealthcheckTest, Heredoc, Instruction, Kind, Mount, Pair, Patience, Run, RunForm,
    RunNetwork, RunSecurity, ShellOrExec, Stage, Word,
};

/// Prints `file` with one instruction a line; heredoc bodies take lines of their own.
#[must_use]
pub fn print(file: &Dockerfile) -> String {
    let escape = file.directives.escape.map_or(Escape::default(), |escape| escape.value);
    let mut printer = Printer { escape: escape.char(), text: String::new() };
    printer.directives(&file.directives);
    for instruction in &file.meta_args {
        printer.instruction(instruction);
    }
    for stage in &file.stages {
        printer.stage(stage);
    }
    printer.text
}

struct Printer {
    escape: char,
    text: String,
}

impl Printer {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn directives(&mut self, directives: &Directives) {
        if let Some(syntax) = &directives.syntax {
            self.line(&syntax_directive(&syntax.value));
        }
        if let Some(escape) = directives.escape {
            self.line(&format!("# escape={}", escape.value.char()));
        }
        if let Some(check) = &directives.check {
            self.line(&check_directive(&check.value));
        }
    }

    fn stage(&mut self, stage: &Stage) {
        self.skip_checks(&stage.skip_checks);
        let from = self.from(&stage.from);
        let from = self.ended(from);
        self.line(&from);
        for instruction in &stage.instructions {
            self.instruction(instruction);
        }
    }

    /// Keeps the next line from continuing `line`. An escape character at the end does not continue a
    /// line if a blank other than space and tab follows it.
    fn ended(&self, mut line: String) -> String {
        let kept = line.trim_end_matches([' ', '\t']).strip_suffix(self.escape);
        if kept.is_some_and(|kept| !kept.ends_with(self.escape)) {
            line.push('\x0b');
        }
        line
    }

    fn from(&self, from: &From) -> String {
        let mut line = from.keyword.value.clone();
        if let Some(platform) = &from.platform {
            line.push_str(&self.flag("platform", &platform.value));
        }
        let mut words = vec![from.image.value.as_str()];
        if let Some((separator, name)) = &from.name {
            words.extend([separator.value.as_str(), name.value.as_str()]);
        }
        line + &arguments(&words.join(" "))
    }

    fn skip_checks(&mut self, rules: &[String]) {
        if !rules.is_empty() {
            // The blank line keeps the comment from being read as a directive of the file.
            self.line(&format!("\n# check=skip={}", rules.join(",")));
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        self.skip_checks(&instruction.skip_checks);
        if let Kind::Run(Run { patience: Some(patience), .. }) = &instruction.kind {
            self.line(&patience_comment(*patience));
        }
        let keyword = &instruction.keyword.value;
        let (rest, heredocs) = self.kind(&instruction.kind);
        let mut line = self.ended(format!("{keyword}{rest}"));
        for heredoc in heredocs {
            line.push('\n');
            line.push_str(&heredoc.body.value);
            line.push_str(&heredoc.name.value);
        }
        self.line(&line);
    }

    /// Returns the text after the keyword, and the heredocs whose bodies follow.
    fn kind<'a>(&self, kind: &'a Kind) -> (String, Vec<&'a Heredoc>) {
        let text = match kind {
            Kind::Run(run) => return self.run(run),
            Kind::Copy(copy) => return self.copy(copy),
            Kind::Add(add) => return self.add(add),
            Kind::Arg(args) => arguments(&joined(args.iter().map(arg))),
            Kind::Env(pairs) | Kind::Label(pairs) => {
                arguments(&joined(pairs.iter().map(|pair| self.pair(pair))))
            }
            Kind::Workdir(word)
            | Kind::User(word)
            | Kind::Stopsignal(word)
            | Kind::Maintainer(word) => arguments(&word.value),
            Kind::Expose(expose) => {
                arguments(&joined(expose.ports.iter().map(|port| port.value.clone())))
            }
            Kind::Volume(words) | Kind::Shell(words) => arguments(&json(words)),
            Kind::Cmd(command) | Kind::Entrypoint(command) => arguments(&command_text(command)),
            Kind::Healthcheck(healthcheck) => self.healthcheck(healthcheck),
            // The text of a trigger includes its heredoc bodies.
            Kind::Onbuild(onbuild) => arguments(&onbuild.text.value),
        };
        (text, Vec::new())
    }

    fn run<'a>(&self, run: &'a Run) -> (String, Vec<&'a Heredoc>) {
        let mut line = String::new();
        for mount in &run.mounts {
            line.push_str(&self.flag("mount", &mount_options(&mount.value)));
        }
        if let Some(network) = run.network {
            let name = match network.value {
                RunNetwork::Default => "default",
                RunNetwork::None => "none",
                RunNetwork::Host => "host",
            };
            line.push_str(&self.flag("network", name));
        }
        if let Some(security) = run.security {
            let name = match security.value {
                RunSecurity::Sandbox => "sandbox",
                RunSecurity::Insecure => "insecure",
            };
            line.push_str(&self.flag("security", name));
        }
        for device in &run.devices {
            line.push_str(&self.flag("device", &device.value));
        }
        match &run.form {
            RunForm::Shell { text, heredocs } => {
                (line + &arguments(&text.value), heredocs.iter().collect())
            }
            RunForm::Script(heredoc) => (line + &arguments(&heredoc.opening.value), vec![heredoc]),
            RunForm::Exec(words) => (line + &arguments(&json(words)), Vec::new()),
        }
    }

    fn copy<'a>(&self, copy: &'a Copy) -> (String, Vec<&'a Heredoc>) {
        let mut line = self.copy_flags(&copy.flags);
        if let Some(from) = &copy.from {
            line.push_str(&self.flag("from", &from.value));
        }
        if let Some(parents) = copy.parents {
            line.push_str(&self.flag("parents", &parents.value.to_string()));
        }
        let (files, heredocs) = self.files(&copy.sources, &copy.destination);
        (line + &arguments(&files), heredocs)
    }

    fn add<'a>(&self, add: &'a Add) -> (String, Vec<&'a Heredoc>) {
        let mut line = self.copy_flags(&add.flags);
        if let Some(keep) = add.keep_git_dir {
            line.push_str(&self.flag("keep-git-dir", &keep.value.to_string()));
        }
        if let Some(checksum) = &add.checksum {
            line.push_str(&self.flag("checksum", &checksum.value));
        }
        if let Some(unpack) = add.unpack {
            line.push_str(&self.flag("unpack", &unpack.value.to_string()));
        }
        let (files, heredocs) = self.files(&add.sources, &add.destination);
        (line + &arguments(&files), heredocs)
    }

    /// Prints sources and destination: as JSON, which can express every path, unless there are heredocs.
    fn files<'a>(
        &self,
        sources: &'a [CopySource],
        destination: &Word,
    ) -> (String, Vec<&'a Heredoc>) {
        let mut words = Vec::new();
        let mut heredocs = Vec::new();
        for source in sources {
            match source {
                CopySource::Path(path) => words.push(path.clone()),
                CopySource::Heredoc(heredoc) => {
                    words.push(heredoc.opening.clone());
                    heredocs.push(heredoc);
                }
            }
        }
        words.push(destination.clone());
        if heredocs.is_empty() {
            return (json(&words), heredocs);
        }
        let word = |word: Word| {
            // The escape character at the end of the word takes one of two blanks.
            let blank = if word.value.ends_with(self.escape) { " " } else { "" };
            word.value + blank
        };
        (joined(words.into_iter().map(word)), heredocs)
    }

    fn copy_flags(&self, flags: &CopyFlags) -> String {
        let mut line = String::new();
        for (name, value) in [("chown", &flags.chown), ("chmod", &flags.chmod)] {
            if let Some(value) = value {
                line.push_str(&self.flag(name, &value.value));
            }
        }
        if let Some(link) = flags.link {
            line.push_str(&self.flag("link", &link.value.to_string()));
        }
        for pattern in &flags.exclude {
            line.push_str(&self.flag("exclude", &pattern.value));
        }
        line
    }

    fn healthcheck(&self, check: &Healthcheck) -> String {
        let mut line = String::new();
        for (name, ns) in [
            ("interval", check.interval),
            ("timeout", check.timeout),
            ("start-period", check.start_period),
            ("start-interval", check.start_interval),
        ] {
            if let Some(ns) = ns {
                line.push_str(&self.flag(name, &format!("{ns}ns")));
            }
        }
        if let Some(retries) = check.retries {
            line.push_str(&self.flag("retries", &retries.to_string()));
        }
        line + &match &check.test {
            HealthcheckTest::None => " NONE".to_owned(),
            HealthcheckTest::Cmd(command) => format!(" CMD {}", command_text(command)),
        }
    }

    fn pair(&self, pair: &Pair) -> String {
        let (name, value) = (&pair.name.value, &pair.value.value);
        match pair.legacy {
            false => format!("{name}={value}"),
            // The escape character at the end of the word takes one of two blanks.
            true if name.ends_with(self.escape) => format!("{name}  {value}"),
            true => format!("{name} {value}"),
        }
    }

    /// Prints a flag after a blank, with all characters escaped that would end or change its value.
    fn flag(&self, name: &str, value: &str) -> String {
        let mut flag = format!(" --{name}=");
        for char in value.chars() {
            if char.is_ascii_whitespace()
                || matches!(char, '\x0b' | '"' | '\'')
                || char == self.escape
            {
                flag.push(self.escape);
            }
            flag.push(char);
        }
        flag
    }
}

/// Prints arguments after a blank, and after `--` if they would be read as a flag.
fn arguments(text: &str) -> String {
    if text.starts_with("--") { format!(" -- {text}") } else { format!(" {text}") }
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

/// Prints the directive as a comment, or as JSON if a comment cannot hold the value.
fn syntax_directive(value: &str) -> String {
    let as_comment = !value.is_empty() && value.trim() == value && !value.contains('\n');
    if as_comment {
        return format!("# syntax={value}");
    }
    serde_json::json!({ "syntax": value }).to_string()
}

fn check_directive(check: &Check) -> String {
    let mut options = Vec::new();
    if !check.skip.is_empty() {
        options.push(format!("skip={}", check.skip.join(",")));
    }
    if !check.experimental.is_empty() {
        options.push(format!("experimental={}", check.experimental.join(",")));
    }
    options.push(format!("error={}", check.error));
    format!("# check={}", options.join(";"))
}

/// Prints durations in nanoseconds, which lose nothing.
fn patience_comment(patience: Patience) -> String {
    let timeout = patience.timeout.map(|timeout| format!(" timeout={}ns", timeout.as_nanos()));
    format!("# rbuild:{} retry={}", timeout.unwrap_or_default(), patience.n_retries)
}

fn arg(arg: &Arg) -> String {
    match &arg.default {
        Some(default) => format!("{}={}", arg.name.value, default.value),
        None => arg.name.value.clone(),
    }
}

fn command_text(command: &ShellOrExec) -> String {
    match command {
        ShellOrExec::Shell(text) => text.value.clone(),
        ShellOrExec::Exec(words) => json(words),
    }
}

fn json(words: &[Word]) -> String {
    let list: Vec<serde_json::Value> =
        words.iter().map(|word| serde_json::Value::from(word.value.as_str())).collect();
    serde_json::Value::from(list).to_string()
}

fn mount_options(mount: &Mount) -> String {
    let kind = match &mount.kind_variable {
        Some(variable) => variable.value.as_str(),
        None => mount.kind.name(),
    };
    let mut fields = vec![option("type", kind)];
    for (key, value) in [
        ("target", &mount.target),
        ("source", &mount.source),
        ("from", &mount.from),
        ("id", &mount.id),
        ("size", &mount.size),
        ("mode", &mount.mode),
        ("uid", &mount.uid),
        ("gid", &mount.gid),
        ("env", &mount.env),
    ] {
        if let Some(value) = value {
            fields.push(option(key, &value.value));
        }
    }
    for (key, flag) in [("readonly", mount.read_only), ("required", mount.required)] {
        if let Some(flag) = flag {
            fields.push(option(key, &flag.value.to_string()));
        }
    }
    if let Some(sharing) = mount.sharing {
        fields.push(option("sharing", sharing.value.name()));
    }
    fields.join(",")
}

/// Prints an option of a mount, quoted as in CSV where needed (RFC 4180).
fn option(key: &str, value: &str) -> String {
    if value.contains([',', '"']) {
        return format!("\"{key}={}\"", value.replace('"', "\"\""));
    }
    format!("{key}={value}")
}
