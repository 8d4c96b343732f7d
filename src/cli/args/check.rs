//! `--fix` and `--format`, which go with `--check`.

use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::call::Format;
use super::heading::CHECKS;

/// Values of `--check`: the sources of base images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckedBases {
    /// The local store
    Store,
    /// The store, then registries
    Pull,
}

/// Options that go with `--check`.
#[derive(Debug, Default, Args)]
pub(crate) struct CheckArgs {
    /// With --check: apply safe fixes to the Dockerfile
    ///
    /// Fixes warnings that have one safe fix, and shows the changes.
    #[arg(long, help_heading = CHECKS)]
    pub(crate) fix: bool,
    /// With --check or --call: text, json or sarif
    ///
    /// sarif is for code scanning (SARIF 2.1.0). Of a build, oci or docker: the media types of all its
    /// outputs, as in buildah [default: $BUILDAH_FORMAT, or oci].
    #[arg(long, value_name = "FORMAT", help_heading = CHECKS)]
    pub(crate) format: Option<FormatArg>,
}

/// The value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormatArg {
    /// Of a check or listing.
    Report(Format),
    /// Of an image.
    Image(ImageFormat),
}

/// Media types of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageFormat {
    /// Those of the OCI image specification.
    Oci,
    /// Those of docker, version 2, schema 2.
    Docker,
}

impl FromStr for FormatArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "oci" => Ok(Self::Image(ImageFormat::Oci)),
            "docker" => Ok(Self::Image(ImageFormat::Docker)),
            other => match other.parse() {
                Ok(format) => Ok(Self::Report(format)),
                Err(_unknown) => {
                    Err(format!("`{other}` is not one of text, json, sarif, oci, docker"))
                }
            },
        }
    }
}

impl CheckArgs {
    /// Returns the name of an option that was given.
    pub(crate) const fn given(&self) -> Option<&'static str> {
        if self.fix {
            return Some("--fix");
        }
        match self.format {
            Some(FormatArg::Report(_)) => Some("--format"),
            Some(FormatArg::Image(_)) | None => None,
        }
    }

    /// Returns the format of a check or listing.
    pub(crate) const fn report_format(&self) -> Option<Format> {
        match self.format {
            Some(FormatArg::Report(format)) => Some(format),
            Some(FormatArg::Image(_)) | None => None,
        }
    }

    /// Returns the media types of the image.
    pub(crate) const fn image_format(&self) -> Option<ImageFormat> {
        match self.format {
            Some(FormatArg::Image(format)) => Some(format),
            Some(FormatArg::Report(_)) | None => None,
        }
    }
}
