//! `rbuild prune`
#![expect(clippy::print_stdout, reason = "that is what was asked for")]

use super::{Complaint, Environment, Exit, Global, open_store};
use crate::cli::args::PruneArgs;
use crate::cli::progress::size;
use crate::store::PruneOptions;

pub(in crate::cli) fn run(
    args: &PruneArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), Complaint> {
    let store = open_store(global, environment)?;
    let pruned = store
        .prune(&PruneOptions { all: args.all })
        .map_err(|error| Complaint::from_error(&error, Exit::Environment))?;
    let (layers, blobs) = (pruned.n_layers, pruned.n_blobs);
    let caches = match pruned.n_caches {
        0 => String::new(),
        caches => format!(", {caches} caches of RUN --mount"),
    };
    println!("removed {layers} layers and {blobs} blobs{caches}, {}", size(pruned.n_bytes));
    Ok(())
}
