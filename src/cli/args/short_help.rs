//! `-h`, one line an option, grouped; `--help` keeps all that is said of each.

use clap::{Arg, Command};

/// What fits on a line beside the longest option, in characters.
const MAX_CHARS: usize = 54;

/// An option's group, its name, and its line; an empty one is made from the long text.
type Line = (&'static str, &'static str, &'static str);

const INPUT: &str = "What to build";
const OUTPUT: &str = "The image, and where it goes";
const CACHE: &str = "Cache";
const STEPS: &str = "What steps may use";
const SAME: &str = "Reproducible and locked builds";
const LOOK: &str = "Seeing and checking";
const ALL: &str = "For every command";

const LINES: &[Line] = &[
    ("", "context", "The directory that COPY takes files from; a URL; `-`"),
    (INPUT, "file", "The Dockerfile [default: CONTEXT/Dockerfile]"),
    (INPUT, "target", "Build this stage instead of the last one"),
    (INPUT, "build-arg", "Set an ARG"),
    (INPUT, "build-context", "More files or images for FROM and --from"),
    (INPUT, "platform", "Build for these, such as linux/amd64,linux/arm64"),
    (OUTPUT, "tag", "Give the image this name"),
    (OUTPUT, "output", "Output: type=oci|docker|local|tar|…, or a directory"),
    (OUTPUT, "push", "Push every name of -t to its registry"),
    (OUTPUT, "replace-index", "Let a push drop platforms of an index there"),
    (OUTPUT, "load", "Load it into docker or podman"),
    (OUTPUT, "label", "Add a label to the image"),
    (OUTPUT, "annotation", "Add an annotation to the manifest or the index"),
    (OUTPUT, "compression", "How layers go out: gzip, zstd, uncompressed"),
    (OUTPUT, "compression-level", "How hard: gzip 0 to 9, zstd 1 to 22"),
    (OUTPUT, "force-compression", "Compress the base image's layers so, too"),
    (OUTPUT, "iidfile", "Write the image's id into FILE"),
    (OUTPUT, "metadata-file", "Write digests and names into FILE as JSON"),
    (OUTPUT, "max-size", "Fail if the image is larger, such as 500MB"),
    (OUTPUT, "max-layer-size", "Fail if it adds a larger layer to its base"),
    (CACHE, "cache-from", "Find steps in a registry, a directory or a bucket"),
    (CACHE, "cache-to", "Let others find the steps of this build"),
    (CACHE, "no-cache", "Rebuild every step"),
    (CACHE, "explain", "Say why each step was not found in the cache"),
    (CACHE, "pull", "Ask registries for base images that the store has"),
    (STEPS, "network", "Their network: default, none, host"),
    (STEPS, "secret", "A value for RUN --mount=type=secret"),
    (STEPS, "ssh", "An agent or keys for RUN --mount=type=ssh"),
    (STEPS, "allow", "Permit what a Dockerfile cannot do by itself"),
    (STEPS, "add-host", "Add a line to /etc/hosts"),
    (STEPS, "shm-size", "The size of /dev/shm, such as 128m"),
    (STEPS, "ulimit", "Set a limit, such as nofile=1024:4096"),
    (SAME, "reproducible", "Take the clock out of the image"),
    (SAME, "lockfile", "Which lock file [default: rbuild.lock]"),
    (SAME, "locked", "Fail if an input is not as the lock file says"),
    (SAME, "offline", "Never use the network"),
    (LOOK, "check", "Look for mistakes instead of building"),
    (LOOK, "fix", "With --check: write what has one safe fix"),
    (LOOK, "format", "With --check: text, json or sarif"),
    (LOOK, "call", "Check, or show arguments or stages"),
    (LOOK, "on-error", "When a RUN fails: fail, or first a shell there"),
    (LOOK, "dry-run", "Build nothing, show what would be built"),
    (LOOK, "progress", "How progress is shown: auto, tty, plain, json, quiet"),
    (LOOK, "quiet", "Print the image's id and nothing else"),
    (LOOK, "report", "Write one HTML page about the build"),
    (LOOK, "jobs", "How many threads may work at once"),
    (ALL, "root", "Where images, layers and the cache are kept"),
    (ALL, "max-unpacked-size", "How much a layer or archive may unpack to"),
    (ALL, "ca", "Believe these certificates (PEM) too"),
    (ALL, "registry", "How to speak to a registry: http, mirror=URL, …"),
];

/// Names of values that would leave no space beside them.
const VALUES: [(&str, &str); 8] = [
    ("secret", "id=ID,…"),
    ("ssh", "ID[=KEY,…]"),
    ("allow", "PERMISSION"),
    ("call", "WHAT[,format=…]"),
    ("format", "FORMAT"),
    ("output", "type=TYPE,…"),
    ("annotation", "KEY=VALUE"),
    ("compression", "KIND"),
];

/// The same command with short lines for `-h`.
pub(crate) fn arranged(command: Command) -> Command {
    let command = command.mut_args(|arg| brief(arg, LINES));
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| {
        // These take what a build takes; others have options of the same names.
        let lines = if BUILDING.contains(&&*name) { LINES } else { &[] };
        command.mut_subcommand(&name, |command| {
            let command = command.mut_args(|arg| brief(arg, lines));
            match command.get_after_help().cloned() {
                Some(long) => {
                    let short = format!(
                        "`rbuild {name} --help` has examples, and says more of each option."
                    );
                    command.after_help(short).after_long_help(long)
                }
                None => command,
            }
        })
    })
}

