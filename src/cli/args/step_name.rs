//! Names of steps as in logs: `build:3` for `[build 3/5] RUN make`, and `#8` within a build.

use std::fmt;

use crate::cli::images::config_text::one_line;
use crate::cli::records::{Recorded, RecordedStep};
use crate::plan::redacted;

use super::build::BuildArgs;

/// The name of a step on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepName {
    /// `#8`: its number in a build.
    Number(u32),
    /// Its stage, and its position there, from 1, which is FROM. A number alone belongs to the only
    /// stage, or to a recorded build.
    Place(Option<String>, usize),
}

impl StepName {
    /// Parses `build:3` and `#8`, or text copied from a log: `build 3/5`, `[build 3/5] RUN make`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "--step {text}: expected a stage and a number as in logs, such as build:3, or the \
                 number of a step, such as #8"
            )
        };
        let text = text.trim();
        if let Some(number) = text.strip_prefix('#') {
            let number = number.split(' ').next().unwrap_or(number);
            return number.parse().map(Self::Number).map_err(|_bad| expected());
        }
        let shown = text.strip_prefix('[').unwrap_or(text);
        let shown = shown.split(']').next().unwrap_or(shown).trim();
        let (stage, number) = shown.rsplit_once([':', ' ']).unwrap_or(("", shown));
        let number = number.split('/').next().unwrap_or(number);
        let number = number.parse().map_err(|_bad| expected())?;
        let stage = Some(stage.trim().to_owned()).filter(|stage| !stage.is_empty());
        Ok(Self::Place(stage, number))
    }

    /// Returns the step of a build with this name.
    pub(crate) fn find<'a>(&self, build: &'a Recorded) -> Option<(u32, &'a RecordedStep)> {
        let by_number = |number: u32| build.steps.get_key_value(&number);
        let found = match self {
            Self::Number(number) => by_number(*number),
            Self::Place(None, number) => by_number(u32::try_from(*number).ok()?),
            Self::Place(Some(stage), number) => build.steps.iter().rev().find(|(_, step)| {
                let place = step.place.as_ref();
                place.is_some_and(|(name, at)| name.eq_ignore_ascii_case(stage) && at == number)
            }),
        };
        found.map(|(number, step)| (*number, step))
    }

    /// Returns the name of a step of a build, by its position if it is an instruction.
    pub(crate) fn of(number: u32, step: &RecordedStep) -> Self {
        match &step.place {
            Some((stage, number)) => Self::Place(Some(stage.clone()), *number),
            None => Self::Number(number),
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "#{number}"),
            Self::Place(Some(stage), number) => write!(f, "{stage}:{number}"),
            Self::Place(None, number) => write!(f, "{number}"),
        }
    }
}

/// Returns a hint on how to inspect a failed step.
pub(crate) fn inspection_hint(step: &str, args: &BuildArgs) -> String {
    // A name with a platform cannot be passed to `enter`.
    if step.contains(' ') {
        return format!("step {step}: `rbuild history logs --step '{step}'` shows its output");
    }
    let file = args.file.as_ref().map(|file| format!("-f {} ", one_line(&file.to_string_lossy())));
    let (file, context) = (file.unwrap_or_default(), one_line(&redacted(&args.shown_context())));
    format!(
        "step {step}: `rbuild history logs --step {step}` shows its output, `rbuild enter --step \
         {step} {file}{context}` opens a shell before it runs"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_parsed_as_logs_show_them() {
        let place = |stage: &str, number| StepName::Place(Some(stage.to_owned()), number);
        for (text, want) in [
            ("build:3", place("build", 3)),
            ("3", StepName::Place(None, 3)),
            ("#8", StepName::Number(8)),
            ("#8 [build 3/5] RUN make", StepName::Number(8)),
            ("build 3", place("build", 3)),
            ("build 3/5", place("build", 3)),
            ("[build 3/5] RUN make: all", place("build", 3)),
            ("[stage-1 2/2]", place("stage-1", 2)),
            ("linux/arm64 build:3", place("linux/arm64 build", 3)),
        ] {
            assert_eq!(StepName::read(text), Ok(want), "{text}");
        }
        for text in ["build", "#", "#x", ""] {
            assert!(
                StepName::read(text).is_err_and(|why| why.contains("such as build:3")),
                "{text}"
            );
        }
    }

    #[test]
    fn steps_of_a_build_are_found_by_number_and_by_place() {
        let step = |place: Option<(&str, usize)>| RecordedStep {
            place: place.map(|(stage, number)| (stage.to_owned(), number)),
            ..RecordedStep::default()
        };
        let steps = [(1, step(None)), (2, step(Some(("build", 1)))), (3, step(Some(("build", 2))))];
        let build = Recorded { steps: steps.into(), ..Recorded::default() };
        for (text, want) in [
            ("#1", Some((1, "#1"))),
            ("3", Some((3, "build:2"))),
            ("#3", Some((3, "build:2"))),
            ("Build:1", Some((2, "build:1"))),
            ("build:3", None),
            ("other:2", None),
            ("#4", None),
        ] {
            let name = StepName::read(text).unwrap();
            let found = name.find(&build);
            let found =
                found.map(|(number, step)| (number, StepName::of(number, step).to_string()));
            assert_eq!(found, want.map(|(number, name)| (number, name.to_owned())), "{text}");
        }
    }
}
