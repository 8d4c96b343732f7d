//! `InvalidBaseImagePlatform`: a base image for another machine makes an image that does not run, or runs
//! slowly in an emulator. Known only once the image is.
//!
//! Bad:
//! ```dockerfile
//! FROM --platform=linux/arm64 an-image-for-amd64-only AS base
//! ```
//! Good:
//! ```dockerfile
//! FROM an-image-for-amd64-only AS base
//! ```

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::{Instruction, Word};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::analysis::StageBase;
use crate::oci::{Platform, Reference};

pub(super) const RULE: Rule =
    Rule { needs_bases: true, ..Rule::new(codes::INVALID_BASE_IMAGE_PLATFORM, check) };

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for view in analysis.checked_stages() {
        if let StageBase::Image(name, wanted) = &view.base {
            found.extend(warning(analysis, &view.stage.from.image, name, wanted));
        }
        for word in view.stage.instructions.iter().flat_map(Instruction::from_words) {
            // A stage's name is no image that anything is known of.
            if let Ok(name) = word.value.trim_matches(['"', '\'']).parse() {
                found.extend(warning(analysis, word, &name, analysis.options.platform));
            }
        }
    }
}

fn warning(
    analysis: &Analysis<'_>,
    word: &Word,
    name: &Reference,
    wanted: &Platform,
) -> Option<Diagnostic> {
    let have = (analysis.options.bases?)(name, wanted)?.platform;
    // A variant is a matter of speed, not of running at all.
    if (&have.os, &have.architecture) == (&wanted.os, &wanted.architecture) {
        return None;
    }
    let message = format!(
        "base image {} was pulled with platform \"{have}\", expected \"{wanted}\"",
        word.value
    );
    let help = format!("use an image that has {wanted}, or build with --platform {have}");
    Some(
        Diagnostic::warning(codes::INVALID_BASE_IMAGE_PLATFORM, word.span, message)
            .label(word.span, format!("is for {have} only"))
            .help(help),
    )
}
