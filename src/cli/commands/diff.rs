//! `rbuild diff A B`: what is different between two images, config and files.

mod compare;
mod document;
mod page;

use super::{CliError, Environment, Exit, Global, find, inspect, open_store};
use crate::cli::args::inspect::DiffArgs;
use crate::cli::display::stdout::{self, say};
use crate::cli::images::image_view::ImageView;
use crate::image::{Image, StoredImages};
use crate::store::Store;

use compare::Difference;

pub(crate) fn run(
    args: &DiffArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let store = open_store(global, environment)?;
    let (old, new) = (image(&store, args, &args.old)?, image(&store, args, &args.new)?);
    if args.pull {
        inspect::fetch(&store, environment, &[old.clone(), new.clone()])?;
    }
    let (old, new) = (view(&store, old, &args.old)?, view(&store, new, &args.new)?);
    let difference = Difference::of(&old, &new);
    if args.json {
        stdout::json(&document::of(&difference));
    } else {
        page::lines(&difference, args).iter().for_each(|line| say!("{line}"));
    }
    if args.exit_code && !difference.is_none() {
        return Err(CliError::said(Exit::Build));
    }
    Ok(())
}

fn image(store: &Store, args: &DiffArgs, text: &str) -> Result<Image, CliError> {
    let chosen = find::image(store, text)?;
    let loaded = StoredImages::load(store, chosen.top)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    find::one(&loaded, args.platform.as_deref(), text)
}

/// The image with all its layers: of those that are not here nobody can say what is in them.
fn view(store: &Store, image: Image, text: &str) -> Result<ImageView, CliError> {
    let view = ImageView::of(store, image)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    match view.n_missing() {
        0 => Ok(view),
        n => {
            let layers = if n == 1 { "a layer".to_owned() } else { format!("{n} layers") };
            let text = format!(
                "error: {layers} of {text} are in a registry and not in the store; --pull fetches \
                 what is missing"
            );
            Err(CliError::new(text, Exit::Environment))
        }
    }
}
