//! One line of `--progress=json` and of a build's record in the store.
//!
//! [`BuildEvent`] is the only definition of these lines: progress and records are written from it,
//! records are read into it, and a test compares it with `docs/schemas/progress.schema.json`. Records
//! of earlier versions must stay readable, so a member that was added later has a default.

use serde::{Deserialize, Serialize};

/// Version of the format. Members and events may be added without a new one.
pub(crate) const VERSION: u32 = 1;

/// An event of a build or of another command, without its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum BuildEvent {
    /// The command started. Always the first line.
    Started {
        #[serde(default)]
        version: u32,
        /// The version of rbuild.
        #[serde(default)]
        rbuild: String,
        /// RFC 3339, in UTC.
        time: String,
    },
    /// A build was requested.
    Requested(Requested),
    /// The Dockerfile was read. Only records have this line.
    Dockerfile(DockerfileText),
    /// The build was planned.
    Planned {
        /// The stages that the target needs, each after those that it needs itself.
        stages: Vec<PlannedStage>,
    },
    /// A step started: an instruction, or for instance a pull.
    StepStarted {
        step: u32,
        /// The step as logs show it: `[build 2/5] RUN make`.
        name: String,
        /// Name of the stage, if the step is an instruction; the following members, too.
        #[serde(skip_serializing_if = "Option::is_none")]
        stage: Option<String>,
        /// Position in the stage, from 1, which is FROM.
        #[serde(skip_serializing_if = "Option::is_none")]
        number: Option<usize>,
        /// Number of instructions that the stage has.
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<usize>,
        /// The instruction on one line.
        #[serde(skip_serializing_if = "Option::is_none")]
        instruction: Option<String>,
    },
    /// The isolation of steps. Written once, before the first command starts.
    Isolation {
        /// Such as `namespace` or `chroot`.
        isolation: String,
        /// The reasons against a stronger one, and what it does not fence off.
        #[serde(default)]
        remarks: Vec<String>,
    },
    /// A step was not cached, and its command starts.
    StepExecuting { step: u32 },
    /// The reason why a step was not cached.
    StepExplained { step: u32, reason: String },
    /// A command of a step printed something.
    Output {
        step: u32,
        #[serde(default)]
        stream: OutputStream,
        /// The output, if it is UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// The output in base64 (RFC 4648, section 4), if it is not UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    },
    /// A step transferred bytes.
    Progress {
        step: u32,
        done_bytes: u64,
        /// 0 while the total is unknown.
        #[serde(default)]
        total_bytes: u64,
    },
    /// The layer of a step is known.
    StepLayer {
        step: u32,
        /// The DiffId (image-spec, config.md, "Layer DiffID").
        layer: String,
        /// Length of the uncompressed tar.
        bytes: u64,
    },
    /// A step ended in this way.
    StepFinished { step: u32, outcome: StepOutcome, took_seconds: f64 },
    /// A problem that does not stop the build.
    Warning { text: String },
    /// A remark for people.
    Note { text: String },
    /// An output was written to this path.
    Wrote { path: String },
    /// The image was pushed.
    Pushed { name: String, digest: String },
    /// A problem in the Dockerfile.
    Diagnostic(LocatedDiagnostic),
    /// The build succeeded, with this result.
    Built(BuiltSummary),
    /// The command failed with this error.
    Failed(FailureSummary),
    /// An event of a later version. Read, never written.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// The command line of a build. Values of arguments and secrets are left out.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requested {
    /// The working directory of rbuild.
    #[serde(rename = "folder")]
    pub(crate) directory: String,
    /// The context as it was typed.
    pub(crate) context: String,
    /// The value of `--file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile: Option<String>,
    /// The value of `--target`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    #[serde(default)]
    pub(crate) platforms: Vec<String>,
    /// The values of `--tag`.
    #[serde(default)]
    pub(crate) names: Vec<String>,
}

impl Requested {
    /// Returns the location of the context: an absolute path, a URL, or `-` for standard input.
    pub(crate) fn location(&self) -> String {
        let is_elsewhere = self.context == "-" || self.context.contains("://");
        match self.context.as_str() {
            context if is_elsewhere || context.starts_with('/') => context.to_owned(),
            "." => self.directory.clone(),
            context => format!("{}/{}", self.directory.trim_end_matches('/'), context),
        }
    }
}

