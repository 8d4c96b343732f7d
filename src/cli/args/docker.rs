//! Options of `docker buildx build` that are accepted and change nothing.

use clap::Args;

use super::heading::DOCKER;
use super::{csv, go_booleans};

/// Options of docker's command lines that have no effect, and attestations, which can only be switched
/// off.
#[derive(Debug, Args)]
pub(crate) struct DockerArgs {
    /// No attestation of provenance: only `false`
    #[arg(
        long,
        value_name = "false",
        value_parser = no_attestation,
        hide_short_help = true,
        help_heading = DOCKER
    )]
    provenance: Option<bool>,
    /// No attestation of the contents: only `false`
    #[arg(
        long,
        value_name = "false",
        value_parser = no_attestation,
        hide_short_help = true,
        help_heading = DOCKER
    )]
    sbom: Option<bool>,
    /// No attestation: only with `disabled=true`
    #[arg(
        long,
        value_name = "type=TYPE,disabled=true",
        value_parser = no_attestation_of_type,
        hide_short_help = true,
        help_heading = DOCKER
    )]
    attest: Vec<bool>,
    /// No effect: there are no builders
    #[arg(long, value_name = "NAME", hide_short_help = true, help_heading = DOCKER)]
    builder: Option<String>,
    /// No effect: a build leaves no containers
    #[arg(
        long,
        value_name = "BOOL",
        value_parser = boolean,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_short_help = true,
        help_heading = DOCKER
    )]
    rm: Option<bool>,
    /// No effect: a build leaves no containers
    #[arg(
        long,
        value_name = "BOOL",
        value_parser = boolean,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_short_help = true,
        help_heading = DOCKER
    )]
    force_rm: Option<bool>,
    /// No effect: the context is read in place
    #[arg(
        long,
        value_name = "BOOL",
        value_parser = boolean,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_short_help = true,
        help_heading = DOCKER
    )]
    compress: Option<bool>,
    /// No effect: use `RUN --security=insecure`
    #[arg(long, value_name = "OPTION", hide_short_help = true, help_heading = DOCKER)]
    pub(crate) security_opt: Vec<String>,
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    go_booleans::parse(text).ok_or_else(|| "must be true or false".to_owned())
}

/// Reads a value of `--provenance` or `--sbom`, which must switch the attestation off: a boolean, or
/// fields (`CanonicalizeAttest` of Buildx).
fn no_attestation(text: &str) -> Result<bool, String> {
    let is_on = boolean(text).or_else(|_no_boolean| is_disabled(text).map(|is_off| !is_off))?;
    refused(is_on, "`false`")
}

/// Reads a value of `--attest`, which must switch its type off.
fn no_attestation_of_type(text: &str) -> Result<bool, String> {
    if !csv::fields(text)?.iter().any(|field| field.trim_start().starts_with("type=")) {
        return Err("`type` is missing".to_owned());
    }
    refused(!is_disabled(text)?, "`disabled=true`")
}

fn refused(is_on: bool, accepted: &str) -> Result<bool, String> {
    if is_on {
        return Err(format!("rbuild does not create attestations; only {accepted} is accepted"));
    }
    Ok(false)
}

/// Returns whether one of the fields is `disabled=true`; the last one counts.
fn is_disabled(text: &str) -> Result<bool, String> {
    let fields = csv::fields(text)?;
    let value = fields.iter().rev().find_map(|field| field.trim_start().strip_prefix("disabled="));
    value.map_or(Ok(false), boolean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attestations_can_only_be_switched_off() {
        for (text, is_accepted) in [
            ("false", true),
            ("0", true),
            ("disabled=true", true),
            ("true", false),
            ("mode=max", false),
            ("mode=max,disabled=false", false),
            ("", false),
        ] {
            assert_eq!(no_attestation(text).is_ok(), is_accepted, "{text}");
        }
        for (text, is_accepted) in [
            ("type=provenance,disabled=true", true),
            ("type=sbom,generator=x,disabled=1", true),
            ("type=sbom,disabled=maybe", false),
            ("type=provenance,mode=max", false),
            ("disabled=true", false),
        ] {
            assert_eq!(no_attestation_of_type(text).is_ok(), is_accepted, "{text}");
        }
    }
}
