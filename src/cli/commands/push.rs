//! `rbuild push NAME`
#![expect(clippy::print_stdout, reason = "that is what was asked for")]

use super::{Complaint, Environment, Exit, Global, open_store, reference};
use crate::cli::args::PushArgs;
use crate::cli::{output, registries};
use crate::image::{self, ExportOptions, Loaded};

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
    let failed = |error| Complaint::from_error(&error, Exit::Environment);
    let Some(manifest) = store.tag(&name).map_err(failed)? else {
        let text = format!(
            "error: there is no image {} in the store; build it with `rbuild -t {} .`",
            args.name, args.name
        );
        return Err(Complaint::new(text, Exit::Environment));
    };
    let failed = |error| Complaint::from_error(&error, Exit::Environment);
    let Loaded { images, is_index } = Loaded::load(&store, manifest).map_err(failed)?;
    let options = ExportOptions {
        packing,
        force_packing: compression.force,
        docker_media_types: false,
        always_index: is_index,
        jobs: environment.processors,
        names: vec![name.clone()],
        created: None,
    };
    let digest = image::push_all(&store, &registry, &images, &name, &[], &options, &|_more| {})
        .map_err(failed)?;
    println!("{name} {digest}");
    Ok(())
}
