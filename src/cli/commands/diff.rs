//! `rbuild diff A B`: the differences between two images, in their config and in their files.

mod compare;
mod document;
mod page;

use super::{CliError, Environment, Exit, Global, find, inspect, open_store};
use crate::cli::args::inspect::DiffArgs;
use crate::cli::display::stdout::{self, say};
use crate::cli::images::image_view::ImageView;
use crate::image::{Image, StoredImages};
use crate::store::Store;

use compare::ImageDiff;

/// Prints the differences of two images. With `--exit-code`, fails silently if there are any.
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
    let diff = ImageDiff::of(&old, &new);
    if args.json {
        stdout::json(&document::to_json(&diff));
    } else {
        page::lines(&diff, args).iter().for_each(|line| say!("{line}"));
    }
    if args.exit_code && !diff.is_empty() {
        return Err(CliError::reported(Exit::Build));
    }
    Ok(())
}

fn image(store: &Store, args: &DiffArgs, text: &str) -> Result<Image, CliError> {
    let selected = find::image(store, text)?;
    let loaded = StoredImages::load(store, selected.top)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    find::for_platform(&loaded, args.platform.as_deref(), text)
}

/// Returns the image with its files.
///
/// # Errors
/// [`Exit::Environment`] if a layer is not in the store: its files are then unknown.
fn view(store: &Store, image: Image, text: &str) -> Result<ImageView, CliError> {
    let view = ImageView::of(store, image)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    match view.n_missing() {
        0 => Ok(view),
        n => {
            let (layers, them) = if n == 1 { ("layer", "it") } else { ("layers", "them") };
            let text = format!(
                "error: {n} {layers} of {text} not in the store; use --pull to fetch {them} from \
                 the registry"
            );
            Err(CliError::new(text, Exit::Environment))
        }
    }
}
