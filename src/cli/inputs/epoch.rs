//! SOURCE_DATE_EPOCH: the time that an image gets instead of that of the clock
//! (<https://reproducible-builds.org/specs/source-date-epoch/>).

use std::collections::BTreeMap;

use crate::cli::args::build::BuildArgs;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::dockerfile::ir;

use super::contexts::Input;

type Result<T> = std::result::Result<T, CliError>;

/// Returns the Unix time for the image; `None` for that of the clock. `of_outputs` is the time of the
/// outputs, which takes precedence.
pub(crate) fn epoch(
    of_outputs: Option<i64>,
    args: &BuildArgs,
    build_args: &BTreeMap<String, String>,
    dockerfile: &ir::Dockerfile,
    input: &Input,
) -> Result<Option<i64>> {
    if of_outputs.is_some() {
        return Ok(of_outputs);
    }
    let given = build_args.get("SOURCE_DATE_EPOCH").cloned().or_else(|| default_epoch(dockerfile));
    if let Some(text) = given.filter(|text| !text.is_empty()) {
        return text.parse().map(Some).map_err(|_bad| {
            let text = format!("error: SOURCE_DATE_EPOCH={text} is not a number of seconds");
            CliError::new(text, Exit::Usage)
        });
    }
    Ok(args.reproducible.then(|| input.newest_commit().unwrap_or(0)))
}

/// Returns the value of `ARG SOURCE_DATE_EPOCH=…` before the first FROM.
fn default_epoch(dockerfile: &ir::Dockerfile) -> Option<String> {
    dockerfile.meta_args.iter().rev().find_map(|instruction| {
        let ir::Kind::Arg(args) = &instruction.kind else {
            return None;
        };
        let named = args.iter().find(|arg| arg.name.value == "SOURCE_DATE_EPOCH")?;
        named.default.as_ref().map(|default| default.value.trim_matches('"').to_owned())
    })
}