/// The Dockerfile of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DockerfileText {
    /// The path as diagnostics show it.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A stage that the target needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedStage {
    pub(crate) name: String,
    /// The image that it starts from, unless that is `scratch` or another stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<String>,
    /// Index of the stage that it starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<usize>,
    /// Indexes of the stages that it starts from, copies from or mounts.
    pub(crate) needs: Vec<usize>,
    /// The instructions that make layers, without FROM.
    pub(crate) instructions: Vec<String>,
}

/// Output stream of a command.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutputStream {
    #[default]
    Stdout,
    Stderr,
}

/// The way in which a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepOutcome {
    Done,
    Cached,
    Failed,
    Cancelled,
}

/// An error or a warning at its location in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocatedDiagnostic {
    /// Either `error` or `warning`.
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) file: String,
    /// From 1, as all lines and columns.
    pub(crate) line: u32,
    #[serde(default)]
    pub(crate) column: u32,
    #[serde(default)]
    pub(crate) end_line: u32,
    #[serde(default)]
    pub(crate) end_column: u32,
    #[serde(default)]
    pub(crate) helps: Vec<String>,
}

/// The result of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BuiltSummary {
    /// The image id: the digest of its config or of its index.
    pub(crate) id: String,
    /// Digest of the manifest or index that was written last.
    #[serde(default)]
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) names: Vec<String>,
    /// Bytes of all layers, uncompressed; absent if one of them was never unpacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layer_bytes: Option<u64>,
    pub(crate) took_seconds: f64,
    /// Number of steps without FROM.
    #[serde(default)]
    pub(crate) steps: usize,
    /// Number of steps that were cached.
    #[serde(default)]
    pub(crate) cached: usize,
    #[serde(default)]
    pub(crate) images: Vec<BuiltImageSummary>,
    #[serde(default)]
    pub(crate) new_layers: Vec<NewLayerSummary>,
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BuiltImageSummary {
    pub(crate) platform: String,
    /// Number of its layers.
    pub(crate) layers: usize,
    /// Bytes of its layers, uncompressed; absent if one of them was never unpacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
}

/// A layer of the image that this build created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewLayerSummary {
    pub(crate) step: u32,
    /// The DiffId of the layer.
    pub(crate) layer: String,
    /// Length of the uncompressed tar.
    pub(crate) bytes: u64,
}

