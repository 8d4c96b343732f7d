//! Plans: images are resolved until a plan is complete. And what a build's inputs are, without
//! building.

use crate::diag::Span;
use crate::dockerfile::ir;
use crate::plan::{
    self, CopyFrom, ImageRequest, Images, Lock, Operation, Outcome, Plan, PlannedSource, Remote,
    RemoteCopySource, Request, RunMount,
};

use super::contexts::ContextFiles;
use super::images::ImageTable;
use super::options::{BuildOptions, Services};
use super::remote_cache::ImportedCaches;
use super::shared::Shared;
use super::{BuildError, Event, Failure, chain};

type Result<T> = std::result::Result<T, Failure>;

/// The plan of the build, and the images that it names.
pub(super) fn plan(shared: &Shared<'_>) -> Result<(Plan, ImageTable)> {
    plan_of(shared, &shared.options.dockerfile)
}

/// The same of another Dockerfile.
pub(super) fn plan_of(shared: &Shared<'_>, file: &ir::Dockerfile) -> Result<(Plan, ImageTable)> {
    let mut table = ImageTable::default();
    let request = &shared.options.request;
    let plan = complete(shared, file, request, &mut table, &mut Images::new())?;
    shared.services.locked.meet_platforms(&shared.options.request.platforms);
    Ok((plan, table))
}

fn complete(
    shared: &Shared<'_>,
    file: &ir::Dockerfile,
    request: &Request,
    table: &mut ImageTable,
    known: &mut Images,
) -> Result<Plan> {
    loop {
        let stop = shared.services.stop;
        let outcome = stop
            .planning(|| plan::plan(file, request, known))
            .map_err(|diagnostics| BuildError::Dockerfile { diagnostics })?;
        match outcome {
            Outcome::Ready(plan) => return Ok(*plan),
            Outcome::Needs(needs) => table.resolve(shared, &needs, known)?,
        }
    }
}

/// Finds out what the inputs of a build are, as [`super::LockedInputs`] has them afterwards; builds
/// nothing. Without a target, those of every stage: a stage that cannot be planned by itself is a
/// warning, unless it is the last one.
///
/// # Errors
/// Whatever keeps one of them from being known.
pub fn lock(services: &Services<'_>, options: &BuildOptions) -> Result<Lock> {
    let shared = Shared::new(services, options, ImportedCaches::default());
    let (mut table, mut known) = (ImageTable::default(), Images::new());
    let plan = complete(&shared, &options.dockerfile, &options.request, &mut table, &mut known)?;
    meet_all(&shared, &plan)?;
    let all = if options.request.target.is_none() { options.dockerfile.stages.len() } else { 0 };
    for number in 0..all.saturating_sub(1) {
        let request = Request { target: Some(number.to_string()), ..options.request.clone() };
        let met = complete(&shared, &options.dockerfile, &request, &mut table, &mut known);
        if let Err(error) = met.and_then(|plan| meet_all(&shared, &plan)) {
            let why = chain(&*error);
            let text = format!("the inputs of stage {number} are not locked: {why}");
            shared.event(Event::Warning { text });
        }
    }
    services.locked.meet_platforms(&options.request.platforms);
    Ok(services.locked.met())
}

/// Finds out what planning has to know of these images, as a build would.
///
/// # Errors
/// Whatever keeps the build from having one of them.
pub fn base_images(
    services: &Services<'_>,
    options: &BuildOptions,
    wanted: &[(ImageRequest, Span)],
    images: &mut Images,
) -> Result<()> {
    let shared = Shared::new(services, options, ImportedCaches::default());
    Ok(ImageTable::default().resolve(&shared, wanted, images)?)
}

/// Learns what every source of the plan is that is fetched; images are known already.
fn meet_all(shared: &Shared<'_>, plan: &Plan) -> Result<()> {
    let steps = plan.stages.iter().flat_map(|stage| &stage.steps);
    for step in steps {
        match &step.operation {
            Some(Operation::Copy(copy)) => {
                meet_from(shared, &copy.from).map_err(|error| error.at(Some(step.span)))?;
                for part in &copy.parts {
                    if let PlannedSource::Remote(part) = part {
                        meet_part(shared, part)?;
                    }
                }
            }
            Some(Operation::Run(run)) => {
                for from in run.mounts.iter().filter_map(RunMount::from) {
                    meet_from(shared, from).map_err(|error| error.at(Some(step.span)))?;
                }
            }
            Some(Operation::Workdir(_)) | None => {}
        }
    }
    Ok(())
}

fn meet_part(shared: &Shared<'_>, part: &RemoteCopySource) -> std::result::Result<(), BuildError> {
    let met = match &part.source {
        Remote::Url(url) => {
            // What the Dockerfile says itself is believed without a download.
            match shared.fetched.certain_digest(shared, url, part.checksum) {
                Ok(None) => shared.fetched.file(shared, url, None).map(drop),
                known => known.map(drop),
            }
        }
        Remote::Git(git) => shared.fetched.commit(shared, git).map(drop),
    };
    met.map_err(|error| error.at(Some(part.span)))
}

fn meet_from(shared: &Shared<'_>, from: &CopyFrom) -> std::result::Result<(), super::FetchError> {
    let CopyFrom::Named(name) = from else { return Ok(()) };
    match shared.options.contexts.get(name) {
        Some(ContextFiles::Remote(Remote::Git(git))) => {
            shared.fetched.commit(shared, git).map(drop)
        }
        Some(ContextFiles::Remote(Remote::Url(url))) => {
            shared.fetched.file(shared, url, None).map(drop)
        }
        Some(ContextFiles::Directory(_)) | None => Ok(()),
    }
}
