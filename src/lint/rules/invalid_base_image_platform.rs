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
use crate::lint::Rule;
use crate::lint::scene::Origin;
use crate::lint::scene::Scene;

/// The rule.
pub(super) const RULE: Rule =
    Rule { needs_bases: true, ..Rule::new(codes::INVALID_BASE_IMAGE_PLATFORM, check) };

fn check(scene: &Scene<'_>, found: &mut Vec<Diagnostic>) {
    for view in scene.looked_at() {
        let Origin::Image(_, wanted) = &view.origin else { continue };
        let Some(facts) = scene.facts(view) else { continue };
        let have = &facts.platform;
        // A variant is a matter of speed, not of running at all.
        if (&have.os, &have.architecture) == (&wanted.os, &wanted.architecture) {
            continue;
        }
        let image = &view.stage.from.image;
        let message = format!(
            "base image {} was pulled with platform \"{have}\", expected \"{wanted}\"",
            image.value
        );
        found.push(
            Diagnostic::warning(codes::INVALID_BASE_IMAGE_PLATFORM, image.span, message)
                .label(image.span, format!("is for {have} only"))
                .help(format!("use an image that has {wanted}, or build with --platform {have}")),
        );
    }
}
