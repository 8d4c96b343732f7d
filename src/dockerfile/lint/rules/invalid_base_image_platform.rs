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
use crate::dockerfile::ir::Word;
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::stage_scopes::Scene;
use crate::dockerfile::lint::stage_scopes::{Origin, from_words};
use crate::oci::{Platform, Reference};

/// The rule.
pub(super) const RULE: Rule =
    Rule { needs_bases: true, ..Rule::new(codes::INVALID_BASE_IMAGE_PLATFORM, check) };

fn check(scene: &Scene<'_>, found: &mut Vec<Diagnostic>) {
    for view in scene.looked_at() {
        if let Origin::Image(name, wanted) = &view.origin {
            found.extend(warning(scene, &view.stage.from.image, name, wanted));
        }
        for word in view.stage.instructions.iter().flat_map(|own| from_words(&own.kind)) {
            // A stage's name is no image that anything is known of.
            if let Ok(name) = word.value.trim_matches(['"', '\'']).parse() {
                found.extend(warning(scene, word, &name, scene.options.platform));
            }
        }
    }
}

fn warning(
    scene: &Scene<'_>,
    word: &Word,
    name: &Reference,
    wanted: &Platform,
) -> Option<Diagnostic> {
    let have = (scene.options.bases?)(name, wanted)?.platform;
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
