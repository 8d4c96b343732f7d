//! SOURCE_DATE_EPOCH: the time that an image gets instead of the clock's.

use std::collections::BTreeMap;
use std::path::Path;

use crate::ir;

use super::args::BuildArgs;
use super::exit::Exit;
use super::report::Complaint;

type Result<T> = std::result::Result<T, Complaint>;

/// The time that the image gets, if it is not the clock's.
pub(super) fn epoch(
    args: &BuildArgs,
    build_args: &BTreeMap<String, String>,
    dockerfile: &ir::Dockerfile,
    context: &Path,
) -> Result<Option<i64>> {
    let given = build_args.get("SOURCE_DATE_EPOCH").cloned().or_else(|| default_epoch(dockerfile));
    if let Some(text) = given.filter(|text| !text.is_empty()) {
        return text.parse().map(Some).map_err(|_bad| {
            let text = format!("error: SOURCE_DATE_EPOCH={text} is no number of seconds");
            Complaint::new(text, Exit::Usage)
        });
    }
    Ok(args.reproducible.then(|| newest_commit(context).unwrap_or(0)))
}

/// `ARG SOURCE_DATE_EPOCH=…` before the first FROM.
fn default_epoch(dockerfile: &ir::Dockerfile) -> Option<String> {
    dockerfile.meta_args.iter().rev().find_map(|instruction| {
        let ir::Kind::Arg(args) = &instruction.kind else {
            return None;
        };
        let named = args.iter().find(|arg| arg.name.value == "SOURCE_DATE_EPOCH")?;
        named.default.as_ref().map(|default| default.value.trim_matches('"').to_owned())
    })
}

/// When the context's newest git commit was made.
#[expect(clippy::disallowed_methods, reason = "git knows its own format best")]
fn newest_commit(context: &Path) -> Option<i64> {
    let output = std::process::Command::new("git")
        .args(["-c", "safe.directory=*", "-C"])
        .arg(context)
        .args(["log", "-1", "--format=%ct"])
        .stdin(std::process::Stdio::null())
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
