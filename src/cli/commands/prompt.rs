//! `rbuild completion`, `rbuild man`

use std::io::{self, Write as _};

use crate::cli::Exit;
use crate::cli::args;
use crate::cli::prompt_args::{CompletionArgs, ManArgs};
use crate::cli::report::Complaint;
use crate::pathio::{self, Context as _};

/// The word `build` may be left out: then its options are those of rbuild itself.
fn with_build_options() -> clap::Command {
    let command = args::command();
    let build = command.find_subcommand("build").cloned().unwrap_or_default();
    command.args(build.get_opts().cloned())
}

pub(in crate::cli) fn completion(args: &CompletionArgs) -> Result<(), Complaint> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut with_build_options(), "rbuild", &mut script);
    // Who reads only a part of it has what they want.
    drop(io::stdout().write_all(&script));
    Ok(())
}

pub(in crate::cli) fn man(args: &ManArgs) -> Result<(), Complaint> {
    let written = pathio::create_dir_all(&args.folder).and_then(|()| {
        clap_mangen::generate_to(args::command(), &args.folder)
            .context("write the manual into", &args.folder)
    });
    written.map_err(|error| Complaint::from_error(&error, Exit::Environment))
}
