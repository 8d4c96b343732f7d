//! `rbuild completion`, `rbuild man`

use std::io::{self, Write as _};

use crate::cli::args;
use crate::cli::args::prompt::{CompletionArgs, ManArgs};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::topics;
use crate::pathio::output::write_output;
use crate::pathio::{self, Context as _};

/// Longer than any page of the manual.
const MAX_PAGE_BYTES: u64 = 16 << 20;

/// The word `build` may be left out: then its options are those of rbuild itself.
fn with_build_options() -> clap::Command {
    let command = args::command();
    let build = command.find_subcommand("build").cloned().unwrap_or_default();
    command.args(build.get_opts().cloned())
}

pub(crate) fn completion(args: &CompletionArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut with_build_options(), "rbuild", &mut script);
    // Who reads only a part of it has what they want.
    drop(io::stdout().write_all(&script));
    Ok(())
}

pub(crate) fn man(args: &ManArgs) -> Result<(), CliError> {
    let written = pathio::create_dir_all(&args.directory).and_then(|()| {
        // The generator writes through links: it gets a directory of its own.
        let made = tempfile::tempdir().context("make a directory for", &args.directory)?;
        clap_mangen::generate_to(args::command(), made.path())
            .context("write the manual into", made.path())?;
        for entry in std::fs::read_dir(made.path()).context("list", made.path())? {
            let page = entry.context("list", made.path())?;
            let text = pathio::read(&page.path(), MAX_PAGE_BYTES)?;
            write_output(&args.directory.join(page.file_name()), &text)?;
        }
        topics::manual_pages(&args.directory).into_iter().try_for_each(|(path, text)| {
            path.parent().map_or(Ok(()), pathio::create_dir_all)?;
            write_output(&path, text.as_bytes())
        })
    });
    written.map_err(|error| CliError::from_error(&error, Exit::Environment))
}
