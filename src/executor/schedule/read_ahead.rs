//! Reads what COPY and ADD will take from the context, while the build waits for registries.

use crate::dockerfile::ir;
use crate::oci::ImageConfig;
use crate::plan::{self, BaseImage, CopyFrom, Images, Operation, Outcome, PlannedSource, Request};

use crate::executor::inputs::build_inputs::BuildInputs;

/// Hashes the files that the steps take from the context, in the order of the steps, until the inputs are
/// [ended](BuildInputs::end_reading_ahead). Errors are ignored: the step that needs the files meets the
/// same error, and can explain it.
pub(in crate::executor) fn read_context(inputs: &BuildInputs<'_>) {
    let options = inputs.options;
    if options.context.tree.is_some() {
        return;
    }
    for paths in context_sources(&options.dockerfile, &options.request) {
        if inputs.is_reading_ahead_ended() {
            return;
        }
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        drop(inputs.context_files(&paths));
    }
}

/// Returns the sources of each COPY and ADD from the context in the stages that are needed, as far as they
/// are known without the base images: a variable from a base image is empty here.
fn context_sources(file: &ir::Dockerfile, request: &Request) -> Vec<Vec<String>> {
    let mut images = Images::new();
    let plan = loop {
        let Ok(outcome) = plan::plan(file, request, &images) else { return Vec::new() };
        let needs = match outcome {
            Outcome::Ready(plan) => break plan,
            Outcome::Needs(needs) => needs,
        };
        let n_known = images.len();
        images.extend(needs.into_iter().map(|(image, _span)| {
            let config = ImageConfig::scratch(&image.platform);
            (image, BaseImage { config, triggers: Vec::new() })
        }));
        if images.len() == n_known {
            return Vec::new();
        }
    };
    let steps = plan.stages.iter().flat_map(|stage| &stage.steps);
    let copies = steps.filter_map(|step| match &step.operation {
        Some(Operation::Copy(copy)) if copy.from == CopyFrom::Context => Some(copy),
        _ => None,
    });
    let paths = copies.map(|copy| {
        let paths = copy.parts.iter().filter_map(PlannedSource::path);
        paths.map(str::to_owned).collect::<Vec<_>>()
    });
    paths.filter(|paths| !paths.is_empty()).collect()
}
