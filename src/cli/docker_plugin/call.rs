//! The command line of a docker plugin: options of docker, the name of the plugin, a command of Buildx.

use std::ffi::OsString;
use std::path::Path;

use super::words::Words;

/// Prefix of the file names of docker's plugins.
const PREFIX: &str = "docker-";
/// The argument with which docker asks for the metadata of a plugin.
const METADATA: &str = "docker-cli-plugin-metadata";

/// Options before the command that take a value, and the variable with the same effect.
const WITH_VALUE: [(&[&str], Option<&str>); 8] = [
    (&["--config"], Some("DOCKER_CONFIG")),
    (&["--context", "-c"], Some("DOCKER_CONTEXT")),
    (&["--host", "-H"], Some("DOCKER_HOST")),
    (&["--log-level", "-l"], None),
    (&["--tlscacert"], None),
    (&["--tlscert"], None),
    (&["--tlskey"], None),
    (&["--builder"], None),
];
/// Options before the command without a value, and the variable with the same effect.
const WITHOUT_VALUE: [(&str, Option<&str>); 4] = [
    ("--debug", None),
    ("-D", None),
    ("--tls", Some("DOCKER_TLS")),
    ("--tlsverify", Some("DOCKER_TLS_VERIFY")),
];

/// Variables that the options before the command stand for.
pub(super) type Variables = Vec<(&'static str, String)>;

/// A call of docker's client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PluginCall {
    /// docker asks for the version.
    Metadata,
    /// A command about builders.
    Builder(BuilderCommand),
    /// A command line of rbuild, with the name of the program.
    Command(Vec<OsString>),
}

/// A command of Buildx about builders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BuilderCommand {
    /// `version`.
    Version,
    /// `ls`, as a table or as JSON.
    List {
        /// True for one JSON object a line.
        is_json: bool,
    },
    /// `inspect`, of the builder with this name.
    Inspect(Option<String>),
    /// `create`, of a builder with this name.
    Create(Option<String>),
    /// `use`, `rm`, `stop`, `install` or `uninstall`, which change nothing.
    Nothing,
}

/// Returns the name of the plugin if the program was started as one: `buildx` for `docker-buildx`.
pub(super) fn plugin_name(words: &[OsString]) -> Option<String> {
    let program = Path::new(words.first()?).file_name()?.to_str()?;
    let name = program.strip_prefix(PREFIX)?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Reads the command line of the plugin `plugin`. The options before the command are added to
/// `variables`.
///
/// # Errors
/// A message for the user if a command or an option is not supported.
pub(super) fn read(
    plugin: &str,
    words: &[OsString],
    variables: &mut Variables,
) -> Result<PluginCall, String> {
    let mut words = Words::new(words.get(1..).unwrap_or_default());
    if words.next_if(METADATA) {
        return Ok(PluginCall::Metadata);
    }
    let mut is_debug = options(&mut words, variables)?;
    // docker repeats the name of the plugin. A user who starts the file itself does not.
    if words.next_if(plugin) {
        is_debug |= options(&mut words, variables)?;
    }
    let mut call = command(&mut words)?;
    if let (true, PluginCall::Command(words)) = (is_debug, &mut call) {
        words.insert(1, "--debug".into());
    }
    Ok(call)
}

/// Reads the options before the command. Returns whether the debug log is wanted.
fn options(words: &mut Words<'_>, variables: &mut Variables) -> Result<bool, String> {
    let mut is_debug = false;
    'words: loop {
        for (names, variable) in WITH_VALUE {
            if let Some(value) = words.next_value(names)? {
                variables.extend(variable.map(|variable| (variable, value)));
                continue 'words;
            }
        }
        for (name, variable) in WITHOUT_VALUE {
            if words.next_flag(name) {
                is_debug |= variable.is_none();
                variables.extend(variable.map(|variable| (variable, "1".to_owned())));
                continue 'words;
            }
        }
        return Ok(is_debug);
    }
}

