//! rbuild as a plugin of docker's client: a link named `docker-buildx` or `docker-rbuild`.
//!
//! - `call`: the command line that docker passes, as one of rbuild's
//! - `builders`: commands of Buildx about builders, of which rbuild has exactly one
//! - `install`: the link, and the alias in docker's `config.json`
//! - `words`: reading a command line word by word
//!
//! The protocol: <https://pkg.go.dev/github.com/docker/cli/cli-plugins/metadata>.

mod builders;
mod call;
pub(super) mod install;
mod words;

use std::ffi::OsString;

use serde_json::json;

use super::display::stdout;
use super::environment::Environment;
use super::error::CliError;
use super::exit::Exit;

use call::PluginCall;

/// The version of Buildx whose command line and files rbuild provides. Compose refuses plugins before
/// 0.17.
const BUILDX_VERSION: &str = "v0.36.1";

/// Returns the version for clients: `v0.36.1+rbuild.0.1.0`.
fn version() -> String {
    format!("{BUILDX_VERSION}+rbuild.{}", env!("CARGO_PKG_VERSION"))
}

/// The command line of a process that docker may have started.
#[derive(Debug)]
pub(super) enum Invocation {
    /// A command line of rbuild.
    Command(Vec<OsString>),
    /// A command that has ended.
    Done(Result<(), CliError>),
}

/// Reads the command line. If docker started rbuild as a plugin, sets the variables that docker's
/// options stand for, and answers commands that are for docker only.
pub(super) fn invocation(words: Vec<OsString>, environment: &mut Environment) -> Invocation {
    let Some(plugin) = call::plugin_name(&words) else { return Invocation::Command(words) };
    let mut variables = Vec::new();
    let call = call::read(&plugin, &words, &mut variables);
    variables.into_iter().for_each(|(name, value)| environment.set(name, value));
    match call {
        Ok(PluginCall::Command(words)) => {
            environment.is_docker_plugin = true;
            Invocation::Command(words)
        }
        Ok(PluginCall::Builder(command)) => {
            builders::run(&command);
            Invocation::Done(Ok(()))
        }
        Ok(PluginCall::Metadata) => {
            stdout::json_line(&json!({
                "SchemaVersion": "0.1.0",
                "Vendor": "rbuild",
                "Version": version(),
                "ShortDescription": "Build OCI images without a daemon",
            }));
            Invocation::Done(Ok(()))
        }
        Err(text) => Invocation::Done(Err(CliError::new(format!("error: {text}"), Exit::Usage))),
    }
}