/// The error that ended a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FailureSummary {
    /// One paragraph, without excerpts.
    pub(crate) message: String,
    /// The exit status of rbuild.
    pub(crate) exit_status: u8,
    pub(crate) took_seconds: f64,
    /// The last output of the step that failed.
    #[serde(default)]
    pub(crate) last_lines: Vec<String>,
    /// The whole error as a terminal shows it.
    #[serde(default)]
    pub(crate) text: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const SCHEMA: &str = include_str!("../../../docs/schemas/progress.schema.json");

    fn text(text: &str) -> String {
        text.to_owned()
    }

    /// Returns each event twice: with all of its members, and with as few as possible.
    fn examples() -> Vec<[BuildEvent; 2]> {
        let twice = |event: BuildEvent| [event.clone(), event];
        let requested = Requested { directory: text("/w"), ..Requested::default() };
        let (dockerfile, target) = (Some(text("f")), Some(text("t")));
        let whole = Requested { dockerfile, target, ..requested.clone() };
        let stage = PlannedStage {
            name: text("a"),
            base: Some(text("b")),
            parent: Some(0),
            needs: vec![0],
            instructions: Vec::new(),
        };
        let bare = PlannedStage { base: None, parent: None, ..stage.clone() };
        let started = |is_instruction: bool| BuildEvent::StepStarted {
            step: 1,
            name: text("n"),
            stage: is_instruction.then(|| text("s")),
            number: is_instruction.then_some(1),
            of: is_instruction.then_some(2),
            instruction: is_instruction.then(|| text("RUN x")),
        };
        let output = |text: Option<String>, base64| {
            let (step, stream) = (1, OutputStream::Stderr);
            BuildEvent::Output { step, stream, text, base64 }
        };
        vec![
            twice(BuildEvent::Started { version: 1, rbuild: text("0"), time: text("t") }),
            [BuildEvent::Requested(whole), BuildEvent::Requested(requested)],
            twice(BuildEvent::Dockerfile(DockerfileText { path: text("p"), text: text("t") })),
            [
                BuildEvent::Planned { stages: vec![stage] },
                BuildEvent::Planned { stages: vec![bare] },
            ],
            [started(true), started(false)],
            twice(BuildEvent::Isolation { isolation: text("i"), remarks: vec![text("r")] }),
            twice(BuildEvent::StepExecuting { step: 1 }),
            twice(BuildEvent::StepExplained { step: 1, reason: text("r") }),
            [output(Some(text("t")), Some(text("b"))), output(None, None)],
            twice(BuildEvent::Progress { step: 1, done_bytes: 1, total_bytes: 2 }),
            twice(BuildEvent::StepLayer { step: 1, layer: text("l"), bytes: 1 }),
            twice(BuildEvent::StepFinished {
                step: 1,
                outcome: StepOutcome::Done,
                took_seconds: 0.5,
            }),
            twice(BuildEvent::Warning { text: text("t") }),
            twice(BuildEvent::Note { text: text("t") }),
            twice(BuildEvent::Wrote { path: text("p") }),
            twice(BuildEvent::Pushed { name: text("n"), digest: text("d") }),
            twice(BuildEvent::Diagnostic(diagnostic_example())),
            built_examples().map(BuildEvent::Built),
            twice(BuildEvent::Failed(FailureSummary {
                message: text("m"),
                exit_status: 1,
                took_seconds: 0.5,
                last_lines: Vec::new(),
                text: text("t"),
            })),
        ]
    }

    /// Returns a summary with all of its members, and one with as few as possible.
    fn built_examples() -> [BuiltSummary; 2] {
        let image = BuiltImageSummary { platform: text("p"), layers: 1, bytes: Some(1) };
        let built = BuiltSummary {
            id: text("i"),
            digest: text("d"),
            names: Vec::new(),
            layer_bytes: Some(1),
            took_seconds: 0.5,
            steps: 1,
            cached: 0,
            images: vec![image.clone()],
            new_layers: vec![NewLayerSummary { step: 1, layer: text("l"), bytes: 1 }],
        };
        let images = vec![BuiltImageSummary { bytes: None, ..image }];
        let unknown_size = BuiltSummary { layer_bytes: None, images, ..built.clone() };
        [built, unknown_size]
    }

    fn diagnostic_example() -> LocatedDiagnostic {
        LocatedDiagnostic {
            severity: text("error"),
            code: text("E0001"),
            message: text("m"),
            file: text("f"),
            line: 1,
            column: 1,
            end_line: 1,
            end_column: 1,
            helps: Vec::new(),
        }
    }

    /// Returns the members of an object, all levels deep, as in `stages.name`.
    fn members(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(all) => all.iter().for_each(|(name, value)| {
                found.insert(format!("{prefix}{name}"));
                members(value, &format!("{prefix}{name}."), found);
            }),
            Value::Array(items) => items.iter().for_each(|item| members(item, prefix, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Returns the members that a schema describes, or only those that it requires.
    fn described(schema: &Value, prefix: &str, is_required: bool, found: &mut BTreeSet<String>) {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            if !is_required || required.contains(&name.as_str()) {
                found.insert(format!("{prefix}{name}"));
                described(member, &format!("{prefix}{name}."), is_required, found);
            }
        }
        if let Some(items) = schema.get("items") {
            described(items, prefix, is_required, found);
        }
    }

    #[test]
    fn schema_describes_every_member_of_every_event_and_no_other() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let mut names = BTreeSet::new();
        for both in examples() {
            for (event, is_required) in both.iter().zip([false, true]) {
                let line = serde_json::to_value(event).unwrap();
                let name = line["event"].as_str().unwrap();
                let mut found = BTreeSet::from(["seconds".to_owned()]);
                members(&line, "", &mut found);
                let mut want = BTreeSet::new();
                described(&schema["$defs"][name], "", is_required, &mut want);
                assert_eq!(found, want, "{name}, only what is required: {is_required}");
                names.insert(name.to_owned());
                let read: BuildEvent = serde_json::from_value(line).unwrap();
                assert_eq!(read, *event);
            }
        }
        let described: BTreeSet<String> =
            schema["$defs"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, described);
    }

    #[test]
    fn event_of_a_later_version_is_unknown() {
        let read: BuildEvent = serde_json::from_str(r#"{"event":"new","a":1}"#).unwrap();
        assert_eq!(read, BuildEvent::Unknown);
    }
}
