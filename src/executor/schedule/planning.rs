//! Planning: resolves images until the plan is complete. Also determines the inputs of a build for
//! a lock file.

use crate::diag::Span;
use crate::dockerfile::ir;
use crate::plan::{
    self, CopyFrom, ImageRequest, Images, Lock, Operation, Outcome, Plan, PlannedSource, Remote,
    RemoteCopySource, Request, RunMount,
};

use crate::executor::inputs::build_inputs::BuildInputs;
use crate::executor::inputs::image_table::ImageTable;
use crate::executor::{
    BuildError, BuildOptions, ContextFiles, Event, Failure, FetchError, Services, chain,
};

type Result<T> = std::result::Result<T, Failure>;

/// Returns the plan of the build, and the images that it names.
pub(in crate::executor) fn plan(inputs: &BuildInputs<'_>) -> Result<(Plan, ImageTable)> {
    plan_of(inputs, &inputs.options.dockerfile)
}

/// Returns the plan for another Dockerfile.
pub(in crate::executor) fn plan_of(
    inputs: &BuildInputs<'_>,
    file: &ir::Dockerfile,
) -> Result<(Plan, ImageTable)> {
    let mut table = ImageTable::default();
    let request = &inputs.options.request;
    let plan = complete(inputs, file, request, &mut table, &mut Images::new())?;
    inputs.services.locked.record_platforms(&inputs.options.request.platforms);
    Ok((plan, table))
}

fn complete(
    inputs: &BuildInputs<'_>,
    file: &ir::Dockerfile,
    request: &Request,
    table: &mut ImageTable,
    known: &mut Images,
) -> Result<Plan> {
    loop {
        let stop = inputs.services.cancel;
        let outcome = stop
            .end_at_once_during(|| plan::plan(file, request, known))
            .map_err(|diagnostics| BuildError::Dockerfile { diagnostics })?;
        match outcome {
            Outcome::Ready(plan) => return Ok(*plan),
            Outcome::Needs(needs) => {
                table.resolve(inputs.services, inputs.options, &needs, known)?;
            }
        }
    }
}

/// Determines the inputs of a build without building, and returns them for a lock file.
///
/// Without a target, determines those of every stage. A stage that cannot be planned by itself is a
/// warning, unless it is the last one.
///
/// # Errors
/// The error of the first input that cannot be determined.
pub fn lock(services: &Services<'_>, options: &BuildOptions) -> Result<Lock> {
    let inputs = BuildInputs::new(services, options);
    let (mut table, mut known) = (ImageTable::default(), Images::new());
    let plan = complete(&inputs, &options.dockerfile, &options.request, &mut table, &mut known)?;
    record_inputs(&inputs, &plan)?;
    let all = if options.request.target.is_none() { options.dockerfile.stages.len() } else { 0 };
    for number in 0..all.saturating_sub(1) {
        let request = Request { target: Some(number.to_string()), ..options.request.clone() };
        let recorded = complete(&inputs, &options.dockerfile, &request, &mut table, &mut known);
        if let Err(error) = recorded.and_then(|plan| record_inputs(&inputs, &plan)) {
            let why = chain(&*error);
            let text = format!("the inputs of stage {number} are not locked: {why}");
            services.event(Event::Warning { text });
        }
    }
    services.locked.record_platforms(&options.request.platforms);
    Ok(services.locked.used())
}

/// Resolves images and adds what planning needs of them to `images`.
///
/// # Errors
/// [`BuildError::Image`] and other errors of the first image that cannot be resolved.
pub fn base_images(
    services: &Services<'_>,
    options: &BuildOptions,
    requests: &[(ImageRequest, Span)],
    images: &mut Images,
) -> Result<()> {
    Ok(ImageTable::default().resolve(services, options, requests, images)?)
}

/// Determines the digest or commit of each source that is fetched. Images are known already.
fn record_inputs(inputs: &BuildInputs<'_>, plan: &Plan) -> Result<()> {
    let steps = plan.stages.iter().flat_map(|stage| &stage.steps);
    for step in steps {
        match &step.operation {
            Some(Operation::Copy(copy)) => {
                record_context(inputs, &copy.from).map_err(|error| error.at(Some(step.span)))?;
                for part in &copy.parts {
                    if let PlannedSource::Remote(part) = part {
                        record_remote(inputs, part)?;
                    }
                }
            }
            Some(Operation::Run(run)) => {
                for from in run.mounts.iter().filter_map(RunMount::from) {
                    record_context(inputs, from).map_err(|error| error.at(Some(step.span)))?;
                }
            }
            Some(Operation::Workdir(_)) | None => {}
        }
    }
    Ok(())
}

fn record_remote(
    inputs: &BuildInputs<'_>,
    part: &RemoteCopySource,
) -> std::result::Result<(), BuildError> {
    let recorded = match &part.source {
        Remote::Url(url) => {
            // A checksum in the Dockerfile is trusted without a download.
            match inputs.fetched.certain_digest(inputs.services, url, part.checksum) {
                Ok(None) => inputs.fetched.file(inputs.services, url, None).map(drop),
                known => known.map(drop),
            }
        }
        Remote::Git(git) => inputs.fetched.commit(inputs.services, git).map(drop),
    };
    recorded.map_err(|error| error.at(Some(part.span)))
}

fn record_context(
    inputs: &BuildInputs<'_>,
    from: &CopyFrom,
) -> std::result::Result<(), FetchError> {
    let CopyFrom::Named(name) = from else { return Ok(()) };
    match inputs.options.contexts.get(name) {
        Some(ContextFiles::Remote(Remote::Git(git))) => {
            inputs.fetched.commit(inputs.services, git).map(drop)
        }
        Some(ContextFiles::Remote(Remote::Url(url))) => {
            inputs.fetched.file(inputs.services, url, None).map(drop)
        }
        Some(ContextFiles::Directory(_)) | None => Ok(()),
    }
}
