//! `--call`: what to do with a Dockerfile in place of a build.

use std::str::FromStr;

/// What can be learned of a Dockerfile without building it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inspection {
    /// Its mistakes.
    Check,
    /// A target's arguments.
    Outline,
    /// Its stages.
    Targets,
}

/// How that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For code scanning.
    Sarif,
}

/// `--call`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// `None`: build.
    pub(crate) what: Option<Inspection>,
    pub(crate) format: Format,
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
                option if option.starts_with("format=") => {
                    option.trim_start_matches("format=").parse()?
                }
                other => return Err(format!("`{other}` is none of format=text, json, sarif")),
            };
        }
        Ok(Self { what, format })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "sarif" => Ok(Self::Sarif),
            other => Err(format!("`{other}` is none of text, json, sarif")),
        }
    }
}
