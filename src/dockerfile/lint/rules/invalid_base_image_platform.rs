//! `InvalidBaseImagePlatform`: a base image should have the requested platform.
//!
//! A base image for another platform gives an image that fails to run, or runs slowly under emulation.
//! The rule needs the config of the image (BuildKit, `dockerfile2llb.validateBaseImagePlatform`).
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
            // If the word names a stage, the lookup finds no image.
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
    // Another variant usually runs, so it is not reported.
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
