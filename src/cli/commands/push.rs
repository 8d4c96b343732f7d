//! `rbuild push NAME`
#![expect(clippy::print_stdout, reason = "that is what was asked for")]

use super::{Complaint, Environment, Exit, Global, open_store, reference};
use crate::build::{self, Lent, LockedInputs, Services, StepNumbers, Stop};
use crate::cli::args::PushArgs;
use crate::cli::progress::{Progress, Reporter};
use crate::cli::{output, registries};
use crate::image::{ExportOptions, Loaded};
use crate::oci::{Annotation, Digest, Reference};
use crate::store::Store;

pub(in crate::cli) fn run(
    args: &PushArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Complaint> {
    let name = reference(&args.name)?;
    let compression = &args.compression;
    let packing = output::packing(compression.kind.as_deref(), compression.level)
        .map_err(|text| Complaint::new(format!("error: {text}"), Exit::Usage))?;
    let store = open_store(global, environment)?;
    let registry = registries::client(environment)?;
    let stop = Stop::new().map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
    let reporter = Reporter::new(Progress::Auto, environment);
    let programs = environment.for_programs();
    let services = Services {
        store: &store,
        registry: &registry,
        stop: &stop,
        environment: &programs,
        lent: &Lent::default(),
        locked: &LockedInputs::none(),
        numbers: &StepNumbers::default(),
        events: &|event| reporter.event(&event),
    };
    let pushed = match name.digest().filter(|digest| store.has_blob(*digest)) {
        Some(_) if compression.is_given() => {
            let text = "error: what has a digest goes out as it is; leave --compression away";
            return Err(Complaint::new(text, Exit::Usage));
        }
        Some(digest) => build::push_exact(&services, digest, &name),
        None => {
            let manifest = tagged(&store, &name)?;
            let failed = |error| Complaint::from_error(&error, Exit::Environment);
            let Loaded { images, is_index, annotations } =
                Loaded::load(&store, manifest).map_err(failed)?;
            let options = ExportOptions {
                packing,
                force_packing: compression.force,
                docker_media_types: false,
                always_index: is_index,
                jobs: environment.processors,
                names: vec![name.clone()],
                created: None,
                annotations: Annotation::of_index(&annotations),
                by_digest: false,
                split: None,
            };
            build::push(&services, &images, std::slice::from_ref(&name), &[], &options)
                .map(|digests| digests.first().copied().expect("each name has one"))
        }
    };
    let digest: Digest =
        pushed.map_err(|error| Complaint::from_error(&*error, Exit::Environment))?;
    println!("{name} {digest}");
    Ok(())
}

/// The image that has this name in the store.
fn tagged(store: &Store, name: &Reference) -> Result<Digest, Complaint> {
    let manifest = store.tag(name);
    let manifest = manifest.map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
    manifest.ok_or_else(|| {
        let name = name.familiar();
        let text = format!(
            "error: there is no image {name} in the store; build it with `rbuild -t {name} .`"
        );
        Complaint::new(text, Exit::Environment)
    })
}
