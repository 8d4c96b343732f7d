//! `rbuild inspect NAME`
#![expect(clippy::print_stdout, reason = "that is what was asked for")]

use serde_json::{Value, json};

use super::{Complaint, Environment, Exit, Global, open_store, reference};
use crate::cli::args::NameArgs;
use crate::image::Image;

pub(in crate::cli) fn run(
    args: &NameArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Complaint> {
    let name = reference(&args.name)?;
    let store = open_store(global, environment)?;
    let failed = |error| Complaint::from_error(&error, Exit::Environment);
    let Some(manifest) = store.tag(&name).map_err(failed)? else {
        let text = format!(
            "error: there is no image {} in the store; `rbuild images` lists them",
            args.name
        );
        return Err(Complaint::new(text, Exit::Environment));
    };
    let image = Image::load(&store, manifest)
        .map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
    let config: Value = serde_json::from_slice(&image.config().to_json()).unwrap_or_default();
    let layers: Vec<Value> = image.layers().iter().map(|layer| json!(layer.diff_id)).collect();
    let shown = json!({
        "Name": name.to_string(),
        "Id": image.config_digest(),
        "Manifest": manifest,
        "Config": config,
        "Layers": layers,
    });
    println!("{shown:#}");
    Ok(())
}
