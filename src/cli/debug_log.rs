//! The debug log: `--debug`, `--debug-log` and `RBUILD_LOG`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Exit;
use super::args::debug::DebugArgs;
use super::environment::Environment;
use super::error::CliError;

/// Name of the variable that selects what is logged.
const FILTER: &str = "RBUILD_LOG";

/// Starts the log if the command line or `RBUILD_LOG` asks for it. Returns whether it shares
/// standard error with progress.
///
/// # Errors
/// Exit status 2: `RBUILD_LOG` cannot be read, or the log and JSON progress want the same stream. 3: the
/// file cannot be written.
pub(super) fn start(
    args: &DebugArgs,
    is_json: bool,
    environment: &Environment,
) -> Result<bool, CliError> {
    let Some(filter) = filter(args, environment.get(FILTER))? else { return Ok(false) };
    let lines = tracing_subscriber::fmt::layer().with_ansi(false);
    let log = tracing_subscriber::registry().with(filter);
    match &args.debug_log {
        Some(path) => {
            let file = Mutex::new(open(path)?);
            log.with(lines.with_writer(file)).init();
        }
        None if is_json => {
            let text = "error: the debug log and --progress=json both use standard error\n  \
                        = help: write the log to a file with --debug-log FILE";
            return Err(CliError::new(text, Exit::Usage));
        }
        None => log.with(lines.with_writer(io::stderr)).init(),
    }
    Ok(args.debug_log.is_none())
}

/// Returns what to log: `RBUILD_LOG` in the notation of `tracing`, as in `debug` or
/// `rbuild::registry=trace`. `--debug` alone logs everything of rbuild but `trace`.
fn filter(args: &DebugArgs, variable: Option<&str>) -> Result<Option<Targets>, CliError> {
    let is_wanted = args.debug || args.debug_log.is_some();
    let Some(text) = variable else {
        return Ok(is_wanted.then(|| Targets::new().with_target("rbuild", LevelFilter::DEBUG)));
    };
    // `Targets` takes a misspelt level for the name of a module.
    let is_known = |part: &str| part.contains("rbuild") || part.parse::<LevelFilter>().is_ok();
    match text.parse() {
        Ok(targets) if text.split(',').all(is_known) => Ok(Some(targets)),
        Ok(_) | Err(_) => {
            let text = format!(
                "error: invalid {FILTER} {text:?}\n  = help: a level (error, warn, info, debug, trace), or \
                 levels of modules such as rbuild::registry=debug"
            );
            Err(CliError::new(text, Exit::Usage))
        }
    }
}

/// Opens the file, which only its owner can read: the log names hosts and files.
fn open(path: &Path) -> Result<File, CliError> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|error| {
        let text = format!("error: cannot write the debug log {}: {error}", path.display());
        CliError::new(text, Exit::Environment)
    })
}
