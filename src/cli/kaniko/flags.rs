//! The flags of kaniko's executor, and a parser with the rules of its library
//! (<https://pkg.go.dev/github.com/spf13/pflag>).

use std::collections::BTreeMap;

use crate::cli::args::docker::boolean;
use crate::diag::nearest;

/// The kind of value that a flag has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// true or false, after `=` only. The default is that of kaniko.
    Switch(bool),
    /// Any text.
    Text,
}

/// A flag of the executor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    pub(super) kind: Kind,
}

const fn text(name: &'static str) -> Flag {
    Flag { name, short: None, kind: Kind::Text }
}

const fn short(name: &'static str, letter: char) -> Flag {
    Flag { name, short: Some(letter), kind: Kind::Text }
}

const fn switch(name: &'static str, default: bool) -> Flag {
    Flag { name, short: None, kind: Kind::Switch(default) }
}

/// All flags of kaniko 1.24 and of its fork 1.28, in alphabetical order.
pub(super) const FLAGS: [Flag; 71] = [
    text("annotation"),
    text("azure-container-registry-config"),
    short("bucket", 'b'),
    text("build-arg"),
    switch("cache", false),
    switch("cache-copy-layers", false),
    text("cache-dir"),
    text("cache-repo"),
    switch("cache-run-layers", true),
    text("cache-ttl"),
    switch("cleanup", false),
    switch("compressed-caching", true),
    text("compression"),
    text("compression-level"),
    short("context", 'c'),
    text("context-sub-path"),
    text("credential-helpers"),
    text("custom-platform"),
    text("customPlatform"),
    short("destination", 'd'),
    text("digest-file"),
    short("dockerfile", 'f'),
    switch("dryrun", false),
    switch("force", false),
    switch("force-build-metadata", false),
    text("git"),
    Flag { name: "help", short: Some('h'), kind: Kind::Switch(false) },
    text("ignore-path"),
    switch("ignore-var-run", true),
    text("image-download-retry"),
    text("image-format"),
    text("image-fs-extract-retry"),
    text("image-name-tag-with-digest-file"),
    text("image-name-with-digest-file"),
    switch("insecure", false),
    switch("insecure-pull", false),
    text("insecure-registry"),
    text("kaniko-dir"),
    text("label"),
    text("log-format"),
    switch("log-timestamp", false),
    switch("materialize", false),
    switch("no-push", false),
    switch("no-push-cache", false),
    text("oci-layout-path"),
    switch("pre-cleanup", false),
    switch("preserve-context", false),
    switch("push-ignore-immutable-tag-errors", false),
    text("push-retry"),
    text("registry-certificate"),
    text("registry-client-cert"),
    text("registry-map"),
    text("registry-mirror"),
    switch("reproducible", false),
    text("secret"),
    switch("single-snapshot", false),
    switch("skip-default-registry-fallback", false),
    switch("skip-push-permission-check", false),
    switch("skip-tls-verify", false),
    switch("skip-tls-verify-pull", false),
    text("skip-tls-verify-registry"),
    switch("skip-unused-stages", false),
    text("snapshot-mode"),
    text("snapshotMode"),
    text("tar-path"),
    text("tarPath"),
    text("target"),
    switch("use-new-run", false),
    short("verbosity", 'v'),
    switch("version", false),
    switch("whitelist-var-run", true),
];

/// Old names, and the flags that replace them.
const RENAMED: [(&str, &str); 4] = [
    ("customPlatform", "custom-platform"),
    ("snapshotMode", "snapshot-mode"),
    ("tarPath", "tar-path"),
    ("whitelist-var-run", "ignore-var-run"),
];

/// The flags of a command line, with their values in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given(BTreeMap<&'static str, Vec<String>>);

impl Given {
    /// Returns all values of a flag.
    pub(super) fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the last value of a flag, unless it is empty.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the value of a switch, or its default.
    pub(super) fn is_on(&self, name: &str) -> bool {
        let default = || {
            let flag = FLAGS.iter().find(|flag| flag.name == name);
            flag.is_some_and(|flag| flag.kind == Kind::Switch(true))
        };
        self.all(name).last().map_or_else(default, |value| boolean(value).unwrap_or(false))
    }

