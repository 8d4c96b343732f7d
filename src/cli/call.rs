//! `--call`: what to do with a Dockerfile in place of a build.

use std::str::FromStr;

/// What can be learned of a Dockerfile without building it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inspection {
    /// Its mistakes.
    Check,
    /// A target's arguments.
    Outline,
    /// Its stages.
    Targets,
}

/// How that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `--call`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// `None`: build.
    pub(super) what: Option<Inspection>,
    pub(super) format: Format,
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (method, options) = text.split_once(',').unwrap_or((text, ""));
        let what = match method {
            "build" => None,
            "check" | "lint" => Some(Inspection::Check),
            "outline" => Some(Inspection::Outline),
            "targets" => Some(Inspection::Targets),
            other => return Err(format!("`{other}` is none of build, check, outline, targets")),
        };
        let mut format = Format::Text;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            format = match option {
                "format=json" => Format::Json,
                "format=text" => Format::Text,
                other => return Err(format!("`{other}` is neither format=text nor format=json")),
            };
        }
        Ok(Self { what, format })
    }
}