/// Translates a command of Buildx.
fn command(words: &mut Words<'_>) -> Result<PluginCall, String> {
    let Some(name) = words.next() else { return Ok(rbuild(["-h"], words)) };
    Ok(match &*name.to_string_lossy() {
        "build" | "b" => rbuild(["build"], words),
        "bake" | "f" => rbuild(["bake"], words),
        "imagetools" => rbuild(["imagetools"], &mut without_builder(words)?),
        "history" => history(&mut without_builder(words)?),
        "du" => PluginCall::Command(du(words)?),
        "prune" => PluginCall::Command(prune(words)?),
        "version" => PluginCall::Builder(BuilderCommand::Version),
        "ls" => PluginCall::Builder(BuilderCommand::List { is_json: list(words)? }),
        "inspect" => PluginCall::Builder(BuilderCommand::Inspect(inspect(words)?)),
        "create" => PluginCall::Builder(BuilderCommand::Create(create(words)?)),
        "use" | "rm" | "stop" | "install" | "uninstall" => {
            PluginCall::Builder(BuilderCommand::Nothing)
        }
        "help" | "--help" | "-h" => rbuild(["-h"], words),
        name => {
            return Err(format!(
                "rbuild has no counterpart of `docker buildx {name}`: it has no builders that \
                 could be entered or debugged; see `rbuild -h`"
            ));
        }
    })
}

/// Returns a command line of rbuild: these words, and all that are left.
fn rbuild<const N: usize>(first: [&str; N], words: &mut Words<'_>) -> PluginCall {
    let first = ["rbuild"].into_iter().chain(first).map(OsString::from);
    PluginCall::Command(first.chain(words).collect())
}

/// Removes `--builder` from the words that are left: there is one builder.
fn without_builder<'a>(words: &mut Words<'a>) -> Result<Words<'a>, String> {
    let mut kept = Vec::new();
    loop {
        if words.next_value(&["--builder"])?.is_some() {
            continue;
        }
        let Some(word) = words.next_ref() else { return Ok(Words::of_refs(kept)) };
        kept.push(word);
    }
}

/// `history`, whose `inspect` is rbuild's `show`.
fn history(words: &mut Words<'_>) -> PluginCall {
    if words.next_if("inspect") {
        return rbuild(["history", "show"], words);
    }
    rbuild(["history"], words)
}

fn du(words: &mut Words<'_>) -> Result<Vec<OsString>, String> {
    let mut line: Vec<OsString> = vec!["rbuild".into(), "du".into()];
    while !words.is_empty() {
        if words.next_value(&["--builder", "--timeout"])?.is_some() {
            continue;
        }
        match words.next_value(&["--format"])?.as_deref() {
            Some("json") => line.push("--json".into()),
            Some(other) => return Err(format!("du --format {other}: only `json` is supported")),
            None => line.extend(words.next()),
        }
    }
    Ok(line)
}

/// `prune` removes build caches and never images, unlike `rbuild prune --all`.
fn prune(words: &mut Words<'_>) -> Result<Vec<OsString>, String> {
    let mut line: Vec<OsString> = ["rbuild", "prune", "--cache-mounts"].map(OsString::from).into();
    while !words.is_empty() {
        let is_default = words.next_flag("--all")
            || words.next_flag("-a")
            || words.next_flag("--verbose")
            || words.next_value(&["--builder", "--timeout"])?.is_some();
        if is_default {
            continue;
        }
        if words.next_flag("-af") || words.next_flag("-fa") {
            line.push("--force".into());
        } else if let Some(size) = words.next_value(&["--max-used-space", "--keep-storage"])? {
            line.extend(["--keep-storage".into(), size.into()]);
        } else if let Some(size) = words.next_value(&["--reserved-space"])? {
            line.extend(["--keep-storage".into(), size.into()]);
        } else if words.next_value(&["--min-free-space"])?.is_some() {
            return Err("rbuild has no `--min-free-space`: --max-used-space limits the size of \
                        the store"
                .to_owned());
        } else {
            line.extend(words.next());
        }
    }
    Ok(line)
}

/// Reads the options of `ls`. Returns whether JSON is wanted.
fn list(words: &mut Words<'_>) -> Result<bool, String> {
    let mut is_json = false;
    while !words.is_empty() {
        if words.next_flag("--no-trunc") || words.next_value(&["--builder", "--timeout"])?.is_some()
        {
            continue;
        }
        match words.next_value(&["--format"])?.as_deref() {
            Some("json") => is_json = true,
            Some("table") => {}
            Some(other) => {
                return Err(format!("ls --format {other}: only `table` and `json` are supported"));
            }
            None => return Err(unknown("ls", words)),
        }
    }
    Ok(is_json)
}

/// Reads the arguments of `inspect`. Returns the name of the builder.
fn inspect(words: &mut Words<'_>) -> Result<Option<String>, String> {
    let mut name = None;
    while !words.is_empty() {
        if words.next_flag("--bootstrap") || words.next_value(&["--timeout"])?.is_some() {
            continue;
        }
        if let Some(builder) = words.next_value(&["--builder"])? {
            name = Some(builder);
        } else if let Some(builder) = words.next_operand() {
            name = Some(builder);
        } else {
            return Err(unknown("inspect", words));
        }
    }
    Ok(name)
}