    /// Returns whether a flag was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn add(&mut self, flag: &Flag, value: String) -> Result<(), String> {
        if matches!(flag.kind, Kind::Switch(_)) {
            boolean(&value).map_err(|why| format!("--{}={value}: {why}", flag.name))?;
        }
        let new = RENAMED.iter().find(|(old, _)| *old == flag.name);
        let name = new.map_or(flag.name, |(_, new)| new);
        self.0.entry(name).or_default().push(value);
        Ok(())
    }
}

/// Parses the words after the name of the program.
///
/// `--flag value`, `--flag=value`, `-f value`, `-fvalue` and `-f=value` are the same. A switch takes its
/// value after `=` only.
pub(super) fn parse(words: &[String]) -> Result<Given, String> {
    let mut given = Given::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (flag, value) = if let Some(rest) = word.strip_prefix("--") {
            long(rest).ok_or_else(|| unknown(word))?
        } else if let Some(rest) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            of_letter(rest).ok_or_else(|| unknown(word))?
        } else {
            return Err(format!(
                "`{word}` is not a flag; the executor takes the context as --context {word}"
            ));
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value.to_owned(),
            (None, Kind::Switch(_)) => "true".to_owned(),
            (None, Kind::Text) => {
                let next = words.next();
                next.ok_or_else(|| format!("--{} needs a value", flag.name))?.clone()
            }
        };
        given.add(flag, value)?;
    }
    Ok(given)
}

/// Splits `flag=value` of a long flag.
fn long(rest: &str) -> Option<(&'static Flag, Option<&str>)> {
    let (name, value) = match rest.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    };
    Some((FLAGS.iter().find(|flag| flag.name == name)?, value))
}

/// Splits `f`, `fvalue` or `f=value` of a short flag.
fn of_letter(rest: &str) -> Option<(&'static Flag, Option<&str>)> {
    let mut letters = rest.chars();
    let letter = letters.next()?;
    let flag = FLAGS.iter().find(|flag| flag.short == Some(letter))?;
    let value = letters.as_str();
    let value = value.strip_prefix('=').unwrap_or(value);
    Some((flag, Some(value).filter(|value| !value.is_empty())))
}

fn unknown(word: &str) -> String {
    let name = word.split('=').next().unwrap_or(word);
    let known = FLAGS.iter().map(|flag| flag.name);
    let near = nearest(name.trim_start_matches('-'), known);
    let near = near.map_or(String::new(), |near| format!("; did you mean --{near}?"));
    format!("kaniko has no flag `{name}`{near}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Given, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn values_follow_as_a_word_or_after_an_equals_sign() {
        let want = of("--context dir:///a --destination x --destination y --cache=true").unwrap();
        for line in [
            "--context=dir:///a --destination=x -d y --cache",
            "-c dir:///a -dx -d=y --cache=1",
            "--cache=false -c dir:///b --destination x -d y --context dir:///a --cache=T",
        ] {
            let given = of(line).unwrap();
            assert_eq!(given.last("context"), want.last("context"), "{line}");
            assert_eq!(given.all("destination"), want.all("destination"), "{line}");
            assert!(given.is_on("cache"), "{line}");
        }
        let given = of("--cache-run-layers=false --snapshotMode redo --customPlatform=linux/arm64");
        let given = given.unwrap();
        assert!(!given.is_on("cache-run-layers") && given.is_on("ignore-var-run"));
        assert_eq!(given.last("snapshot-mode"), Some("redo"));
        assert_eq!(given.last("custom-platform"), Some("linux/arm64"));
    }

    #[test]
    fn invalid_command_lines_name_the_word() {
        for (line, want) in [
            ("--destinaton=x", "kaniko has no flag `--destinaton`; did you mean --destination?"),
            ("-z", "kaniko has no flag `-z`"),
            ("--cache=maybe", "--cache=maybe: must be true or false"),
            ("--destination", "--destination needs a value"),
            (".", "`.` is not a flag; the executor takes the context as --context ."),
            // A switch does not take the next word, as in kaniko.
            (
                "--cache true",
                "`true` is not a flag; the executor takes the context as --context true",
            ),
        ] {
            assert_eq!(of(line), Err(want.to_owned()), "{line}");
        }
    }
}
