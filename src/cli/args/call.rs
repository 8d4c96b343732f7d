//! `--call`: checks and listings of a Dockerfile instead of a build.

use std::str::FromStr;

/// A method of `--call` that builds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inspection {
    /// `check`: errors and warnings.
    Check,
    /// `outline`: arguments of the target.
    Outline,
    /// `targets`: the stages.
    Targets,
}

/// Output format of a check or listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text for people, with excerpts.
    Text,
    /// One JSON object for programs.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

/// The value of `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// `None` for a normal build.
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
            other => return Err(format!("`{other}` is not one of build, check, outline, targets")),
        };
        let mut format = Format::Text;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            format = match option {
                option if option.starts_with("format=") => {
                    option.trim_start_matches("format=").parse()?
                }
                other => {
                    return Err(format!(
                        "`{other}` is not one of format=text, format=json, format=sarif"
                    ));
                }
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
            other => Err(format!("`{other}` is not one of text, json, sarif")),
        }
    }
}