const BUILDING: [&str; 3] = ["build", "lock", "plan"];

/// What an option is called in the tables.
fn name_of(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().to_string(), str::to_owned)
}

fn brief(arg: Arg, lines: &[Line]) -> Arg {
    let Some(full) = arg.get_help().map(ToString::to_string) else { return arg };
    let name = name_of(&arg);
    let known = lines.iter().find(|(_, known, _)| *known == name);
    let group = known.map_or("", |(group, ..)| *group);
    let arg = if group.is_empty() { arg } else { arg.help_heading(group) };
    let shorter = VALUES.iter().find(|(known, _)| *known == name && !lines.is_empty());
    let arg = match shorter {
        Some((_, value)) => arg.value_name(*value),
        None => arg,
    };
    let values = arg.get_possible_values();
    let has_values = values.len() > 1 && arg.get_action().takes_values();
    let line = known.map_or_else(|| cut(&full), |(.., line)| (*line).to_owned());
    let long = if has_values { format!("{full} {}", list(&values)) } else { full };
    if line == long {
        return arg;
    }
    let arg = if has_values { arg.hide_possible_values(true) } else { arg };
    arg.help(line).long_help(long)
}

fn list(values: &[clap::builder::PossibleValue]) -> String {
    let names: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
    format!("[possible values: {}]", names.join(", "))
}

/// The first thing that a text says, as much as there is space for.
fn cut(text: &str) -> String {
    let ends = ["; ", ": ", " [default", ", such as"];
    let first = ends.iter().filter_map(|end| text.find(end)).min();
    let first = first.and_then(|at| text.get(..at)).unwrap_or(text);
    if first.chars().count() <= MAX_CHARS {
        return first.to_owned();
    }
    let mut line = String::new();
    for word in first.split(' ') {
        if line.chars().count() + word.chars().count() + 2 > MAX_CHARS {
            break;
        }
        line.push_str(word);
        line.push(' ');
    }
    format!("{}…", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_fits_and_is_of_an_option() {
        let command = crate::cli::args::command();
        let build = command.find_subcommand("build").unwrap();
        for (_, name, line) in LINES {
            assert!(line.chars().count() <= MAX_CHARS, "{name}");
            let all = command.get_arguments().chain(build.get_arguments());
            assert!({ all }.any(|arg| name_of(arg) == *name), "{name} is no option");
        }
        for arg in build.get_arguments() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.chars().count() <= MAX_CHARS, "{}: {help}", arg.get_id());
        }
    }

    #[test]
    fn long_texts_are_cut_where_they_begin_to_say_more() {
        for (text, want) in [
            ("Set an ARG; may be repeated", "Set an ARG"),
            ("The file [default: x]", "The file"),
            (
                "Show of all that there is only what is much too long for one line here",
                "Show of all that there is only what is much too long…",
            ),
        ] {
            assert_eq!(cut(text), want);
        }
    }
}
