//! The config of an image as text (image-spec, config.md).

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::display::text::has_effect;
use crate::oci::{Healthcheck, ImageConfig};

/// A member of the config that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigMember {
    /// For instance `Stop signal`.
    pub(crate) name: String,
    /// One line each; control characters are escaped as in Rust strings.
    pub(crate) values: Vec<String>,
}

/// Returns all members that are set, in a fixed order; unknown ones as JSON.
pub(crate) fn members(config: &ImageConfig) -> Vec<ConfigMember> {
    let run = &config.config;
    let list = |values: &Option<Vec<String>>| values.iter().map(|v| json!(v).to_string()).collect();
    let ports = run.exposed_ports.keys().cloned().collect();
    let volumes = run.volumes.keys().cloned().collect();
    let one = |text: &str| vec![text.to_owned()];
    let json_of = |values: &[String]| vec![json!(values).to_string()];
    let shell = if run.shell.is_empty() { Vec::new() } else { json_of(&run.shell) };
    let labels = run.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let known: [(&str, Vec<String>); 12] = [
        ("Entrypoint", list(&run.entrypoint)),
        ("Cmd", list(&run.cmd)),
        ("Env", run.env.clone()),
        ("User", one(&run.user)),
        ("Workdir", one(&run.working_dir)),
        ("Ports", ports),
        ("Volumes", volumes),
        ("Labels", labels),
        ("Healthcheck", run.healthcheck.as_ref().map(healthcheck).into_iter().collect()),
        ("Stop signal", one(&run.stop_signal)),
        ("Shell", shell),
        ("Onbuild", run.on_build.clone()),
    ];
    let author = ("Author", config.author.iter().cloned().collect());
    let known = known.into_iter().chain([author]);
    let known = known.map(|(name, values)| ConfigMember { name: name.to_owned(), values });
    let all = known.chain(others(&run.extra)).chain(others(&config.extra));
    all.filter_map(shown).collect()
}

fn others(members: &Map<String, Value>) -> impl Iterator<Item = ConfigMember> {
    let said = members.iter().filter(|(_, value)| !matches!(value, Value::Null));
    said.map(|(name, value)| ConfigMember { name: name.clone(), values: vec![value.to_string()] })
}

/// Returns the member with escaped text, unless it is empty.
fn shown(mut member: ConfigMember) -> Option<ConfigMember> {
    member.values.retain(|value| !value.is_empty());
    let shown: Vec<String> = member.values.iter().map(|value| one_line(value)).collect();
    (!shown.is_empty()).then(|| ConfigMember { name: one_line(&member.name), values: shown })
}

fn healthcheck(check: &Healthcheck) -> String {
    let test = match check.test.as_slice() {
        [kind, command] if kind == "CMD-SHELL" => command.clone(),
        [kind] if kind == "NONE" => return "none".to_owned(),
        [] => "inherited from the base image".to_owned(),
        [kind, words @ ..] if kind == "CMD" => json!(words).to_string(),
        other => json!(other).to_string(),
    };
    let time = |name: &str, ns: i64| {
        let time = Duration::from_nanos(u64::try_from(ns).ok().filter(|ns| *ns > 0)?);
        Some(format!("{name} {}", humantime::format_duration(time)))
    };
    let details = [
        time("every", check.interval),
        time("timeout", check.timeout),
        time("start period", check.start_period),
        time("start interval", check.start_interval),
        (check.retries > 0).then(|| format!("{} retries", check.retries)),
    ];
    let details: Vec<String> = details.into_iter().flatten().collect();
    if details.is_empty() { test } else { format!("{test} ({})", details.join(", ")) }
}

/// Returns untrusted text on one line. Nothing is left out: control characters are escaped.
pub(crate) fn one_line(text: &str) -> String {
    if !text.contains(has_effect) {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if has_effect(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_complete_and_have_no_control_characters() {
        let text = br#"{"os":"linux","architecture":"amd64","author":"me","moby.x":{"a":1},
            "config":{"Env":["A=1\u001b[2J","B=x\ny"],"Cmd":["sh","-c","a b"],"Labels":{"l":"v"},
            "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":30000000000,"Retries":3},
            "ExposedPorts":{"80/tcp":{}},"Odd":"x"},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = ImageConfig::parse(text).unwrap();
        let lines: Vec<String> = members(&config)
            .iter()
            .map(|m| format!("{}: {}", m.name, m.values.join(" | ")))
            .collect();
        let want = [
            r#"Cmd: ["sh","-c","a b"]"#,
            r"Env: A=1\u{1b}[2J | B=x\ny",
            "Ports: 80/tcp",
            "Labels: l=v",
            "Healthcheck: true (every 30s, 3 retries)",
            "Author: me",
            r#"Odd: "x""#,
            r#"moby.x: {"a":1}"#,
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn a_healthcheck_is_a_sentence() {
        let check = |test: &[&str], want: &str| {
            let test = test.iter().map(|word| (*word).to_owned()).collect();
            let check = Healthcheck { test, ..Healthcheck::default() };
            assert_eq!(healthcheck(&check), want);
        };
        check(&["NONE"], "none");
        check(&["CMD", "a", "b"], r#"["a","b"]"#);
        check(&["CMD-SHELL", "a b"], "a b");
        check(&["ODD", "a"], r#"["ODD","a"]"#);
    }
}
