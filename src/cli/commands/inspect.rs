//! `rbuild inspect NAME`
#![expect(clippy::print_stdout, reason = "that is what was asked for")]

use serde_json::{Value, json};

use super::{Complaint, Environment, Exit, Global, find, open_store};
use crate::cli::transfer_args::NameArgs;
use crate::image::{Image, Loaded};

pub(in crate::cli) fn run(
    args: &NameArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Complaint> {
    let store = open_store(global, environment)?;
    let chosen = find::image(&store, &args.name)?;
    let manifest = chosen.top;
    let name = chosen.name.map(|name| name.to_string());
    let loaded = Loaded::load(&store, manifest)
        .map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
    let shown = match loaded.images.as_slice() {
        [only] if !loaded.is_index => {
            let mut shown = json!({ "Name": name, "Manifest": manifest });
            add_image(&mut shown, only);
            shown
        }
        several => {
            let images = several.iter().map(|image| {
                let mut shown = json!({ "Platform": image.platform().to_string() });
                add_image(&mut shown, image);
                shown
            });
            let images: Vec<Value> = images.collect();
            json!({ "Name": name, "Index": manifest, "Images": images })
        }
    };
    println!("{shown:#}");
    Ok(())
}

fn add_image(shown: &mut Value, image: &Image) {
    let config: Value = serde_json::from_slice(&image.config().to_json()).unwrap_or_default();
    let layers: Vec<Value> = image.layers().iter().map(|layer| json!(layer.diff_id)).collect();
    let members = json!({ "Id": image.config_digest(), "Config": config, "Layers": layers });
    if let (Value::Object(shown), Value::Object(members)) = (shown, members) {
        shown.extend(members);
    }
}
