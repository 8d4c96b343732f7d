//! `rbuild push NAME`

use super::{Complaint, Environment, Exit, Global, open_store, reference, with_services};
use crate::build;
use crate::cli::output;
use crate::cli::stdout::say;
use crate::cli::transfer_args::PushArgs;
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
    let digest = with_services(&store, environment, |services| {
        if let Some(digest) = name.digest().filter(|digest| store.has_blob(*digest)) {
            if compression.is_given() {
                let text = "error: what has a digest goes out as it is; leave --compression away";
                return Err(Complaint::new(text, Exit::Usage));
            }
            return build::push_exact(services, digest, &name).map_err(failed);
        }
        let Loaded { images, is_index, annotations } = Loaded::load(&store, tagged(&store, &name)?)
            .map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
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
            keeps_special: false,
        };
        build::push(services, &images, std::slice::from_ref(&name), &[], &options)
            .map(|digests| digests.first().copied().expect("each name has one"))
            .map_err(failed)
    })?;
    say!("{name} {digest}");
    Ok(())
}

fn failed(error: build::Failure) -> Complaint {
    Complaint::from_error(&*error, Exit::Environment)
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