/// Reads the arguments of `create`. Returns the name of the builder.
fn create(words: &mut Words<'_>) -> Result<Option<String>, String> {
    let mut name = None;
    while !words.is_empty() {
        if let Some(given) = words.next_value(&["--name"])? {
            name = Some(given);
        } else {
            // A driver, its options, an endpoint: rbuild runs in the process of the client.
            let _unused = words.next();
        }
    }
    Ok(name)
}

fn unknown(command: &str, words: &mut Words<'_>) -> String {
    let word = words.next().unwrap_or_default();
    format!("{command}: unknown argument `{}`", word.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> (Variables, Result<PluginCall, String>) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut variables = Vec::new();
        let call = read(&plugin_name(&words).unwrap(), &words, &mut variables);
        (variables, call)
    }

    #[test]
    fn commands_of_buildx_become_commands_of_rbuild() {
        for (line, want) in [
            ("docker-buildx buildx build -t a .", "rbuild build -t a ."),
            ("/x/docker-rbuild rbuild build -t a .", "rbuild build -t a ."),
            ("docker-buildx build buildx", "rbuild build buildx"),
            ("docker-buildx buildx -D --builder x b .", "rbuild --debug build ."),
            ("docker-buildx buildx bake --file -", "rbuild bake --file -"),
            (
                "docker-buildx buildx imagetools inspect --builder a b",
                "rbuild imagetools inspect b",
            ),
            ("docker-buildx buildx history inspect", "rbuild history show"),
            ("docker-buildx buildx history ls", "rbuild history ls"),
            ("docker-buildx buildx du --verbose --timeout 3s", "rbuild du --verbose"),
            ("docker-buildx buildx du --format=json", "rbuild du --json"),
            ("docker-buildx buildx prune -af", "rbuild prune --cache-mounts --force"),
            (
                "docker-buildx buildx prune --all -f --filter until=1h --max-used-space=1gb",
                "rbuild prune --cache-mounts -f --filter until=1h --keep-storage 1gb",
            ),
            ("docker-buildx buildx", "rbuild -h"),
        ] {
            let want: Vec<OsString> = want.split(' ').map(OsString::from).collect();
            assert_eq!(call(line).1, Ok(PluginCall::Command(want)), "{line}");
        }
    }

    #[test]
    fn commands_about_builders_are_answered() {
        use BuilderCommand::{Create, Inspect, List, Nothing, Version};
        for (line, want) in [
            ("docker-buildx buildx version", Version),
            ("docker-buildx buildx ls", List { is_json: false }),
            ("docker-buildx buildx ls --no-trunc --format json", List { is_json: true }),
            ("docker-buildx buildx inspect", Inspect(None)),
            ("docker-buildx buildx inspect --bootstrap x", Inspect(Some("x".into()))),
            ("docker-buildx buildx inspect --bootstrap --builder x", Inspect(Some("x".into()))),
            ("docker-buildx buildx create --driver docker-container --use", Create(None)),
            ("docker-buildx buildx create --name=n --driver-opt a=b", Create(Some("n".into()))),
            ("docker-buildx buildx use x", Nothing),
        ] {
            assert_eq!(call(line).1, Ok(PluginCall::Builder(want)), "{line}");
        }
        assert_eq!(call("docker-buildx docker-cli-plugin-metadata").1, Ok(PluginCall::Metadata));
    }

    #[test]
    fn options_of_docker_become_variables() {
        let (variables, call) =
            call("docker-buildx --config=/c -H unix:///s --tlsverify -c x buildx build .");
        assert!(call.is_ok());
        let want = [
            ("DOCKER_CONFIG", "/c"),
            ("DOCKER_HOST", "unix:///s"),
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_CONTEXT", "x"),
        ];
        assert_eq!(variables, want.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn unsupported_arguments_are_errors() {
        for (line, part) in [
            ("docker-buildx buildx dial-stdio", "no counterpart of `docker buildx dial-stdio`"),
            ("docker-buildx buildx prune --min-free-space 1gb", "no `--min-free-space`"),
            ("docker-buildx buildx ls --format {{.Name}}", "only `table` and `json`"),
            ("docker-buildx buildx ls x", "ls: unknown argument `x`"),
            ("docker-buildx --host", "--host: the value is missing"),
        ] {
            let error = call(line).1.unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn other_names_are_not_plugins() {
        for name in ["rbuild", "docker-", "/docker-x/rbuild"] {
            assert_eq!(plugin_name(&[name.into()]), None, "{name}");
        }
    }
}
